"""Residual networks of He et al. 2015 and 2016 at any depth, and their plain twins.

| net | image | stages | widths | depth | block | shortcut |
|---|---|---|---|---|---|---|
| CIFAR, 2015 sec. 4.2 | < 64 | n, n, n | 16 32 64 | 6n+2 | basic | A |
| CIFAR, 2016 Table 3, one-layer skips | < 64 | n, n, n | 16 32 64 | 3n+2 | single | A |
| CIFAR, three-layer skips (ours) | < 64 | n, n, n | 16 32 64 | 9n+2 | triple | A |
| CIFAR, four-layer skips (ours) | < 64 | n, n, n | 16 32 64 | 12n+2 | quadruple | A |
| CIFAR, 2016 Table 3 | < 64 | n, n, n | 16 32 64, x4 | 9n+2 | (pre-activation) bottleneck | B |
| ImageNet, 2015 Table 1 | >= 64 | Table 1 | 64 128 256 512 | 18 34 | basic | B |
| ImageNet, 2015 Table 1 | >= 64 | Table 1 | 64 128 256 512, x4 | 50 101 152 200 | bottleneck | B |

The plain twin (`skip=none`) has the parameters of option A. Under option B it lacks those of the
projections: 0.8 % of ResNet-34's parameters, 2.5 % of ResNet-164's and 10.9 % of ResNet-50's. He et
al. 2015 compare plain and residual networks under option A (Table 2).

Blocks of one to four 3x3 convolutions have networks of the same depths, 36n+2 = 38, 74, 110, ...,
with the same parameters under option A. Zagoruyko & Komodakis 2016 (arXiv:1605.07146, sec. 2.2)
write them B(3) to B(3,3,3,3).

The stages of a depth are in stages.py. Wide ResNets (wide.py), ResNeXt (resnext.py) and the ladder
(ladder.py) are built by the same function. A block is named by its form and its shape (bodies.py),
for example `preact_basic`: the forms are He et al. 2016's five orders of activation (Table 2,
Fig. 4) and Fixup.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn

from resnet_jax.keys import (
    ANY,
    FRACTION,
    POSITIVE,
    SIZES,
    Config,
    Key,
    Keys,
    Part,
    Rule,
    choice,
    default,
)
from resnet_jax.models import activations, bodies, resnet_layouts, stages
from resnet_jax.models.activations import RELU, Activation
from resnet_jax.models.conv import Conv
from resnet_jax.models.dropout import Dropout
from resnet_jax.models.family import (
    SKIPS,
    Family,
    Layers,
    check_strides,
    given_stages,
    side,
    switches,
)
from resnet_jax.models.feedback import KEYS as FEEDBACK_KEYS
from resnet_jax.models.heads import Head
from resnet_jax.models.merges import RESIDUAL_MERGES, add, plain
from resnet_jax.models.norm import BatchNorm, NoNorm, Shift
from resnet_jax.models.residual import Chain, Remat, Residual, Stack
from resnet_jax.models.skips import identity
from resnet_jax.models.stages import BLOCKS, SHAPES, form_and_shape
from resnet_jax.models.starts import KEYS as START_KEYS
from resnet_jax.models.stem import Stem, StemKind


def resnet(
    stages: Sequence[int],
    *,
    block: str,
    skip: str,
    num_outputs: int,
    width: int = 16,
    widen: int = 1,
    groups: int = 1,
    stem: StemKind = "3x3",
    stride_at: Literal["1x1", "3x3"] = "1x1",
    kernel_size: int = 3,
    tied: bool = False,
    merge: Callable = add,
    per_layer: Mapping[str, Sequence[float]] | None = None,
    skip_dropout: float = 0.0,
    dropout: float = 0.0,
    first: Literal["shared", "own"] = "shared",
    zero: bool = False,
    activation: Activation = RELU,
    conv: Callable[..., nn.Module] = Conv,
    norm: Callable[..., nn.Module] = BatchNorm,
    remat: Remat = "none",
    unroll: int = 1,
) -> Chain:
    """Return a residual network whose stage i has `stages[i]` blocks of width `width` 2^i.

    `skip='none'` is the plain twin: the same bodies, and nothing is added to them. `widen`
    multiplies the width of a bottleneck's inner layers, or of all layers of another block; `groups`
    are those of a bottleneck's 3x3 convolution, and `kernel_size` is that of a single one. If
    `tied`, the equal blocks of a stage share their parameters, so that they are the steps of a
    recurrent network; every step has running statistics of its own (Liao & Poggio 2016,
    arXiv:1604.03640).
    `per_layer` has the merge's inputs that differ from block to block, by name: a number for each
    block (stochastic_depth.py). `skip_dropout` is the rate of dropout on every skip, and `dropout`
    that before every convolution of a pre-activation body but its first. If `first` is 'own', a
    first unit that does not change the shape keeps the raw x, and its first norm and ReLU are its
    body's own. Bodies start at zero if `zero`. `activation` stands in the place of every ReLU, but
    in Fixup.

    The equal blocks of a stage are one Stack. A first block that differs from them stands before
    the Stack: it changes the shape, or it is the first block of a pre-activation stage, whose
    `before` serves skip and body.
    """
    form, shape = form_and_shape(block)
    pre, wide = form == "preact", shape == "bottleneck"
    if form == "fixup":
        # Fixup has its own scale and its own biases, whatever stands in the place of a norm.
        conv, norm, activation = functools.partial(conv, bias=False, fan="out"), Shift, RELU
    conv, norm, act = activation.kernels(conv), activation.behind(norm), activation.function
    row = getattr(bodies, shape)
    if shape == "single":
        row = functools.partial(row, size=kernel_size)
    if wide:
        row = functools.partial(row, stride_at=stride_at, widen=widen, groups=groups)
    make = _body(form, row, sum(stages), zero, dropout, conv, norm, act)
    normed = form in ("", "relu_before", "relu_preact")
    pick = functools.partial(
        _skip, skip, conv=conv, norm=norm if normed else None, dropout=skip_dropout
    )
    meet = plain if skip == "none" else merge
    numbers = {} if skip == "none" or per_layer is None else per_layer
    after = {"": act, "fixup": act, "norm_after": norm(relu=True)}.get(form, identity)
    # A block outside of a Stack has its own numbers as fields of its merge.
    meet_at = lambda i: meet.copy(**{n: v[i] for n, v in numbers.items()}) if numbers else meet

    blocks: dict[str, nn.Module] = {"stem": Stem(width, stem, not pre, conv, norm)}
    channels, done = width, 0
    for i, count in enumerate(stages):
        inner = width * 2**i * (1 if wide else widen)
        out, stride = (4 * inner if wide else inner), (1 if i == 0 else 2)
        changes = stride > 1 or channels != out
        if changes or (pre and not (i == 0 and first == "own")):
            kept = pick(out, stride, changes)
            body = make(inner, stride, lead=False) if pre else make(inner, stride)
            before = norm(relu=True) if pre else identity
            blocks[f"stage{i + 1}_first"] = Residual(body, kept, meet_at(done), before, after)
            count, done = count - 1, done + 1
        if count:
            rest = Residual(make(inner, 1), pick(out, 1, False), meet, after=after)
            part = {name: tuple(values[done : done + count]) for name, values in numbers.items()}
            blocks[f"stage{i + 1}"] = Stack(
                rest, count, tied=tied, per_layer=part, remat=remat, unroll=unroll
            )
            done += count
        channels = out
    if form in ("preact", "relu_preact"):
        blocks["norm"] = norm(relu=True) if pre else activation.behind(NoNorm)(relu=True)
    if form == "fixup":
        blocks["shift"] = Shift()
    blocks["head"] = Head(num_outputs, zero=form == "fixup")
    return Chain(blocks)


def _body(form, row, blocks, zero, dropout, conv, norm, act) -> Callable:
    """Return the function (width, stride, ...) -> body of this form, of such a row of layers."""

    def make(width, stride, **order):
        layers = row(width, stride)
        if form == "fixup":
            return bodies.Fixup(layers, blocks, conv)
        if form == "preact":
            options = {"zero": zero, "between": dropout, "conv": conv, "norm": norm}
            return bodies.PreActivation(layers, **options, **order)
        end: Any = {"norm_after": "conv", "relu_before": "relu"}.get(form, "norm")
        lead = form == "relu_preact"
        return bodies.PostActivation(layers, end, lead, zero, conv, norm, act)

    return make


def _skip(
    kind: str, width: int, stride: int, changes: bool, *, conv, norm, dropout: float
) -> Callable:
    """Return a block's skip, with dropout on it if `dropout` is not 0."""
    skip = SKIPS[kind].build(width, stride, changes, conv, norm)
    if not dropout or kind == "none":
        return skip
    drop = Dropout(dropout)
    return Chain({"skip": skip, "drop": drop}) if isinstance(skip, nn.Module) else drop


