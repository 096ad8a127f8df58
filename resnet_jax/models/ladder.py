"""Ladder: residual networks of basic blocks at every even depth from 18 to 1202, on any image.

The blocks are shared out evenly over the stages (stages.py), so that a depth sweep has as many
points as it needs. The networks are ours.
"""

import dataclasses
import functools

from resnet_jax.models import resnet, stages
from resnet_jax.models.family import side, switches
from resnet_jax.models.merges import RESIDUAL_MERGES


def preset(depth: int, block: str | None, shape: tuple[int, ...]) -> dict[str, str]:
    """Return basic blocks, with the skip of He et al."""
    block = block or "basic"
    return resnet.follow(block, stages.default_skip(block, side(shape)))


FAMILY = dataclasses.replace(
    resnet.FAMILY,
    summary="residual networks at every even depth from 18 to 1202 (ours)",
    build=functools.partial(
        resnet.build, published=lambda depth, _, image: stages.ladder_stages(depth, image), extra=2
    ),
    switches=switches(resnet.blocks_of("basic"), merges=RESIDUAL_MERGES),
    preset=preset,
    depth=18,
)
