"""The 10-layer highway network on MNIST, by its authors' code (Srivastava et al. 2015).

    python -m resnet_jax.train --config=configs/mnist_highway.py --data_dir=DIR --workdir=RUN

A run takes 180,000 steps of 100 images at rate 0.01, divided by 10 at steps 60,000 and 120,000, by
SGD in Nesterov's form; decay, biases and classifier are as in cifar10_highway.py. Images are not
augmented. Gates start at a bias of -1. `--config.model.width=16` is the smaller network.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import cifar10, cifar10_highway

BEST = "best of 5 (mean and deviation)"
SOURCE = Source(
    "Srivastava et al. 2015, arXiv:1507.06228, sec. 3.2 and Table 1, and the authors' code",
    {"model.family": ("highway",), "model.block": ("pooled",), "model.depth": (10,)},
    (
        cifar10.CAFFE,
        "The classifier starts from N(0, 1/n) for n inputs; the authors' from N(0, 0.1^2).",
    ),
    (
        Published("depth=10", "0.45 (0.46 +- 0.02)", BEST),
        Published("depth=10", "0.57 (0.60 +- 0.03)", BEST, {"model.width": 16}),
    ),
)
RECIPE = cifar10_highway.RECIPE | {
    "data.name": "mnist",
    "data.shape": (28, 28, 1),
    "data.normalisation": "constants",
    "data.mean": (0.0,),
    "data.std": (1.0,),
    "data.pad": 0,
    "data.flip": False,
    "steps": 180_000,
    "schedule.boundaries": (60_000, 120_000),
    "optimizer.learning_rate": 0.01,
}


def get_config(argument: str = "") -> Config:
    return make(choose(f"family=highway,block=pooled,depth=10,{argument}"), RECIPE)
