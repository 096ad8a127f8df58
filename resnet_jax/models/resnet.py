"""Residual networks of He et al. 2015 and 2016 at any depth, wider, in groups, and plain twins.

| net | image | stages | widths | depth | block | shortcut |
|---|---|---|---|---|---|---|
| CIFAR, 2015 sec. 4.2 | < 64 | n, n, n | 16 32 64 | 6n+2 | basic | A |
| CIFAR, 2016 Table 3, one-layer skips | < 64 | n, n, n | 16 32 64 | 3n+2 | single | A |
| CIFAR, 2016 Table 3 | < 64 | n, n, n | 16 32 64, x4 | 9n+2 | (pre-activation) bottleneck | B |
| ImageNet, 2015 Table 1 | >= 64 | below | 64 128 256 512 | 18 34 | basic | B |
| ImageNet, 2015 Table 1 | >= 64 | below | 64 128 256 512, x4 | 50 101 152 200 | bottleneck | B |
| ladder (ours) | any | shared out evenly | as above | any even, 18 .. 1202 | basic | A or B |
| Wide ResNet, 1605.07146 Table 1 | < 64 | n, n, n | 16k 32k 64k | 6n+4 | preact_basic | B |
| Wide ResNet, 1605.07146 Table 8 | >= 64 | below | inner 128 .. 1024 | 50 101 | bottleneck | B |
| ResNeXt, 1611.05431 Table 1 | >= 64 | below | inner 128 .. 1024 | 50 101 | bottleneck | B |
| ResNeXt, sec. 5.3 | < 64 | n, n, n | 64 128 256, x4 | 9n+2 | bottleneck | B |

A block is named by its form and its shape (bodies.py), `preact_basic`: FORMS has He et al. 2016's
five orders of activation (Table 2, Fig. 4) and Fixup.

Depth counts the weighted layers on the longest path (convolutions and the classifier), as the
papers do; projections do not count, but in a Wide ResNet's name (its 6n+4 has 6n+2 without them).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
from jaxtyping import Array, Float

from resnet_jax.models import bodies
from resnet_jax.models.conv import Conv
from resnet_jax.models.drop import Dropout
from resnet_jax.models.heads import Head, Pool
from resnet_jax.models.merges import add, plain
from resnet_jax.models.norm import BatchNorm, NoNorm, Shift
from resnet_jax.models.residual import Chain, Remat, Residual, Stack
from resnet_jax.models.skips import Projection, ZeroPad, identity

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

# Weighted layers of a block's body.
SHAPES = {"single": 1, "basic": 2, "bottleneck": 3}
# He et al. 2016, Fig. 4: (a) '', (b) norm_after, (c) relu_before, (d) relu_preact, (e) preact.
FORMS = ("", "norm_after", "relu_before", "relu_preact", "preact", "fixup")
BLOCKS = tuple(
    f"{form}_{shape}".strip("_")
    for form in FORMS
    for shape in SHAPES
    # One convolution has no place for Fixup's scaling: the exponent is 1 / (2m - 2).
    if (form, shape) != ("fixup", "single")
)


def form_and_shape(block: str) -> tuple[str, str]:
    """'preact_basic' -> ('preact', 'basic'); 'basic' -> ('', 'basic')."""
    form, _, shape = block.rpartition("_")
    return form, shape


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
            x = Pool(3, 2, 1)(x)
        return x


def resnet(
    stages: Sequence[int],
    *,
    block: str,
    skip: Skip,
    num_classes: int,
    width: int = 16,
    widen: int = 1,
    groups: int = 1,
    stem: StemKind = "3x3",
    stride_at: Literal["1x1", "3x3"] = "1x1",
    merge: Callable = add,
    survivals: Sequence[float] = (),
    skip_dropout: float = 0.0,
    zero: bool = False,
    conv: Callable[..., nn.Module] = Conv,
    norm: Callable[..., nn.Module] = BatchNorm,
    remat: Remat = "none",
    unroll: int = 1,
) -> Chain:
    """A residual network of `stages[i]` blocks of width `width` 2^i at each resolution.

    `skip='none'` is the plain twin: the same bodies, nothing added. `widen` multiplies the width of
    a bottleneck's inner layers, and of all layers of another block; `groups` are those of a
    bottleneck's 3x3 convolution. `survivals` are the merge's own number for each block (drop.py),
    and `skip_dropout` is the rate of dropout on every skip.

    A stage that changes its input's shape begins with a block of its own; the rest is one Stack.
    """
    form, shape = form_and_shape(block)
    pre, wide = form == "preact", shape == "bottleneck"
    if form == "fixup":
        # It has its own scale and its own biases, whatever stands where it has no norm.
        conv, norm = functools.partial(conv, bias=False, fan="out"), Shift
    make = _body(form, shape, sum(stages), stride_at, widen, groups, zero, conv, norm)
    normed = form in ("", "relu_before", "relu_preact")
    pick = functools.partial(
        _skip, skip, conv=conv, norm=norm if normed else None, dropout=skip_dropout
    )
    meet = plain if skip == "none" else merge
    after = {"": nn.relu, "fixup": nn.relu, "norm_after": norm(relu=True)}.get(form, identity)
    merge_of = lambda i: meet.copy(survival=survivals[i]) if survivals else meet

    blocks: dict[str, nn.Module] = {"stem": Stem(width, stem, not pre, conv, norm)}
    channels, done = width, 0
    for i, count in enumerate(stages):
        inner = width * 2**i * (1 if wide else widen)
        out, stride = (4 * inner if wide else inner), (1 if i == 0 else 2)
        changes = stride > 1 or channels != out
        if changes or pre:
            kept = pick(out, stride, changes)
            body = make(inner, stride, lead=False) if pre else make(inner, stride)
            before = norm(relu=True) if pre else identity
            blocks[f"stage{i + 1}_first"] = Residual(body, kept, merge_of(done), before, after)
            count, done = count - 1, done + 1
        if count:
            rest = Residual(make(inner, 1), pick(out, 1, False), meet, after=after)
            sides = (tuple(survivals[done : done + count]),) if survivals else ()
            blocks[f"stage{i + 1}"] = Stack(rest, count, sides=sides, remat=remat, unroll=unroll)
            done += count
        channels = out
    if form in ("preact", "relu_preact"):
        blocks["norm"] = norm(relu=True) if pre else NoNorm(relu=True)
    if form == "fixup":
        blocks["shift"] = Shift()
    blocks["head"] = Head(num_classes, zero=form == "fixup")
    return Chain(blocks)


def _body(form, shape, blocks, stride_at, widen, groups, zero, conv, norm) -> Callable:
    """(width, stride, ...) -> the body of this form and shape."""

    def make(width, stride, **order):
        row = getattr(bodies, shape)
        if shape == "bottleneck":
            row = functools.partial(row, stride_at=stride_at, widen=widen, groups=groups)
        layers = row(width, stride)
        if form == "fixup":
            return bodies.Fixup(layers, blocks, conv)
        if form == "preact":
            return bodies.PreActivation(layers, zero=zero, conv=conv, norm=norm, **order)
        end: Any = {"norm_after": "conv", "relu_before": "relu"}.get(form, "norm")
        lead = form == "relu_preact"
        return bodies.PostActivation(layers, end, lead, zero, conv, norm)

    return make


def _skip(
    kind: Skip, width: int, stride: int, changes: bool, *, conv, norm, dropout: float
) -> Callable:
    """He et al. 2015, sec. 4.1: A pads, B projects where the shape changes, C projects always."""
    if kind == "C" or (kind == "B" and changes):
        skip = Projection(width, stride, conv, norm)
    elif kind in ("A", "A_split") and changes:
        skip = ZeroPad(width, stride, "split" if kind == "A_split" else "end")
    else:
        skip = identity
    if not dropout or kind == "none":
        return skip
    drop = Dropout(dropout)
    return Chain({"skip": skip, "drop": drop}) if isinstance(skip, nn.Module) else drop


def resnet_stages(depth: int, block: str, image: int, extra: int = 2) -> tuple[int, ...]:
    """Blocks per stage of the published network of this depth.

    `extra` are the layers that a small network counts beside its blocks': 2, or 4 of a Wide ResNet.
    Raises: ValueError with the rule and the nearest two depths that obey it.
    """
    shape = form_and_shape(block)[1]
    if image >= SMALL:
        if shape not in IMAGENET:
            raise ValueError(
                f"no ImageNet ResNet has {shape} blocks: use {' or '.join(IMAGENET)}, "
                "or model.stages"
            )
        table = IMAGENET[shape]
        if depth not in table:
            low, high = sorted(sorted(table, key=lambda d: abs(d - depth))[:2])
            raise ValueError(
                f"depth {depth} is no ImageNet ResNet of {shape} blocks "
                f"({', '.join(map(str, table))}); nearest {low} and {high}"
            )
        return table[depth]
    step = 3 * SHAPES[shape]
    n, rest = divmod(depth - extra, step)
    if rest or n < 1:
        low = max(n, 1) * step + extra
        near = (low, low + step)
        raise ValueError(
            f"depth {depth} is not {step}n+{extra} ({shape} blocks); "
            f"nearest {near[0]} and {near[1]}"
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


def depth_of(stages: Sequence[int], block: str) -> int:
    """Weighted layers: those of the blocks' bodies, the stem and the classifier."""
    return SHAPES[form_and_shape(block)[1]] * sum(stages) + 2


def default_block(family: str, depth: int, image: int) -> str:
    """Basic where the depth fits basic blocks, else bottleneck."""
    if family == "ladder":
        return "basic"
    if image >= SMALL:
        return "basic" if depth in IMAGENET["basic"] else "bottleneck"
    return "bottleneck" if (depth - 2) % 6 and not (depth - 2) % 9 else "basic"


def default_skip(block: str, image: int) -> Skip:
    """A for basic blocks on small images, as in He et al. 2015, sec. 4.2; B elsewhere."""
    return "B" if image >= SMALL or block.endswith("bottleneck") else "A"
