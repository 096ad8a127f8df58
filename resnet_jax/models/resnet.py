"""Residual networks of He et al. 2015 and 2016, at any depth, each with its plain twin.

| net | image | stages | widths | depth | block | shortcut |
|---|---|---|---|---|---|---|
| CIFAR, 2015 sec. 4.2 | < 64 | n, n, n | 16 32 64 | 6n+2 | basic | A |
| CIFAR, 2016 Table 3 | < 64 | n, n, n | 16 32 64, x4 | 9n+2 | (pre-activation) bottleneck | B |
| ImageNet, 2015 Table 1 | >= 64 | below | 64 128 256 512 | 18 34 | basic | B |
| ImageNet, 2015 Table 1 | >= 64 | below | 64 128 256 512, x4 | 50 101 152 200 | bottleneck | B |
| ladder (ours) | any | shared out evenly | as above | any even, 18 .. 1202 | basic | A or B |

Depth counts the weighted layers on the longest path (convolutions and the classifier), as the
papers do; projections do not count.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.models import bodies
from resnet_jax.models.conv import Conv
from resnet_jax.models.merges import add, plain
from resnet_jax.models.norm import BatchNorm
from resnet_jax.models.residual import Chain, Remat, Residual, Stack
from resnet_jax.models.skips import Projection, ZeroPad, identity

Block = Literal["basic", "bottleneck", "preact_basic", "preact_bottleneck"]
Skip = Literal["none", "A", "B", "C", "A_split"]
StemKind = Literal["3x3", "7x7"]

# Images of fewer pixels a side take the CIFAR form: three stages, 16 channels to begin with.
SMALL = 64

# He et al. 2015, Table 1; 200 from 2016, Table 5.
IMAGENET = {
    "basic": {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)},
    "bottleneck": {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)},
}
LADDER = (18, 1202)

BODIES: dict[str, Callable[..., nn.Module]] = {
    "basic": bodies.Basic,
    "bottleneck": bodies.Bottleneck,
    "preact_basic": bodies.PreBasic,
    "preact_bottleneck": bodies.PreBottleneck,
}


class Stem(nn.Module):
    """What stands before the first block.

    '3x3': one convolution. '7x7': one with stride 2, then 3x3 max pooling with stride 2. Followed
    by norm and ReLU where `activate`; a pre-activation net leaves them to its first block (He's
    code puts that one before the pooling, which gives the same for positive scales).

    Shapes: (b, h, w, c) -> (b, h, w, width), or (b, h / 4, w / 4, width).
    """

    width: int
    kind: StemKind
    activate: bool
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b p q d"]:
        """Lift the image to the first stage's channels."""
        size, stride = (3, 1) if self.kind == "3x3" else (7, 2)
        x = self.conv(self.width, size, stride, name="conv")(x)
        if self.activate:
            x = self.norm(relu=True, name="norm")(x)
        if self.kind == "7x7":
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]
        return x


