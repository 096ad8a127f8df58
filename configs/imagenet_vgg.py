"""VGG on ImageNet, by the recipe of Simonyan & Zisserman 2015 (arXiv:1409.1556, sec. 3.1).

    python -m resnet_jax.train --config=configs/imagenet_vgg.py:depth=16 --data_dir=DIR ...

A run takes 370,000 steps of 256 images (74 epochs) at rate 0.01, divided by 10 three times; the
decay is 5e-4; dropout 0.5 stands between the dense layers. `family=vgg_bn` adds batch norm, which
the paper did not know.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import imagenet

ONE = "validation split, one scale of 256, the whole image"
SOURCE = Source(
    "Simonyan & Zisserman 2015, arXiv:1409.1556, sec. 3.1 and Table 3",
    {"model.family": ("vgg", "vgg_bn")},
    (
        "The rate drops at 1/2, 3/4 and 7/8 of the run; in the paper it dropped when the error "
        "reached a plateau.",
        "Channels are divided by their deviation; the paper subtracts the mean alone.",
        imagenet.CROPS,
        "Crops have a random area and aspect ratio, and there is no colour augmentation.",
        "Kernels start by He's rule; the paper starts deeper networks from a trained A, or by "
        "N(0, 0.01^2).",
        "The decay is on kernels; Caffe decays as its layers say, which the paper does not tell.",
    ),
    (
        Published("depth=11", "29.6", ONE),
        Published("depth=13", "28.7", ONE),
        Published("depth=16", "27.0", ONE),
        Published("depth=19", "27.3", ONE),
    ),
    "2 to 3 weeks on four Titan Blacks (the paper)",
)
RECIPE = imagenet.RECIPE | {
    "steps": 370_000,
    "schedule.boundaries": (185_000, 277_500, 323_750),
    "optimizer.learning_rate": 0.01,
    "optimizer.weight_decay": 5e-4,
}


def get_config(argument: str = "") -> Config:
    return make(choose(f"family=vgg,depth=16,{argument}"), RECIPE)
