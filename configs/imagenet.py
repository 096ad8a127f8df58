"""ResNets on ImageNet, the recipe of He et al. 2015 (arXiv:1512.03385, sec. 3.4) as 2016 gives it.

    python -m resnet_jax.describe --config=configs/imagenet.py:depth=50

600,000 steps of 256 images, rate 0.1 divided by 10 at epochs 30 and 60 (2016, sec. 5.2), decay
1e-4 on every parameter. Paper, 1-crop test error (authors' page): 24.7 % (50), 23.6 % (101),
23.0 % (152).
Streamed: held on the device this data set fits no machine. Differs: crops of random area and aspect
ratio (data/crops.py; 2015 resizes the short side to 256..480), no change of colours, and channels
normalised by the constants of common use rather than the mean image.
"""

from resnet_jax.config import base, choose_model


def get_config(arg: str = ""):
    config = base()
    config.data.name = "imagenet2012"
    config.data.shape = (224, 224, 3)
    config.data.normalisation = "constants"
    config.data.mean, config.data.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    config.data.pad = 0
    config.model.depth = 50
    config.model.width = 64
    config.model.stem = "7x7"
    config.model.num_classes = 1000
    config.batch_size = 256
    config.steps = 600_000
    # A chunk is sent in one piece: 10 x 256 x 224 x 224 x 3 bytes are 0.39 GB, and the next one
    # comes while it is trained on.
    config.chunk_steps = 10
    config.schedule.boundaries = (150_000, 300_000)
    config.norm.group_size = 32
    choose_model(config, arg)
    return config.lock()
