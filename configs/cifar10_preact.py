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
bias = lambda value: {"model.gate_bias": value}
SOURCE = Source(
    "He et al. 2016, arXiv:1603.05027, sec. 5 and Tables 2-4",
    {
        "model.family": ("resnet",),
        "model.block": (
            *("basic", "preact_basic", "norm_after_basic", "relu_before_basic"),
            *("relu_preact_basic", "single", "preact_single"),
            *("bottleneck", "preact_bottleneck", "norm_after_bottleneck"),
            *("relu_before_bottleneck", "relu_preact_bottleneck"),
        ),
        "model.merge": ("add", "exclusive_gate", "shortcut_gate"),
        "norm.kind": ("batch",),
    },
    (cifar10.CAFFE,),
    (
        Published("depth=110,block=basic", "6.61", MEDIAN),
        Published("depth=110,block=basic", "12.35", MEDIAN, {"model.gains": (0.5, 0.5)}),
        Published("depth=110,block=basic,merge=exclusive_gate", "8.70", MEDIAN, bias(-6.0)),
        Published("depth=110,block=basic,merge=shortcut_gate", "12.86", MEDIAN, bias(0.0)),
        Published("depth=110,block=basic,merge=shortcut_gate", "6.91", MEDIAN, bias(-6.0)),
        Published("depth=110,block=basic,skip=C", "12.22", MEDIAN),
        Published("depth=110,block=norm_after_basic", "8.17", MEDIAN),
        Published("depth=110,block=relu_before_basic", "7.84", MEDIAN),
        Published("depth=110,block=relu_preact_basic", "6.71", MEDIAN),
        Published("depth=110,block=single", "9.90", MEDIAN),
        Published("depth=110,block=preact_single", "8.91", MEDIAN),
        Published("depth=110,block=preact_basic", "6.37", MEDIAN),
        Published("depth=164,block=bottleneck", "5.93", MEDIAN),
        Published("depth=164", "5.46", MEDIAN),
        Published("depth=1001,block=bottleneck", "7.61", MEDIAN),
        Published("depth=1001", "4.92 (4.89 +- 0.14)", "median of 5 (mean and deviation)"),
    ),
    "27 hours for depth=1001 on two GPUs of 2016 (the paper)",
    (
        "The text trains for 64,000 steps (164 epochs), the authors' Torch code for 200 epochs "
        "with drops after 80 and 121 epochs. We take the text's.",
        "The Torch code has Nesterov's form, decays all parameters and normalises channels; the "
        "text's runs were Caffe's, as its README says. We take the text's, with decay on kernels.",
        "The text warms up all networks and says that pre-activation needs none; the code has no "
        "warm-up. We take the text's.",
    ),
)
RECIPE = cifar10.RECIPE | {"schedule.warmup_steps": 400}


def get_config(argument: str = "") -> Config:
    return make(choose(f"block=preact_bottleneck,{argument}", depth=164), RECIPE)
