"""ResNets on CIFAR-10, the recipe of He et al. 2015 (arXiv:1512.03385, sec. 4.2).

    python -m resnet_jax.train --config=configs/cifar10.py:depth=110 --data_dir=DIR --workdir=RUN

64,000 steps of 128 images (164 epochs), rate 0.1 divided by 10 at 32,000 and 48,000, decay 1e-4 on
every parameter, per-pixel mean, pad 4 and crop, flip; 110 layers and more begin with 400 steps at
0.01 (2016, sec. 5.1). Paper, test error: 8.75 % (20), 6.97 % (56), 6.61 +- 0.16 % (110, mean of 5).
The paper's two GPUs normalised 64 images each: norm.group_size=64.
"""

from resnet_jax.config import base, choose_model


def get_config(arg: str = ""):
    config = base()
    config.norm.group_size = 64
    choose_model(config, arg)
    config.schedule.warmup_steps = 400 if config.model.depth >= 110 else 0
    return config.lock()
