r"""ResNets on ImageNet as torchvision trains and normalises them, for its weights (IMAGENET1K_V1).

    python -m resnet_jax.convert --layout=torchvision --import=resnet50.safetensors \
        --config=configs/imagenet_torchvision.py:depth=50 --workdir=RUN
    python -m resnet_jax.predict --workdir=RUN photograph.jpg

Source: github.com/pytorch/vision, references/classification. 90 epochs of 256 images (32 on each of
8 GPUs, normalised apart), rate 0.1 divided by 10 at epochs 30 and 60, decay 1e-4 on every
parameter, a bottleneck's stride on its 3x3 convolution. Theirs, error of the 224 centre pixels of
256: 30.24 % (18), 26.69 % (34), 23.87 % (50), 22.63 % (101), 21.69 % (152).
"""

from configs import imagenet

# Steps by the end of an epoch.
EPOCH = 1_281_167 / 256


def get_config(arg: str = ""):
    config = imagenet.get_config(arg)
    config.model.stride_at = "3x3"
    config.steps = round(90 * EPOCH)
    config.schedule.boundaries = (round(30 * EPOCH), round(60 * EPOCH))
    return config
