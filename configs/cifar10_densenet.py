"""DenseNets on CIFAR-10 with augmentation, by the recipe of Huang et al. 2017 (arXiv:1608.06993).

    python -m resnet_jax.train --config=configs/cifar10_densenet.py:depth=40 --data_dir=DIR ...
    python -m resnet_jax.train --config=configs/cifar10_densenet.py:block=bottleneck,depth=100 ...

A run takes 300 epochs of 64 images at rate 0.1, divided by 10 at half and at three quarters, by SGD
in Nesterov's form; the decay is 1e-4 on all parameters, as in the authors' Torch code. Channels get
mean 0 and variance 1. `--config.model.growth=24` is the wider network. Without augmentation
(`--config.data.pad=0 --noconfig.data.flip`) the paper adds dropout: `--config.model.dropout=0.2`.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import CIFAR_100, Published, Source

# Steps of an epoch.
EPOCH = 50_000 / 64
LAST = "test split, last epoch, one run, augmented"
NOT_AUGMENTED = "test split, last epoch, one run, not augmented"
DROPOUT = {"model.dropout": 0.2, "data.pad": 0, "data.flip": False}
SOURCE = Source(
    "Huang et al. 2017, arXiv:1608.06993, sec. 4.2 and Table 2",
    {"model.family": ("densenet",), "norm.kind": ("batch",)},
    (
        "An epoch is 781.25 steps, without a short last batch; the code has 782.",
        "The code counts epochs from 1, so that its drops come an epoch earlier than ours.",
    ),
    (
        Published("depth=40", "5.24", LAST),
        Published("block=basic,depth=100", "4.10", LAST),
        Published("block=bottleneck,depth=100", "4.51", LAST),
        Published("block=bottleneck,depth=250", "3.62", LAST, {"model.growth": 24}),
        Published("block=bottleneck,depth=190", "3.46", LAST, {"model.growth": 40}),
        Published("depth=40", "24.42", LAST, CIFAR_100),
        Published("block=bottleneck,depth=100", "22.27", LAST, CIFAR_100),
        Published("depth=40", "7.00", NOT_AUGMENTED, DROPOUT),
        Published("block=basic,depth=100", "5.77", NOT_AUGMENTED, DROPOUT),
        Published("block=bottleneck,depth=100", "5.92", NOT_AUGMENTED, DROPOUT),
    ),
    disagree=(
        "The text does not say what decays; the code decays all parameters. We take the code's.",
    ),
)
RECIPE = {
    "data.normalisation": "channel",
    "batch_size": 64,
    "steps": round(300 * EPOCH),
    "schedule.boundaries": (round(150 * EPOCH), round(225 * EPOCH)),
    "optimizer.nesterov": True,
    "optimizer.decay": "all",
}


def get_config(argument: str = "") -> Config:
    return make(choose(f"family=densenet,{argument}"), RECIPE)