def build(
    config: Config,
    layers: Layers,
    published: Callable[..., tuple[int, ...]],
    extra: int,
    first: Literal["shared", "own"] = "shared",
) -> Chain:
    """Return the config's network; `published(depth, block, image)` gives the stages of a depth.

    `extra` are the weighted layers that the depth counts beside those of the blocks, and `first` is
    the form of the first unit (see `resnet`).
    """
    model, image = config.model, side(layers.shape)
    form, shape = form_and_shape(model.block)
    # A gate of a Fixup network starts as the gate of a network with norms does.
    gate_conv = functools.partial(layers.conv, fan="out") if form == "fixup" else layers.conv
    counts = given_stages(config, SHAPES[shape], extra)
    counts = counts or published(model.depth, model.block, image)
    check_strides(layers.shape, len(counts), model.stem)
    arguments = {"stride_at": "stride_at", "cardinality": "groups", "zero_init": "zero"}
    arguments |= {"dropout": "dropout", "kernel_size": "kernel_size"}
    of_block = {argument: model[key] for key, argument in arguments.items() if key in model}
    return resnet(
        counts,
        block=model.block,
        skip=model.skip,
        num_outputs=layers.num_outputs,
        width=model.width,
        widen=model.widen,
        stem=model.stem,
        tied=model.tied,
        merge=layers.merge(1, gate_conv),
        per_layer=layers.per_layer(sum(counts)),
        skip_dropout=model.skip_dropout,
        first=first,
        # The stem and every layer of a body has an activation, and the classifier has none.
        activation=activations.activation(config, 1 + SHAPES[shape] * sum(counts)),
        conv=layers.conv,
        norm=layers.norm,
        **of_block,
        **layers.loop,
    )


