"""Wide ResNets on SVHN, by the recipe of Zagoruyko & Komodakis 2016 (arXiv:1605.07146, sec. 3).

    python -m resnet_jax.train --config=configs/svhn_wide.py:depth=16 --data_dir=DIR ...

The recipe is that of cifar10_wide.py, with 160 epochs at rate 0.01, divided by 10 at epochs 80 and
120, without augmentation, with 8 times the width, dropout 0.4 and pixels from 0 to 1. The training
images are those of `train` and `extra`, 604,388 together: make a data set whose split train holds
both (npz: or a folder), or train on the 73,257 of `train` alone.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import cifar10_wide

# Steps of an epoch.
EPOCH = 604_388 / 128
SOURCE = Source(
    "Zagoruyko & Komodakis 2016, arXiv:1605.07146, sec. 3, and the authors' script for SVHN",
    cifar10_wide.SOURCE.networks,
    (
        "tensorflow-datasets keeps the split `extra` apart, and the command reads `train` alone: "
        "its 73,257 images are seen 1,320 times in as many steps.",
    ),
    (Published("depth=16", "1.54", "test split, one run"),),
)
RECIPE = cifar10_wide.RECIPE | {
    "data.name": "svhn_cropped",
    "data.normalisation": "constants",
    "data.mean": (0.0, 0.0, 0.0),
    "data.std": (1.0, 1.0, 1.0),
    "data.padding": "mean",
    "data.pad": 0,
    "data.flip": False,
    "model.dropout": 0.4,
    "steps": round(160 * EPOCH),
    "schedule.boundaries": (round(80 * EPOCH), round(120 * EPOCH)),
    "schedule.factor": 0.1,
    "optimizer.learning_rate": 0.01,
}


def get_config(argument: str = "") -> Config:
    config = make(choose(f"family=wide,depth=16,{argument}"), RECIPE)
    with config.unlocked():
        config.model.widen = 8  # the family's preset is CIFAR's 10
    return config
