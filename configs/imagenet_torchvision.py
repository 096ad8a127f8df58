r"""ResNets on ImageNet as torchvision trains and normalises them, for its weights (IMAGENET1K_V1).

    python -m resnet_jax.convert --layout=torchvision --import=resnet50.safetensors \
        --config=configs/imagenet_torchvision.py:depth=50 --workdir=RUN
    python -m resnet_jax.predict --workdir=RUN photograph.jpg

Source: github.com/pytorch/vision, references/classification. A run takes 90 epochs of 256 images,
32 of them on each of 8 GPUs and normalised apart. The rate is 0.1, divided by 10 at epochs 30 and
60; the decay is 1e-4 on every parameter; a bottleneck has its stride on its 3x3 convolution.
torchvision's errors on the 224 centre pixels of 256 are 30.24 % (18 layers), 26.69 % (34),
23.87 % (50), 22.63 % (101) and 21.69 % (152).
"""

from resnet_jax.config import Config, choose, make

from . import imagenet

# Steps of an epoch.
EPOCH = 1_281_167 / 256

RECIPE = imagenet.RECIPE | {
    "model.stride_at": "3x3",
    "steps": round(90 * EPOCH),
    "schedule.boundaries": (round(30 * EPOCH), round(60 * EPOCH)),
}


def get_config(argument: str = "") -> Config:
    return make(choose(argument, depth=50), RECIPE)
