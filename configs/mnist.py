"""MNIST with CIFAR's networks: 28x28 grey images, no flips, 10,000 steps.

    python -m resnet_jax.train --config=configs/mnist.py:depth=20 --data_dir=DIR --workdir=RUN

The recipe is ours; no paper gives it. The optimizer is that of cifar10.py, and the schedule has the
same form and is shorter. Images are padded by 2 pixels, and the whole batch is normalised together.
"""

from resnet_jax.config import Config, choose, make

RECIPE = {
    "data.name": "mnist",
    "data.shape": (28, 28, 1),
    "data.flip": False,
    "data.pad": 2,
    "steps": 10_000,
    "schedule.boundaries": (5_000, 7_500),
}


def get_config(argument: str = "") -> Config:
    chosen = choose(argument, depth=20)
    return make(chosen, RECIPE | {"schedule.warmup_steps": 400 if chosen["depth"] >= 110 else 0})
