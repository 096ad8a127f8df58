"""The 1001-layer pre-activation ResNet on CIFAR-10 with batches of 64 (He et al. 2016, Table 4).

    python -m resnet_jax.train --config=configs/cifar10_preact_batch64.py --data_dir=DIR ...

This is the command of the authors' code, github.com/KaimingHe/resnet-1k-layers: 200 epochs of 64
images at rate 0.1, divided by 10 at epochs 81 and 122. Two GPUs normalised 32 images each.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import cifar10_preact

# Steps of an epoch.
EPOCH = 50_000 / 64
SOURCE = Source(
    "He et al. 2016, arXiv:1603.05027, Table 4, and the authors' code",
    {"model.family": ("resnet",)},
    (),
    (Published("depth=1001", "4.62 (4.69 +- 0.20)", "median of 5 (mean and deviation)"),),
    "27 hours on two GPUs of 2016 (the authors)",
    ("The code has no warm-up; the text has one for all networks, and so have we.",),
)
RECIPE = cifar10_preact.RECIPE | {
    "batch_size": 64,
    "steps": round(200 * EPOCH),
    "schedule.boundaries": (round(81 * EPOCH), round(122 * EPOCH)),
    "norm.group_size": 32,
}


def get_config(argument: str = "") -> Config:
    return make(choose(f"block=preact_bottleneck,{argument}", depth=1001), RECIPE)
