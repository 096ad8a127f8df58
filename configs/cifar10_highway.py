"""The 19-layer highway network on CIFAR-10, by its authors' code (Srivastava et al. 2015).

    python -m resnet_jax.train --config=configs/cifar10_highway.py --data_dir=DIR --workdir=RUN

A run takes 200,000 steps of 100 images at rate 0.025, divided by 10 at steps 100,000, 150,000 and
175,000, by SGD in Nesterov's form; the decay is 1e-3 on kernels and ten times as much on the
classifier's; biases have twice the rate and do not decay. Images have their contrast normalised,
are padded by 8 pixels, cropped and flipped. Gates start at a bias of -2. `skip=none` is the plain
network, 1.4 times as wide, so that it has about as many parameters.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import cifar10

SOURCE = Source(
    "Srivastava et al. 2015, arXiv:1507.06228, sec. 3.2 and Table 2, and the authors' code",
    {"model.family": ("highway",), "model.block": ("pooled",), "model.depth": (19,)},
    (
        cifar10.CAFFE,
        "Contrast is normalised to variance 1; the code's data also lose their mean image.",
        "The first convolution starts by He's rule; the authors' file names a `value` of 0.05, "
        "which Caffe's filler ignores, so that the kernel starts from N(0, 1).",
        "The classifier starts from N(0, 1/n) for n inputs; in the authors' code, from "
        "N(0, 0.05^2).",
        "The text's networks of 11 and 32 layers have no recipe: they are not in the code, and "
        "their widths are unknown.",
    ),
    (Published("depth=19", "7.54 (7.72 +- 0.16)", "best of 5 (mean and deviation)"),),
    disagree=(
        "The text does not give rates and decays; the code gives biases twice the rate and no "
        "decay. We take the code's.",
    ),
)
RECIPE = {
    "data.normalisation": "contrast",
    "data.pad": 8,
    "batch_size": 100,
    "steps": 200_000,
    "schedule.boundaries": (100_000, 150_000, 175_000),
    "optimizer.learning_rate": 0.025,
    "optimizer.nesterov": True,
    "optimizer.weight_decay": 1e-3,
    "optimizer.groups": ((".*bias", 2.0, 0.0), ("head/dense/kernel", 1.0, 10.0)),
}


def get_config(argument: str = "") -> Config:
    return make(choose(f"family=highway,block=pooled,depth=19,{argument}"), RECIPE)
