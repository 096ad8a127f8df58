"""Wide ResNets on CIFAR-10, by the recipe of Zagoruyko & Komodakis 2016 (arXiv:1605.07146, sec. 3).

    python -m resnet_jax.train --config=configs/cifar10_wide.py:depth=28 --data_dir=DIR ...
    python -m resnet_jax.train --config=configs/cifar10_wide.py:depth=40 --config.model.widen=4 ...

A run takes 200 epochs of 128 images at rate 0.1, multiplied by 0.2 at epochs 60, 120 and 160, by
SGD in Nesterov's form; the decay is 5e-4 on all parameters. Channels get mean 0 and variance 1;
images are padded by their reflection. Batch norms start with scales drawn from U(0, 1) and kernels
with the fan-in, as in the authors' Torch code. With dropout: `--config.model.dropout=0.3`. For
CIFAR-100: `--config.data.name=cifar100 --config.model.num_classes=100`.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import CIFAR_100, Published, Source

# Steps of an epoch.
EPOCH = 50_000 / 128
MEDIAN = "test split, last epoch, median of 5 runs"
SOURCE = Source(
    "Zagoruyko & Komodakis 2016, arXiv:1605.07146, sec. 3, and the authors' Torch code",
    {"model.family": ("wide",), "model.merge": ("add",), "norm.kind": ("batch",)},
    (
        "An epoch is 390.6 steps, without a short last batch; the code leaves out the last images, "
        "390 steps an epoch.",
    ),
    (
        Published("depth=28", "4.00", MEDIAN),
        Published("depth=28", "3.89", MEDIAN, {"model.dropout": 0.3}),
        Published("depth=28", "19.25", MEDIAN, CIFAR_100),
        Published("depth=28", "18.85", MEDIAN, CIFAR_100 | {"model.dropout": 0.3}),
    ),
    "6 hours for depth=40, widen=4 on a Titan X (the authors)",
    (
        "The first version of the text whitens CIFAR (ZCA); the last one and the README normalise "
        "channels. We take the last.",
        "The text does not say how networks start; the Torch code's scales are U(0, 1) and its "
        "kernels have the fan-in. We take the code's.",
    ),
)
RECIPE = {
    "data.normalisation": "channel",
    "data.padding": "reflect",
    "steps": round(200 * EPOCH),
    "schedule.boundaries": (round(60 * EPOCH), round(120 * EPOCH), round(160 * EPOCH)),
    "schedule.factor": 0.2,
    "optimizer.nesterov": True,
    "optimizer.weight_decay": 5e-4,
    "optimizer.decay": "all",
    "norm.scale": "uniform",
    "model.fan": "in",
}


def get_config(argument: str = "") -> Config:
    return make(choose(f"family=wide,{argument}"), RECIPE)
