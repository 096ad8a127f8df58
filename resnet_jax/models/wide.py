"""Wide ResNets: fewer layers, more channels.

Zagoruyko & Komodakis 2016 (arXiv:1605.07146):

| net | image | stages | widths | depth | block | shortcut |
|---|---|---|---|---|---|---|
| WRN-d-k, Table 1 | < 64 | n, n, n | 16k 32k 64k | 6n+4 | preact_basic | B |
| WRN-50-2, Table 8 | >= 64 | ResNet's | inner 128 .. 1024 | 50 101 | bottleneck | B |

The name of a small network counts the stem, 6n layers of bodies and three projections, and not the
classifier: its 6n+4 layers are 6n+2 by He et al.'s count. If the first unit keeps the width (k =
1), its skip keeps the raw x, as in the authors' code; in He et al.'s it keeps the activated x.
Dropout stands between the two convolutions of a body (sec. 2.4): model.dropout.
"""

import dataclasses
from typing import Any

from resnet_jax.keys import Config
from resnet_jax.models import resnet, resnet_layouts, stages
from resnet_jax.models.family import SMALL, Layers, side, switches
from resnet_jax.models.merges import RESIDUAL_MERGES
from resnet_jax.models.residual import Chain


def build(config: Config, layers: Layers) -> Chain:
    """Return the config's network."""
    extra = 4 if side(layers.shape) < SMALL else 2

    def published(depth: int, block: str, image: int) -> tuple[int, ...]:
        return stages.resnet_stages(depth, block, image, extra)

    return resnet.build(config, layers, published, extra, first="own")


def preset(depth: int, block: str | None, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return WRN-d-10 of pre-activation basic blocks, or torchvision's WRN-50-2 on large images."""
    small = side(shape) < SMALL
    values = resnet.follow(block or ("preact_basic" if small else "bottleneck"), "B")
    return values | {"model.widen": 10 if small else 2, "model.stride_at": "3x3"}


FAMILY = dataclasses.replace(
    resnet.FAMILY,
    summary="Wide ResNets",
    build=build,
    switches=switches(resnet.blocks_of("basic", "bottleneck"), merges=RESIDUAL_MERGES),
    preset=preset,
    depth=28,
    layouts=resnet_layouts.BOTTLENECK_LAYOUTS,
)
