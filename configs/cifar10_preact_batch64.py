"""The 1001-layer pre-activation ResNet on CIFAR-10 with batches of 64 (He et al. 2016, Table 4).

    python -m resnet_jax.train --config=configs/cifar10_preact_batch64.py --data_dir=DIR ...

This is the command of the authors' Torch code, github.com/KaimingHe/resnet-1k-layers, whose result
the table quotes: 200 epochs of 64 images at rate 0.1, divided by 10 at epochs 81 and 122, by SGD in
Nesterov's form; the decay is 1e-4 on all parameters; channels get mean 0 and variance 1. Two GPUs
normalised 32 images each.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import cifar10_preact

# Steps of an epoch.
EPOCH = 50_000 / 64
SOURCE = Source(
    "He et al. 2016, arXiv:1603.05027, Table 4, and the authors' code",
    {
        "model.family": ("resnet",),
        "model.block": ("preact_bottleneck",),
        "model.merge": ("add",),
        "norm.kind": ("batch",),
    },
    (),
    (Published("depth=1001", "4.62 (4.69 +- 0.20)", "median of 5 (mean and deviation)"),),
    "27 hours on two GPUs of 2016 (the authors)",
    (
        "The text warms up all networks, decays and normalises as in 2015, and does not name "
        "Nesterov; the code has no warm-up. We take the code's.",
        "The code counts epochs from 1, so that its drops come after 80 and 121 epochs. We take "
        "the text's 81 and 122.",
    ),
)
RECIPE = cifar10_preact.RECIPE | {
    "batch_size": 64,
    "steps": round(200 * EPOCH),
    "schedule.boundaries": (round(81 * EPOCH), round(122 * EPOCH)),
    "norm.group_size": 32,
    "data.normalisation": "channel",
    "schedule.warmup_steps": 0,
    "optimizer.nesterov": True,
    "optimizer.decay": "all",
}


def get_config(argument: str = "") -> Config:
    return make(choose(f"block=preact_bottleneck,{argument}", depth=1001), RECIPE)
