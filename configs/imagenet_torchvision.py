r"""ResNets on ImageNet as torchvision trains and normalises them, for its weights (IMAGENET1K_V1).

    python -m resnet_jax.convert --layout=torchvision --import=resnet50.safetensors \
        --config=configs/imagenet_torchvision.py:depth=50 --workdir=RUN
    python -m resnet_jax.predict --workdir=RUN photograph.jpg

Source: github.com/pytorch/vision, references/classification. A run takes 90 epochs of 256 images,
32 of them on each of 8 GPUs and normalised apart. The rate is 0.1, divided by 10 at epochs 30 and
60; the decay is 1e-4 on every parameter; a bottleneck has its stride on its 3x3 convolution.
`family=wide`, `family=resnext` and `family=densenet` take it for their weights, too.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import imagenet

# Steps of an epoch.
EPOCH = 1_281_167 / 256
CROP = "validation split, 224 centre pixels of 256, one run"
SOURCE = Source(
    "github.com/pytorch/vision, references/classification",
    {
        "model.family": ("resnet", "wide", "resnext", "densenet"),
        "model.merge": ("add",),
        "norm.kind": ("batch",),
    },
    (
        "torchvision trains ResNeXts for 100 epochs; its weights of DenseNets are their authors'.",
        "Convolutions start with the fan-out, as there; the classifier starts from N(0, 1/n), "
        "1.7 times wider than torchvision's uniform numbers.",
    ),
    (
        Published("depth=18", "30.24", CROP),
        Published("depth=34", "26.69", CROP),
        Published("depth=50", "23.87", CROP),
        Published("depth=101", "22.63", CROP),
        Published("depth=152", "21.69", CROP),
    ),
)

RECIPE = imagenet.RECIPE | {
    "model.stride_at": "3x3",
    "optimizer.decay": "all",
    "steps": round(90 * EPOCH),
    "schedule.boundaries": (round(30 * EPOCH), round(60 * EPOCH)),
}


def get_config(argument: str = "") -> Config:
    return make(choose(argument, depth=50), RECIPE)
