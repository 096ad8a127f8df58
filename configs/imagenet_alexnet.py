"""AlexNet on ImageNet, by the recipe of Krizhevsky et al. 2012 (NIPS 25, sec. 5).

    python -m resnet_jax.train --config=configs/imagenet_alexnet.py --data_dir=DIR --workdir=RUN

A run takes 90 epochs of 128 images at rate 0.01, divided by 10 three times; the decay is 5e-4 on
all parameters, as their update rule says; dropout 0.5 stands before the first two dense layers.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import imagenet

# Steps of an epoch.
EPOCH = 1_281_167 / 128
SOURCE = Source(
    "Krizhevsky et al. 2012, NIPS 25, sec. 5",
    {"model.family": ("alexnet",)},
    (
        "The network is torchvision's, on one device and without the local normalisation.",
        "The rate drops at 1/2, 3/4 and 7/8 of the run; in the paper it dropped by hand.",
        "Channels are divided by their deviation; the paper subtracts the mean alone.",
        imagenet.CROPS,
        "Crops have a random area and aspect ratio, and there is no colour augmentation.",
        "Kernels start by He's rule and biases at 0; theirs are N(0, 0.01^2), and 0 or 1.",
    ),
    (Published("depth=8", "40.7", "validation split, 10 crops, one network"),),
    "5 to 6 days on two GTX 580 (the paper)",
    (
        "The text's rule decays every weight; the authors' later code (cuda-convnet2) and Caffe's "
        "give biases twice the rate and no decay. We take the text's.",
    ),
)
RECIPE = imagenet.RECIPE | {
    "batch_size": 128,
    "steps": round(90 * EPOCH),
    "schedule.boundaries": tuple(round(part * 90 * EPOCH) for part in (0.5, 0.75, 0.875)),
    "optimizer.learning_rate": 0.01,
    "optimizer.weight_decay": 5e-4,
    "optimizer.decay": "all",
}


def get_config(argument: str = "") -> Config:
    return make(choose(f"family=alexnet,{argument}"), RECIPE)
