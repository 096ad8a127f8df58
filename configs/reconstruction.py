"""Regression of random numbers on themselves, x -> x: seconds on a laptop, no data set.

    python -m resnet_jax.train --config=configs/reconstruction.py:depth=10 --workdir=RUN

The recipe is ours: 25 numbers, dense layers of 50 units, 300 steps of 50 examples. 50 ReLUs can
pass 25 numbers on, because x = relu(x) - relu(-x). `skip=none` is the plain network of the same
depth; a highway's plain twin has 71 units, so that it has about as many parameters. `family`,
`merge` and the other switches work as in every config.
"""

from resnet_jax.config import Config, choose, make

from . import digits

RECIPE = digits.RECIPE | {"data.shape": (5, 5, 1), "optimizer.learning_rate": 0.05}


def get_config(argument: str = "") -> Config:
    dense = "" if "family=" in argument else "family=highway,block=dense,"
    return make(choose(f"task=reconstruction,{dense}{argument}"), RECIPE)
