"""Stochastic depth on SVHN, by the recipe of Huang et al. 2016 (arXiv:1603.09382, sec. 4).

    python -m resnet_jax.train --config=configs/svhn_stochastic_depth.py --data_dir=DIR ...

152 layers, 50 epochs of 128 images at rate 0.1, divided by 10 at epochs 30 and 35, without
augmentation; the rest is cifar10_stochastic_depth.py. The paper trains on 598,388 images of `train`
and `extra` together and validates on 6,000: make a data set whose split train holds both.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import cifar10_stochastic_depth as cifar10

# Steps of an epoch.
EPOCH = 598_388 / 128
BEST = "test split, best of every 200 steps by 6,000 validation images, one run"
SOURCE = Source(
    "Huang et al. 2016, arXiv:1603.09382, sec. 4",
    cifar10.SOURCE.networks,
    (
        *cifar10.SOURCE.differs,
        "The 6,000 are drawn from all training images; the code takes 400 of each class of `train` "
        "and 200 of `extra`.",
        "tensorflow-datasets keeps the split `extra` apart, and the command reads `train` alone: "
        "its 67,257 images are seen 445 times in as many steps.",
    ),
    (Published("depth=152", "1.75", BEST), Published("depth=152,merge=add", "1.80", BEST)),
)
RECIPE = cifar10.RECIPE | {
    "data.name": "svhn_cropped",
    "data.pad": 0,
    "data.flip": False,
    "data.validation": 6_000,
    "chunk_steps": 100,
    "eval_every": 200,
    "checkpoint_every": 5_000,
    "steps": round(50 * EPOCH),
    "schedule.boundaries": (round(30 * EPOCH), round(35 * EPOCH)),
}


def get_config(argument: str = "") -> Config:
    return make(choose(f"skip=A_pool,merge=stochastic_depth,{argument}", depth=152), RECIPE)
