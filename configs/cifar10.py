"""ResNets on CIFAR-10, by the recipe of He et al. 2015 (arXiv:1512.03385, sec. 4.2).

    python -m resnet_jax.train --config=configs/cifar10.py:depth=110 --data_dir=DIR --workdir=RUN

A run takes 64,000 steps of 128 images (164 epochs). The rate is 0.1, divided by 10 at steps 32,000
and 48,000; the decay is 1e-4 on every parameter; the input is the image less the mean image, padded
by 4 pixels, cropped and flipped. Networks of 110 layers and more begin with 400 steps at rate 0.01
(He et al. 2016, sec. 5.1). The paper's two GPUs normalised 64 images each: norm.group_size=64.
The paper's test errors are 8.75 % (20 layers), 6.97 % (56) and 6.61 +- 0.16 % (110, mean of 5).
"""

from resnet_jax.config import Config, choose, make

RECIPE = {"norm.group_size": 64}


def get_config(argument: str = "") -> Config:
    chosen = choose(argument, depth=110)
    return make(chosen, RECIPE | {"schedule.warmup_steps": 400 if chosen["depth"] >= 110 else 0})
