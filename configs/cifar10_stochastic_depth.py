"""Stochastic depth on CIFAR-10, by the recipe of Huang et al. 2016 (arXiv:1603.09382, sec. 4).

    python -m resnet_jax.train --config=configs/cifar10_stochastic_depth.py:depth=110 ...
    python -m resnet_jax.evaluate --workdir=RUN --best

A run takes 500 epochs of 45,000 images in batches of 128 at rate 0.1, divided by 10 at epochs 250
and 375, by SGD in Nesterov's form. The other 5,000 training images choose the best epoch, whose
error on the test split is the paper's. 1202 layers take 300 epochs, the first 10 at rate 0.01, with
drops at 150 and 225. The decay is 1e-4 on all parameters, as in the authors' Torch code. A stage
begins with 2x2 average pooling and zeros for the new channels (skip=A_pool); batch norms start with
scales drawn from U(0, 1), as Torch's did, and kernels with the fan-in. `merge=add` is the paper's
constant depth.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

# Steps of an epoch.
EPOCH = 45_000 / 128
BEST = "test split, best epoch by 5,000 validation images, one run"
SOURCE = Source(
    "Huang et al. 2016, arXiv:1603.09382, sec. 4, and the authors' Torch code",
    {
        "model.family": ("resnet",),
        "model.block": ("basic",),
        "model.merge": ("stochastic_depth", "add"),
        "norm.kind": ("batch",),
    },
    (
        "Steps are those of a stream of shuffled epochs, 351.6 an epoch; the code has 352, the "
        "last of 72 images.",
        "Channels get mean 0 and variance 1; the code subtracts the mean image and divides by one "
        "number.",
    ),
    (
        Published("depth=110", "5.25 (+- 0.2, the code's README)", BEST),
        Published("depth=110,merge=add", "6.41", BEST),
        Published("depth=1202", "4.91", BEST),
        Published("depth=1202,merge=add", "6.67", BEST),
    ),
    "8.3 hours for depth=110 on a Titan X (the code's README)",
    (
        "The text averages pixels where a stage begins. In the code of the published errors the "
        "windows have one pixel, which is skip=A; since February 2017 they have 2x2. We take the "
        "text's.",
        "The text does not say what decays; the code decays all parameters. We take the code's.",
    ),
)
RECIPE = {
    "data.normalisation": "channel",
    "data.validation": 5_000,
    # An epoch is 351.6 steps; the validation error is measured every 351.
    "chunk_steps": 117,
    "eval_every": 351,
    "checkpoint_every": 3_510,
    "model.survival": 0.5,
    "model.fan": "in",
    "norm.scale": "uniform",
    "optimizer.nesterov": True,
    "optimizer.decay": "all",
}


def get_config(argument: str = "") -> Config:
    chosen = choose(f"skip=A_pool,merge=stochastic_depth,{argument}", depth=110)
    deepest = chosen["depth"] >= 1202
    epochs, drops, warmup = (300, (150, 225), 10) if deepest else (500, (250, 375), 0)
    schedule = {
        "steps": round(epochs * EPOCH),
        "schedule.boundaries": tuple(round(drop * EPOCH) for drop in drops),
        "schedule.warmup_steps": round(warmup * EPOCH),
    }
    return make(chosen, RECIPE | schedule)