KEYS: Keys = {
    "model.stages": Key((), SIZES, "blocks in each stage; () is the published network's"),
    "model.width": Key(default(resnet, "width"), POSITIVE, "channels of the first stage"),
    "model.widen": Key(
        default(resnet, "widen"),
        POSITIVE,
        "times as wide: a bottleneck's inner layers, or all layers of another block",
    ),
    "model.stem": Key(default(resnet, "stem"), choice("3x3", "7x7"), "first convolution"),
    "model.skip_dropout": Key(
        default(resnet, "skip_dropout"), FRACTION, "rate of dropout on every skip"
    ),
    "model.tied": Key(
        default(resnet, "tied"),
        ANY,
        "whether the equal blocks of a stage share their parameters, as steps of a recurrent net",
    ),
}
_BOTTLENECK = {
    "model.stride_at": Key(
        default(resnet, "stride_at"),
        choice("1x1", "3x3"),
        "the bottleneck's convolution that has the stride: 1x1 in 2015, 3x3 in most code since",
    ),
    "model.cardinality": Key(
        default(resnet, "groups"), POSITIVE, "groups of a bottleneck's 3x3 convolution"
    ),
}
_SINGLE = {
    "model.kernel_size": Key(
        default(resnet, "kernel_size"),
        Rule(lambda size: size > 0 and size % 2 == 1, "must be odd and positive"),
        "pixels on a side of the one convolution's kernel",
    ),
}
_OF_SHAPE = {"bottleneck": _BOTTLENECK, "single": _SINGLE}
_PREACT = {
    "model.dropout": Key(
        default(resnet, "dropout"),
        FRACTION,
        "rate of dropout between a body's convolutions (Wide ResNet)",
    ),
}
_NORMED = {
    "model.fan": Key(
        "auto",
        choice("auto", "in", "out"),
        "kernels start with variance 2 / fan-in or fan-out; auto: in without norms, else out",
    ),
    "model.zero_init": Key(default(resnet, "zero"), ANY, "whether bodies start at zero"),
    "model.dirac": Key(
        Conv.dirac,
        ANY,
        "whether kernels that keep the shape are W = a I + b V / |V| (DiracNet), in plain networks",
    ),
} | (START_KEYS | FEEDBACK_KEYS | activations.KEYS)


