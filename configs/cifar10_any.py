"""Any network on CIFAR-10 by one recipe, to compare families. The recipe is ours.

    python -m resnet_jax.train --config=configs/cifar10_any.py:family=vgg,depth=11 --data_dir=DIR

It is the recipe of cifar10.py with a rate of 0.01, at which networks without norms train, too, and
with channels of mean 0 and variance 1. No paper gives it: a network of a paper has its own recipe
(docs/recipes.md).
"""

from resnet_jax.config import Config, choose, make

from . import cifar10

RECIPE = cifar10.RECIPE | {"optimizer.learning_rate": 0.01, "data.normalisation": "channel"}


def get_config(argument: str = "") -> Config:
    chosen = choose(argument, depth=20)
    return make(chosen, RECIPE | {"schedule.warmup_steps": 400 if chosen["depth"] >= 110 else 0})
