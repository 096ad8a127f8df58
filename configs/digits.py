"""scikit-learn's digits (1,500 + 297 grey images of 8x8): minutes on a laptop, no download.

    python -m resnet_jax.train --config=configs/digits.py:depth=20 --workdir=RUN

The recipe is ours: 10 epochs of 30 steps, batch 50, rate 0.01 divided by 10 at 1/2 and 3/4 of the
run, the same at every depth. At this rate a plain network of 56 layers no longer fits what a plain
network of 20 layers fits.
"""

from resnet_jax.config import Config, choose, make

RECIPE = {
    "data.name": "digits",
    "data.shape": (8, 8, 1),
    "data.pad": 0,
    "data.flip": False,
    "batch_size": 50,
    "steps": 300,
    "chunk_steps": 30,
    "eval_every": 30,
    "checkpoint_every": 150,
    "optimizer.learning_rate": 0.01,
    "schedule.boundaries": (150, 225),
}


def get_config(argument: str = "") -> Config:
    return make(choose(argument, depth=20), RECIPE)
