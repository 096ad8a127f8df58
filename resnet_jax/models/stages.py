"""From a depth to the number of blocks in each stage of a residual network.

Depth counts the weighted layers on the longest path (convolutions and the classifier), as the
papers do. Projections do not count, except in the name of a small Wide ResNet: its 6n+4 layers are
the stem, 6n in the bodies and three projections, without the classifier.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from resnet_jax.models.family import SMALL

Value = TypeVar("Value")
# He et al. 2015, Table 1; depth 200 is from He et al. 2016, Table 5.
IMAGENET = {
    "basic": {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)},
    "bottleneck": {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)},
}
# The shallowest and the deepest ladder.
LADDER = (18, 1202)

# The weighted layers of a block's body, by the block's shape.
SHAPES = {"single": 1, "basic": 2, "triple": 3, "quadruple": 4, "bottleneck": 3}
# The order of a block's layers. He et al. 2016, Fig. 4: (a) '', (b) norm_after, (c) relu_before,
# (d) relu_preact, (e) preact; and Fixup.
FORMS = ("", "norm_after", "relu_before", "relu_preact", "preact", "fixup")
BLOCKS = tuple(
    f"{form}_{shape}".strip("_")
    for form in FORMS
    for shape in SHAPES
    # Fixup's scaling needs two convolutions or more: its exponent is -1 / (2m - 2).
    if (form, shape) != ("fixup", "single")
)


def form_and_shape(block: str) -> tuple[str, str]:
    """Split a block's name: 'preact_basic' -> ('preact', 'basic'), 'basic' -> ('', 'basic')."""
    form, _, shape = block.rpartition("_")
    return form, shape


def resnet_stages(depth: int, block: str, image: int, extra: int = 2) -> tuple[int, ...]:
    """Return the blocks in each stage of the published network of this depth.

    `image` is the number of pixels on the image's shorter side. A small network has `extra` layers
    beside those of its blocks: 2, or 4 in the name of a Wide ResNet.
    Raises: ValueError with the rule and the nearest two depths that obey it.
    """
    shape = form_and_shape(block)[1]
    if image >= SMALL:
        if shape not in IMAGENET:
            raise ValueError(
                f"no ImageNet ResNet has {shape} blocks: use {' or '.join(IMAGENET)}, "
                "or model.stages"
            )
        return published(IMAGENET[shape], depth, f"ImageNet ResNet of {shape} blocks")
    step = 3 * SHAPES[shape]
    n, rest = divmod(depth - extra, step)
    if rest or n < 1:
        low = max(n, 1) * step + extra
        raise ValueError(
            f"depth {depth} is not {step}n+{extra} ({shape} blocks); nearest {low} and {low + step}"
        )
    return (n, n, n)


def published(table: Mapping[int, Value], depth: int, name: str) -> Value:
    """Return the table's value for this depth, such as its stages.

    Raises: ValueError with all depths of the table and the nearest two.
    """
    if depth not in table:
        low, high = sorted(sorted(table, key=lambda known: abs(known - depth))[:2])
        raise ValueError(
            f"depth {depth} is no {name} ({', '.join(map(str, table))}); nearest {low} and {high}"
        )
    return table[depth]


def ladder_stages(depth: int, image: int) -> tuple[int, ...]:
    """Share basic blocks out over 3 stages (4 for images of 64 pixels or more) as evenly as can be.

    The remainder goes to the earliest stages: 18 layers on small images are 3, 3, 2 blocks.
    Raises: ValueError with the rule and the nearest two depths that obey it.
    """
    low, high = LADDER
    if depth % 2 or not low <= depth <= high:
        near = min(max(depth - depth % 2, low), high - 2)
        raise ValueError(
            f"depth {depth} is not even and from {low} to {high}; nearest {near} and {near + 2}"
        )
    return share_out((depth - 2) // 2, 3 if image < SMALL else 4)


def share_out(blocks: int, stages: int) -> tuple[int, ...]:
    """Share blocks out over the stages evenly; the remainder goes to the earliest stages."""
    each, rest = divmod(blocks, stages)
    return tuple(each + (stage < rest) for stage in range(stages))


def depth_of(stages: Sequence[int], block: str) -> int:
    """Return the weighted layers of the blocks' bodies, the stem and the classifier."""
    return SHAPES[form_and_shape(block)[1]] * sum(stages) + 2


def default_block(depth: int, image: int) -> str:
    """Return basic if the depth fits basic blocks, else bottleneck."""
    if image >= SMALL:
        return "basic" if depth in IMAGENET["basic"] else "bottleneck"
    return "bottleneck" if (depth - 2) % 6 and not (depth - 2) % 9 else "basic"


def default_skip(block: str, image: int) -> str:
    """Return A for basic blocks on small images (He et al. 2015, sec. 4.2), else B."""
    return "B" if image >= SMALL or block.endswith("bottleneck") else "A"
