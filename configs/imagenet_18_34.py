"""Plain and residual networks of 18 and 34 layers on ImageNet (He et al. 2015, Table 2).

    python -m resnet_jax.train --config=configs/imagenet_18_34.py:depth=34 --data_dir=DIR ...
    python -m resnet_jax.train --config=configs/imagenet_18_34.py:depth=34,skip=none ...

The recipe is that of imagenet.py. The shortcuts are the identity with zeros for new channels
(option A), so that a plain network has as many parameters as its residual twin; with projections
(option B) it would have 0.8 % fewer.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import imagenet

TEN = "validation split, 10 crops"
SOURCE = Source(
    "He et al. 2015, arXiv:1512.03385, sec. 4.1 and Table 2",
    {"model.family": ("resnet",), "model.block": ("basic",)},
    imagenet.DIFFERS,
    (
        Published("depth=18,skip=none", "27.94", TEN),
        Published("depth=34,skip=none", "28.54", TEN),
        Published("depth=18", "27.88", TEN),
        Published("depth=34", "25.03", TEN),
        Published("depth=34,skip=B", "24.52", TEN),
        Published("depth=34,skip=C", "24.19", TEN),
    ),
)
RECIPE = imagenet.RECIPE


def get_config(argument: str = "") -> Config:
    return make(choose(f"skip=A,{argument}", depth=34), RECIPE)
