"""MNIST with CIFAR's networks: 28x28 grey images, no flips, 10,000 steps.

    python -m resnet_jax.train --config=configs/mnist.py:depth=20 --data_dir=DIR --workdir=RUN

Ours: no paper gives this recipe. It is cifar10.py's with a shorter schedule of the same shape.
"""

from resnet_jax.config import base, choose_model


def get_config(arg: str = ""):
    config = base()
    config.data.name = "mnist"
    config.data.shape = (28, 28, 1)
    config.data.flip = False
    config.data.pad = 2
    config.model.depth = 20
    config.steps = 10_000
    config.schedule.boundaries = (5_000, 7_500)
    choose_model(config, arg)
    config.schedule.warmup_steps = 400 if config.model.depth >= 110 else 0
    return config.lock()
