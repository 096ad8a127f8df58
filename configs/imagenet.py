"""ResNets on ImageNet, by the recipe of He et al. 2015 (arXiv:1512.03385, sec. 3.4) and 2016.

    python -m resnet_jax.describe --config=configs/imagenet.py:depth=50

A run takes 600,000 steps of 256 images. The rate is 0.1, divided by 10 at epochs 30 and 60 (He et
al. 2016, sec. 5.2); the decay is 1e-4 on every parameter. The papers' test errors of one crop (the
authors' page) are 24.7 % (50 layers), 23.6 % (101) and 23.0 % (152).
The data set is streamed, because no device holds it.
Differs: crops have a random area and aspect ratio (data/crops.py; 2015 resizes the short side to
256..480), colours do not change, and channels are normalised by the constants of common use instead
of the mean image.
"""

from resnet_jax.config import Config, choose, make

RECIPE = {
    "data.name": "imagenet2012",
    "data.shape": (224, 224, 3),
    "data.normalisation": "constants",
    "data.mean": (0.485, 0.456, 0.406),
    "data.std": (0.229, 0.224, 0.225),
    "data.pad": 0,
    "model.width": 64,
    "model.stem": "7x7",
    "model.num_classes": 1000,
    "batch_size": 256,
    "steps": 600_000,
    # A chunk is sent to the device in one piece: 10 x 256 x 224 x 224 x 3 bytes are 0.39 GB, and
    # the next chunk is sent while this one is trained on.
    "chunk_steps": 10,
    "schedule.boundaries": (150_000, 300_000),
    "norm.group_size": 32,
}


def get_config(argument: str = "") -> Config:
    return make(choose(argument, depth=50), RECIPE)
