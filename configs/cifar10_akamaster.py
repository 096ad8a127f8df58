r"""ResNets on CIFAR-10 as github.com/akamaster/pytorch_resnet_cifar10 trains them, for its weights.

    python -m resnet_jax.convert --layout=akamaster --import=resnet20.safetensors \
        --config=configs/cifar10_akamaster.py:depth=20 --workdir=RUN
    python -m resnet_jax.evaluate --workdir=RUN --data_dir=DIR
    python -m resnet_jax.train --config=configs/cifar10_akamaster.py:depth=20 --data_dir=DIR ...

A run takes 200 epochs of 128 images. The rate is 0.1, divided by 10 at epochs 100 and 150; the
decay is 1e-4 on every parameter; the input is normalised by ImageNet's mean and standard deviation,
padded by 4 pixels, cropped and flipped. Networks of 110 layers and more begin with an epoch at rate
0.01, as the repository intends (with the chainable schedulers of newer PyTorch, its runs would stay
at 0.01). The shortcut pads half of the new channels on each side, and the whole batch is
normalised together. An epoch of that repository has 391 batches, the last of them of 80 images;
ours are whole batches from a stream of shuffled epochs, 390.6 steps an epoch.
The repository's test errors of the best epoch (one run, no validation split) are 8.27 % (20
layers), 7.37 % (32), 6.90 % (44), 6.61 % (56), 6.32 % (110) and 6.18 % (1202).
"""

from resnet_jax.config import Config, choose, make

# Steps of an epoch.
EPOCH = 50_000 / 128

RECIPE = {
    "data.normalisation": "constants",
    "data.mean": (0.485, 0.456, 0.406),
    "data.std": (0.229, 0.224, 0.225),
    "steps": round(200 * EPOCH),
    "schedule.boundaries": (round(100 * EPOCH), round(150 * EPOCH)),
}


def get_config(argument: str = "") -> Config:
    chosen = choose(f"skip=A_split,{argument}", depth=20)
    warmup = round(EPOCH) if chosen["depth"] >= 110 else 0
    return make(chosen, RECIPE | {"schedule.warmup_steps": warmup})
