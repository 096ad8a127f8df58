"""ResNets on ImageNet, the recipe of He et al. 2015 (arXiv:1512.03385, sec. 3.4) as 2016 gives it.

    python -m resnet_jax.describe --config=configs/imagenet.py:depth=50

600,000 steps of 256 images, rate 0.1 divided by 10 at epochs 30 and 60 (2016, sec. 5.2), decay
1e-4 on every parameter. Paper, 1-crop test error (authors' page): 24.7 % (50), 23.6 % (101),
23.0 % (152).
Held on the device this data set fits no machine: training waits for streamed data.
"""

from resnet_jax.config import base, choose_model


def get_config(arg: str = ""):
    config = base()
    config.data.name = "imagenet2012"
    config.data.shape = (224, 224, 3)
    config.data.normalisation = "channel"
    config.data.pad = 0
    config.model.depth = 50
    config.model.width = 64
    config.model.stem = "7x7"
    config.model.num_classes = 1000
    config.batch_size = 256
    config.steps = 600_000
    config.schedule.boundaries = (150_000, 300_000)
    config.norm.group_size = 32
    choose_model(config, arg)
    return config.lock()
