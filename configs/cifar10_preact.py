"""Pre-activation ResNets on CIFAR-10, by the recipe of He et al. 2016 (arXiv:1603.05027, sec. 5).

    python -m resnet_jax.train --config=configs/cifar10_preact.py:depth=164 --data_dir=DIR ...
    python -m resnet_jax.train --config=configs/cifar10_preact.py:depth=1001 --data_dir=DIR ...

The recipe is that of cifar10.py, and all networks begin with 400 steps at rate 0.01. Blocks are
pre-activation bottlenecks with projections at stage changes; `block=preact_basic,depth=110` is the
paper's 110-layer network, and `block=bottleneck` or `block=basic` its original form.
cifar10_preact_batch64.py has the better result of 1001 layers.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import cifar10

MEDIAN = "test split, last step, median of 5 runs"
SOURCE = Source(
    "He et al. 2016, arXiv:1603.05027, sec. 5 and Tables 2-4",
    {"model.family": ("resnet",)},
    ("Running statistics are moving averages, as in the authors' code.",),
    (
        Published("depth=110,block=basic", "6.61", MEDIAN),
        Published("depth=110,block=preact_basic", "6.37", MEDIAN),
        Published("depth=164,block=bottleneck", "5.93", MEDIAN),
        Published("depth=164", "5.46", MEDIAN),
        Published("depth=1001,block=bottleneck", "7.61", MEDIAN),
        Published("depth=1001", "4.92 (4.89 +- 0.14)", "median of 5 (mean and deviation)"),
    ),
    "27 hours for depth=1001 on two GPUs of 2016 (the paper)",
    (
        "The text trains for 64,000 steps (164 epochs), the authors' Torch code for 200 epochs "
        "with drops at epochs 81 and 122, which are the text's. We take the text's.",
        "The text warms up all networks and says that pre-activation needs none; the code has no "
        "warm-up. We take the text's.",
    ),
)
RECIPE = cifar10.RECIPE | {"schedule.warmup_steps": 400}


def get_config(argument: str = "") -> Config:
    return make(choose(f"block=preact_bottleneck,{argument}", depth=164), RECIPE)