class Head(nn.Module):
    """Global average pooling and the classifier: (b, h, w, c) -> (b, y) logits in float32."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y"]:
        """Classify."""
        x = x.mean((1, 2))
        x = x.astype(x.dtype if x.dtype.itemsize > 4 else jnp.float32)
        return nn.Dense(self.num_classes, name="dense", param_dtype=x.dtype)(x)


def resnet(
    stages: Sequence[int],
    *,
    block: Block,
    skip: Skip,
    num_classes: int,
    width: int = 16,
    stem: StemKind = "3x3",
    stride_at: Literal["1x1", "3x3"] = "1x1",
    merge: Callable = add,
    zero: bool = False,
    dtype: Any = jnp.float32,
    norm: Callable[..., nn.Module] = BatchNorm,
    remat: Remat = "none",
    unroll: int = 1,
) -> Chain:
    """A residual network of `stages[i]` blocks of width `width` 2^i at each resolution.

    `skip='none'` is the plain twin: the same bodies, nothing added. A stage that changes its
    input's shape begins with a block of its own; the rest is one Stack.
    """
    conv = functools.partial(Conv, dtype=dtype)
    pre, wide = block.startswith("preact"), block.endswith("bottleneck")
    body = functools.partial(BODIES[block], zero=zero, conv=conv, norm=norm)
    if wide:
        body = functools.partial(body, stride_at=stride_at)
    keep = functools.partial(_skip, skip, conv=conv, norm=None if pre else norm)
    meet = plain if skip == "none" else merge
    after = identity if pre else nn.relu

    blocks: dict[str, nn.Module] = {"stem": Stem(width, stem, not pre, conv, norm)}
    channels = width
    for i, count in enumerate(stages):
        inner = width * 2**i
        out, stride = (4 * inner if wide else inner), (1 if i == 0 else 2)
        changes = stride > 1 or channels != out
        if changes or pre:
            kept = keep(out, stride, changes)
            if pre:
                lean = body(inner, stride, lead=False)
                first = Residual(lean, kept, meet, before=norm(relu=True))
            else:
                first = Residual(body(inner, stride), kept, meet, after=after)
            blocks[f"stage{i + 1}_first"] = first
            count -= 1
        if count:
            rest = Residual(body(inner), keep(out, 1, False), meet, after=after)
            blocks[f"stage{i + 1}"] = Stack(rest, count, remat=remat, unroll=unroll)
        channels = out
    if pre:
        blocks["norm"] = norm(relu=True)
    blocks["head"] = Head(num_classes)
    return Chain(blocks)


def _skip(kind: Skip, width: int, stride: int, changes: bool, *, conv, norm) -> Callable:
    """He et al. 2015, sec. 4.1: A pads, B projects where the shape changes, C projects always."""
    if kind == "C" or (kind == "B" and changes):
        return Projection(width, stride, conv, norm)
    if kind in ("A", "A_split") and changes:
        return ZeroPad(width, stride, "split" if kind == "A_split" else "end")
    return identity


def resnet_stages(depth: int, block: Block, image: int) -> tuple[int, ...]:
    """Blocks per stage of the published network of this depth.

    Raises: ValueError with the rule and the nearest two depths that obey it.
    """
    kind = block.removeprefix("preact_")
    if image >= SMALL:
        table = IMAGENET[kind]
        if depth not in table:
            near = " and ".join(
                str(d) for d in sorted(sorted(table, key=lambda d: abs(d - depth))[:2])
            )
            raise ValueError(
                f"depth {depth} is no ImageNet ResNet of {kind} blocks "
                f"({', '.join(map(str, table))}); nearest {near}"
            )
        return table[depth]
    step = {"basic": 6, "bottleneck": 9}[kind]
    n, rest = divmod(depth - 2, step)
    if rest or n < 1:
        low = max(n, 1) * step + 2
        near = (low, low + step)
        raise ValueError(
            f"depth {depth} is not {step}n+2 ({kind} blocks); nearest {near[0]} and {near[1]}"
        )
    return (n, n, n)


def ladder_stages(depth: int, image: int) -> tuple[int, ...]:
    """Basic blocks shared out over 3 stages (4 from 64 pixels on) as evenly as can be.

    The remainder goes to the earliest: 18 layers on small images are 3, 3, 2 blocks.
    Raises: ValueError with the rule and the nearest two depths that obey it.
    """
    low, high = LADDER
    if depth % 2 or not low <= depth <= high:
        near = min(max(depth - depth % 2, low), high - 2)
        raise ValueError(
            f"depth {depth} is not even and from {low} to {high}; nearest {near} and {near + 2}"
        )
    number = 3 if image < SMALL else 4
    each, rest = divmod((depth - 2) // 2, number)
    return tuple(each + (i < rest) for i in range(number))


def depth_of(stages: Sequence[int], block: Block) -> int:
    """Weighted layers: 2 a basic block or 3 a bottleneck, the stem and the classifier."""
    return (3 if block.endswith("bottleneck") else 2) * sum(stages) + 2


def default_block(family: str, depth: int, image: int) -> Block:
    """Basic where the depth fits basic blocks, else bottleneck."""
    if family == "ladder":
        return "basic"
    if image >= SMALL:
        return "basic" if depth in IMAGENET["basic"] else "bottleneck"
    return "bottleneck" if (depth - 2) % 6 and not (depth - 2) % 9 else "basic"


def default_skip(block: Block, image: int) -> Skip:
    """A for basic blocks on small images, as in He et al. 2015, sec. 4.2; B elsewhere."""
    return "A" if image < SMALL and block.endswith("basic") else "B"
