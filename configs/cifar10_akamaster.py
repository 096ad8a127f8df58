r"""ResNets on CIFAR-10 as github.com/akamaster/pytorch_resnet_cifar10 trains them, for its weights.

    python -m resnet_jax.convert --layout=akamaster --import=resnet20.safetensors \
        --config=configs/cifar10_akamaster.py:depth=20 --workdir=RUN
    python -m resnet_jax.evaluate --workdir=RUN --data_dir=DIR
    python -m resnet_jax.train --config=configs/cifar10_akamaster.py:depth=20 --data_dir=DIR ...

200 epochs of 128 images, rate 0.1 divided by 10 at epochs 100 and 150, decay 1e-4 on every
parameter, ImageNet's mean and standard deviation, pad 4 and crop, flip; 110 layers and more begin
with an epoch at 0.01 (as meant there; with the chainable schedulers of newer PyTorch they would
stay at 0.01). The shortcut pads half of the new channels on each side; normalised over the whole
batch. An epoch has 391 batches there, the last one of 80; ours are whole ones from a stream of
shuffled epochs, 390.6 steps an epoch.
Theirs, test error of the best epoch, one run, no validation split: 8.27 % (20), 7.37 % (32),
6.90 % (44), 6.61 % (56), 6.32 % (110), 6.18 % (1202).
"""

from resnet_jax.config import base, choose_model

# Steps by the end of an epoch, 50,000 / 128 each.
EPOCH = 50_000 / 128


def get_config(arg: str = ""):
    config = base()
    config.data.normalisation = "constants"
    config.data.mean, config.data.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    config.model.depth = 20
    choose_model(config, f"skip=A_split,{arg}")
    config.steps = round(200 * EPOCH)
    config.schedule.boundaries = (round(100 * EPOCH), round(150 * EPOCH))
    config.schedule.warmup_steps = round(EPOCH) if config.model.depth >= 110 else 0
    return config.lock()