def _check_normed(config: Config) -> None:
    model = config.model
    if model.kernel_start != "he" and model.fan != "auto":
        raise ValueError(
            f"model.fan={model.fan} with model.kernel_start={model.kernel_start}, which has no "
            "choice of fan; use --config.model.fan=auto"
        )
    if model.dirac and model.skip != "none":
        raise ValueError(
            f"model.dirac=True with skip={model.skip}: the identity in a kernel takes the place of "
            "a skip connection; choose skip=none"
        )
    if model.dirac and model.kernel_start == "dirac":
        raise ValueError(
            "model.dirac=True with model.kernel_start=dirac: the kernels have an identity already; "
            "use --config.model.kernel_start=he"
        )
    activations.check(config)
    if model.activation == "tat" and form_and_shape(model.block)[0] == "relu_preact":
        raise ValueError(
            f"model.activation=tat with block={model.block}, which applies it twice behind the "
            f"stem; choose block={form_and_shape(model.block)[1]}"
        )
    if config.model.zero_init and config.norm.kind == "none":
        raise ValueError(
            "model.zero_init zeroes a norm's scale and norm=none has none; choose merge=rezero"
        )
    if config.model.zero_init and config.model.skip == "none":
        raise ValueError(
            "model.zero_init with skip=none: without a skip connection bodies that start at zero "
            "pass nothing on and learn nothing; leave one of the two out"
        )


def _check_fixup(config: Config) -> None:
    if config.norm.kind != "none":
        raise ValueError(
            f"norm={config.norm.kind} with block={config.model.block}, which has no norms; "
            "choose norm=none"
        )
    if config.model.skip == "none":
        raise ValueError(
            f"block={config.model.block} with skip=none: without a skip connection bodies that "
            "start at zero pass nothing on and learn nothing; use another block or skip"
        )


def _block(name: str) -> Part:
    form, shape = form_and_shape(name)
    keys = _OF_SHAPE.get(shape, {})
    words = f"{form or 'original'} order, {SHAPES[shape]} convolutions"
    if form == "fixup":
        return Part(words, keys=keys | FEEDBACK_KEYS, check=_check_fixup)
    keys = keys | (_PREACT if form == "preact" else {})
    return Part(words, keys=keys | _NORMED, check=_check_normed)


def blocks_of(*shapes: str) -> dict[str, Part]:
    """Return the blocks of these shapes, basic ones first."""
    names = sorted(BLOCKS, key=lambda name: name != shapes[0])
    return {name: _block(name) for name in names if form_and_shape(name)[1] in shapes}


def preset(depth: int, block: str | None, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return basic blocks if the depth fits them, else bottlenecks, and the skip of He et al."""
    image = side(shape)
    block = block or stages.default_block(depth, image)
    return follow(block, stages.default_skip(block, image))


def follow(block: str, skip: str) -> dict[str, Any]:
    """Return the values that a choice of block and skip implies: Fixup has no norms."""
    values = {"model.block": block, "model.skip": skip}
    return values | ({"norm.kind": "none"} if block.startswith("fixup") else {})


FAMILY = Family(
    "residual networks of He et al. 2015 and 2016",
    build=functools.partial(build, published=stages.resnet_stages, extra=2),
    keys=KEYS,
    switches=switches(blocks_of("basic", *SHAPES), merges=RESIDUAL_MERGES),
    preset=preset,
    depth=20,
    layouts=resnet_layouts.LAYOUTS,
)
