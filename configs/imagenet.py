"""ResNets on ImageNet, by the recipe of He et al. 2015 (arXiv:1512.03385, sec. 3.4) and 2016.

    python -m resnet_jax.describe --config=configs/imagenet.py:depth=50

A run takes 600,000 steps of 256 images. The rate is 0.1, divided by 10 at epochs 30 and 60 (He et
al. 2016, sec. 5.2); the decay is 1e-4 on the kernels of convolutions and of the classifier. Eight
GPUs normalised 32 images each. The data set is streamed, because no device holds it. The networks
of 18 and 34 layers, which the paper compares with plain ones, are in imagenet_18_34.py.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import cifar10

CROPS = (
    "`evaluate` shows one centre crop; errors of ten crops, of 320 pixels or of whole images are "
    "lower and cannot be compared with it."
)
DIFFERS = (
    "Crops have a random area and aspect ratio; the paper resizes the short side to 256..480.",
    "There is no colour augmentation; the paper adds the colour noise of AlexNet.",
    "Channels are normalised by the constants of common use; the paper subtracts the mean image.",
    "The rate drops at fixed epochs, as in 2016; in 2015 it dropped when the error reached a "
    "plateau.",
    CROPS,
    cifar10.CAFFE,
    "Running statistics are moving averages; the authors' are means over a large batch.",
)
ONE_CROP = "validation split, one centre crop of 224"
SOURCE = Source(
    "He et al. 2015, arXiv:1512.03385, sec. 3.4, and 2016, arXiv:1603.05027, sec. 5.2",
    {
        "model.family": ("resnet",),
        "model.block": (
            *("bottleneck", "preact_bottleneck", "norm_after_bottleneck"),
            *("relu_before_bottleneck", "relu_preact_bottleneck"),
        ),
        "model.merge": ("add",),
        "norm.kind": ("batch",),
    },
    DIFFERS,
    (
        Published("depth=50", "24.7", f"{ONE_CROP} (the authors' page)"),
        Published("depth=101", "23.6", f"{ONE_CROP} (the authors' page)"),
        Published("depth=152", "23.0", f"{ONE_CROP} (the authors' page)"),
        Published("depth=152,block=preact_bottleneck", "21.1", "one crop of 320"),
        Published("depth=200,block=preact_bottleneck", "20.7", "one crop of 320"),
    ),
)
RECIPE = {
    "data.name": "imagenet2012",
    "data.shape": (224, 224, 3),
    "data.normalisation": "constants",
    "data.mean": (0.485, 0.456, 0.406),
    "data.std": (0.229, 0.224, 0.225),
    "data.pad": 0,
    "model.width": 64,
    "model.stem": "7x7",
    "model.num_classes": 1000,
    "batch_size": 256,
    "steps": 600_000,
    # A chunk is sent to the device in one piece: 10 x 256 x 224 x 224 x 3 bytes are 0.39 GB, and
    # the next chunk is sent while this one is trained on.
    "chunk_steps": 10,
    "schedule.boundaries": (150_000, 300_000),
    "norm.group_size": 32,
}


def get_config(argument: str = "") -> Config:
    return make(choose(argument, depth=50), RECIPE)
