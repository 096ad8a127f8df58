r"""ResNets on CIFAR-10 as github.com/akamaster/pytorch_resnet_cifar10 trains them, for its weights.

    python -m resnet_jax.convert --layout=akamaster --import=resnet20.safetensors \
        --config=configs/cifar10_akamaster.py:depth=20 --workdir=RUN
    python -m resnet_jax.evaluate --workdir=RUN --data_dir=DIR
    python -m resnet_jax.train --config=configs/cifar10_akamaster.py:depth=20 --data_dir=DIR ...

A run takes 200 epochs of 128 images. The rate is 0.1, divided by 10 at epochs 100 and 150; the
decay is 1e-4 on every parameter; the input is normalised by ImageNet's mean and standard deviation,
padded by 4 black pixels, cropped and flipped. Networks of 110 layers and more begin with an epoch
at rate 0.01, as the repository intends (with the chainable schedulers of newer PyTorch, its runs
would stay at 0.01). The shortcut pads half of the new channels on each side, and the whole batch is
normalised together.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

# Steps of an epoch.
EPOCH = 50_000 / 128
BEST = "best epoch by the test split (no validation split), one run"
SOURCE = Source(
    "github.com/akamaster/pytorch_resnet_cifar10",
    {
        "model.family": ("resnet",),
        "model.block": ("basic",),
        "model.merge": ("add",),
        "norm.kind": ("batch",),
    },
    (
        "An epoch there has 391 batches, the last of 80 images; ours are whole batches.",
        "The classifier starts from N(0, 1/n); there it starts as a convolution does, N(0, 2/n).",
    ),
    (
        Published("depth=20", "8.27", BEST),
        Published("depth=32", "7.37", BEST),
        Published("depth=44", "6.90", BEST),
        Published("depth=56", "6.61", BEST),
        Published("depth=110", "6.32", BEST),
        Published("depth=1202", "6.18", BEST),
    ),
)

RECIPE = {
    "data.normalisation": "constants",
    "data.mean": (0.485, 0.456, 0.406),
    "data.std": (0.229, 0.224, 0.225),
    # The crop pads with black, before pixels are normalised; kernels start by kaiming_normal_.
    "data.padding": "black",
    "model.fan": "in",
    "optimizer.decay": "all",
    "steps": round(200 * EPOCH),
    "schedule.boundaries": (round(100 * EPOCH), round(150 * EPOCH)),
}


def get_config(argument: str = "") -> Config:
    chosen = choose(f"skip=A_split,{argument}", depth=20)
    warmup = round(EPOCH) if chosen["depth"] >= 110 else 0
    return make(chosen, RECIPE | {"schedule.warmup_steps": warmup})
