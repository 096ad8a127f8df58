"""ResNets on CIFAR-100, by the recipe of He et al. 2016 (arXiv:1603.05027, Table 3).

    python -m resnet_jax.train --config=configs/cifar100.py:depth=164 --data_dir=DIR --workdir=RUN

The recipe is that of cifar10_preact.py with 100 classes.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import cifar10_preact

SOURCE = Source(
    "He et al. 2016, arXiv:1603.05027, Table 3",
    {
        "model.family": ("resnet",),
        "model.block": ("bottleneck", "preact_bottleneck"),
        "model.merge": ("add",),
        "norm.kind": ("batch",),
    },
    cifar10_preact.SOURCE.differs,
    (
        Published("depth=164,block=bottleneck", "25.16", cifar10_preact.MEDIAN),
        Published("depth=164", "24.33", cifar10_preact.MEDIAN),
        Published("depth=1001,block=bottleneck", "27.82", cifar10_preact.MEDIAN),
        Published("depth=1001", "22.71 (22.68 +- 0.22)", "median of 5 (mean and deviation)"),
    ),
    disagree=cifar10_preact.SOURCE.disagree,
)
RECIPE = cifar10_preact.RECIPE | {"data.name": "cifar100", "model.num_classes": 100}


def get_config(argument: str = "") -> Config:
    return make(choose(f"block=preact_bottleneck,{argument}", depth=164), RECIPE)
