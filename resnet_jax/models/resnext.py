"""ResNeXt: bottlenecks whose 3x3 convolution works in groups.

Xie et al. 2017 (arXiv:1611.05431):

| net | image | stages | widths | depth | cardinality | shortcut |
|---|---|---|---|---|---|---|
| Table 1 | >= 64 | ResNet's | inner 128 .. 1024 | 50 101 | 32 groups of 4 channels | B |
| sec. 5.3 | < 64 | n, n, n | 64 128 256, x4 | 9n+2 | 8 groups of 64 channels | B |
"""

import dataclasses
from typing import Any

from resnet_jax.models import resnet, resnet_layouts
from resnet_jax.models.family import SMALL, side, switches
from resnet_jax.models.merges import RESIDUAL_MERGES


def preset(depth: int, block: str | None, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return 8x64d on small images and 32x4d on large ones."""
    cardinality, widen = (8, 8) if side(shape) < SMALL else (32, 2)
    return resnet.follow(block or "bottleneck", "B") | {
        "model.width": 64,
        "model.stride_at": "3x3",
        "model.cardinality": cardinality,
        "model.widen": widen,
    }


FAMILY = dataclasses.replace(
    resnet.FAMILY,
    summary="ResNeXt, bottlenecks in groups",
    switches=switches(resnet.blocks_of("bottleneck"), merges=RESIDUAL_MERGES),
    preset=preset,
    depth=29,
    layouts=resnet_layouts.BOTTLENECK_LAYOUTS,
)
