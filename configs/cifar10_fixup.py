"""ResNets without norms on CIFAR-10, by Fixup (Zhang et al. 2019, arXiv:1901.09321).

    python -m resnet_jax.train --config=configs/cifar10_fixup.py:depth=110 --data_dir=DIR ...

This is the default of the authors' code: 200 epochs of 128 images at rate 0.1, divided by 10 at
epochs 100 and 150; decay 1e-4 on all parameters; the code's constants for pixels, padded with
black; mixup with alpha 1. Scalars (biases and gains) and the classifier's bias have a tenth of the
rate, because a scalar's gradient sums over all pixels. Without mixup the authors use more decay:
`--config.data.mixup=0 --config.optimizer.weight_decay=5e-4`.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

# Steps of an epoch.
EPOCH = 50_000 / 128
SOURCE = Source(
    "Zhang et al. 2019, arXiv:1901.09321, sec. 4, and the authors' code",
    {
        "model.family": ("resnet",),
        "model.block": ("fixup_basic", "fixup_bottleneck"),
        "model.merge": ("add",),
    },
    (
        "In the training error a mixed image is right if the prediction is the class with the "
        "larger share; the code credits both classes with their shares.",
        "The stem starts from N(0, 2/(9 * 16)); the code's is PyTorch's, of variance 1/(9 * 9).",
        "Partners of mixup are neighbours in the shuffled batch; the code draws a permutation.",
    ),
    (
        Published(
            "depth=110",
            "7.24",
            "test split (as quoted by others; not verified by us in the paper)",
            {"data.mixup": 0.0, "optimizer.weight_decay": 5e-4},
        ),
    ),
)
RECIPE = {
    "data.normalisation": "constants",
    "data.mean": (0.4914, 0.4822, 0.4465),
    "data.std": (0.2023, 0.1994, 0.2010),
    "data.padding": "black",
    "data.mixup": 1.0,
    "steps": round(200 * EPOCH),
    "schedule.boundaries": (round(100 * EPOCH), round(150 * EPOCH)),
    "optimizer.decay": "all",
    "optimizer.groups": ((r".*/(before\d|after\d|gain|bias)", 0.1, 1.0),),
}


def get_config(argument: str = "") -> Config:
    return make(choose(f"block=fixup_basic,{argument}", depth=110), RECIPE)
