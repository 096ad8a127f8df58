"""ResNets on CIFAR-10, by the recipe of He et al. 2015 (arXiv:1512.03385, sec. 4.2).

    python -m resnet_jax.train --config=configs/cifar10.py:depth=110 --data_dir=DIR --workdir=RUN

A run takes 64,000 steps of 128 images (164 epochs). The rate is 0.1, divided by 10 at steps 32,000
and 48,000; the decay is 1e-4 on the kernels of convolutions and of the classifier; the input is the
image less the mean image, padded by 4 pixels, cropped and flipped. Networks of 110 layers and more
begin with 400 steps at rate 0.01 (He et al. 2016, sec. 5.1; in 2015 the warm-up ended when the
training error fell below 80 %). The paper's two GPUs normalised 64 images each: norm.group_size=64.
`skip=none` is the plain network of the same depth.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

CAFFE = (
    "Caffe multiplies the gradient by the rate before it adds it to the momentum; we multiply the "
    "sum. The steps differ for a few steps after the rate changes."
)
SOURCE = Source(
    "He et al. 2015, arXiv:1512.03385, sec. 4.2",
    {
        "model.family": ("resnet", "ladder"),
        "model.block": ("basic",),
        "model.merge": ("add",),
        "norm.kind": ("batch",),
    },
    (
        "The warm-up has a fixed length, as in He et al. 2016.",
        CAFFE,
        "Running statistics are moving averages; the authors' are means over a large batch.",
        "The paper does not say what its training error is; ours is over the last epoch as seen "
        "in training.",
    ),
    (
        Published("depth=20", "8.75", "test split, last step, one run"),
        Published("depth=32", "7.51", "test split, last step, one run"),
        Published("depth=44", "7.17", "test split, last step, one run"),
        Published("depth=56", "6.97", "test split, last step, one run"),
        Published("depth=110", "6.43 (6.61 +- 0.16)", "best of 5 (mean and deviation)"),
        Published("depth=1202", "7.93", "test split, last step, one run"),
    ),
    "13 minutes for depth=110 and 164 for depth=1202 on an H200 with --config.dtype=bfloat16, "
    "computed from the measured steps of these two networks",
)
RECIPE = {"norm.group_size": 64}


def get_config(argument: str = "") -> Config:
    chosen = choose(argument, depth=110)
    return make(chosen, RECIPE | {"schedule.warmup_steps": 400 if chosen["depth"] >= 110 else 0})
