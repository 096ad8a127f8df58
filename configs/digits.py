"""scikit-learn's digits (1,500 + 297 grey images of 8x8): minutes on a laptop, no download.

    python -m resnet_jax.train --config=configs/digits.py:depth=20 --workdir=RUN

Ours: 10 epochs of 30 steps, batch 50, rate 0.01 divided by 10 at 1/2 and 3/4, the same at every
depth; at this rate a plain net of 56 layers no longer fits what one of 20 fits.
"""

from resnet_jax.config import base, choose_model


def get_config(arg: str = ""):
    config = base()
    config.data.name = "digits"
    config.data.shape = (8, 8, 1)
    config.data.pad = 0
    config.data.flip = False
    config.model.depth = 20
    config.batch_size = 50
    config.steps = 300
    config.chunk_steps = 30
    config.eval_every = 30
    config.checkpoint_every = 150
    config.optimizer.learning_rate = 0.01
    config.schedule.boundaries = (150, 225)
    choose_model(config, arg)
    return config.lock()
