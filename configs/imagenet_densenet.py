"""DenseNets on ImageNet, by the recipe of Huang et al. 2017 (arXiv:1608.06993, sec. 4.2).

    python -m resnet_jax.train --config=configs/imagenet_densenet.py:depth=121 --data_dir=DIR ...

A run takes 90 epochs of 256 images at rate 0.1, divided by 10 at epochs 30 and 60, by SGD in
Nesterov's form; the decay is 1e-4 on all parameters, as in fb.resnet.torch.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import imagenet

# Steps of an epoch.
EPOCH = 1_281_167 / 256
CROP = imagenet.ONE_CROP
SOURCE = Source(
    "Huang et al. 2017, arXiv:1608.06993, sec. 4.2 and Table 3",
    {"model.family": ("densenet",)},
    ("There is no colour augmentation; the authors' code changes colours and brightness.",),
    (
        Published("depth=121", "25.02", CROP),
        Published("depth=169", "23.80", CROP),
        Published("depth=201", "22.58", CROP),
        Published("depth=264", "22.15", CROP),
    ),
)
RECIPE = imagenet.RECIPE | {
    # Four GPUs normalised 64 images each.
    "norm.group_size": 64,
    "steps": round(90 * EPOCH),
    "schedule.boundaries": (round(30 * EPOCH), round(60 * EPOCH)),
    "optimizer.nesterov": True,
    "optimizer.decay": "all",
}


def get_config(argument: str = "") -> Config:
    return make(choose(f"family=densenet,depth=121,{argument}"), RECIPE)
