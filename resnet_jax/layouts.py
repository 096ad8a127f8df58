"""What other libraries call our weights: one table of name patterns a library and family.

A row pairs one of our modules with one of theirs; `{s}` and `{i}` are the stage (from 1) and the
block in it (from 0), `{k}` a number within the block, and `{s-1}` is one less. The leaves follow,
after a dot or as the end of a name that ends with `_`:

    kernel (HWIO or IO) <-> weight (OIHW or OI)     scale <-> weight     bias <-> bias
    mean <-> running_mean                           var <-> running_var

A parameter that is called nothing of these (a class token) has a row of its own.

A table also names the config values that its library's networks have: with others the same weights
would fit and compute something else.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from resnet_jax.config import Config, flatten
from resnet_jax.models.vgg import vgg_stages

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class Form(NamedTuple):
    """How an array of ours is laid out there, and back."""

    theirs: Callable[[np.ndarray], np.ndarray]
    ours: Callable[[np.ndarray], np.ndarray]


# By the number of axes: a vector, a matrix, tokens (1, t, c), a convolution.
PLAIN = {
    1: Form(lambda a: a, lambda a: a),
    2: Form(np.transpose, np.transpose),
    3: Form(lambda a: a, lambda a: a),
    4: Form(lambda a: a.transpose(3, 2, 0, 1), lambda a: a.transpose(2, 3, 1, 0)),
}
# A classifier kept as a convolution of one tap: (O, I, 1, 1).
ONE_TAP = Form(lambda a: a.T[:, :, None, None], lambda a: a[:, :, 0, 0].T)


def flattened(size: int, axes: int = 2) -> Form:
    """Of a matrix after a `size` x `size` image: its rows go by (h, w, c) here and (c, h, w) there.

    A matrix there too, or where `axes` is 4 a convolution of that size (O, C, H, W).
    """

    def theirs(a):
        conv = a.reshape(size, size, -1, a.shape[-1]).transpose(3, 2, 0, 1)
        return conv if axes == 4 else conv.reshape(len(conv), -1)

    def ours(a):
        conv = a.reshape(len(a), -1, size, size).transpose(2, 3, 1, 0)
        return conv.reshape(-1, len(a))

    return Form(theirs, ours)


class Row(NamedTuple):
    """One module or parameter of ours and its name there.

    `kernel` is the form of the module's kernel where that is not PLAIN.
    """

    ours: str
    theirs: str
    kernel: Form | None = None


class Table(NamedTuple):
    """The networks of one library that share a naming."""

    layout: str
    families: tuple[str, ...]
    blocks: tuple[str, ...]
    values: Mapping[str, Any]  # the config values that these networks have
    rows: Callable[[Config], Sequence[Row]]  # of the config: some names depend on the depth


RESNET = (
    Row("stem.conv", "conv1"),
    Row("stem.norm", "bn1"),
    Row("stage{s}.{i}.body.conv{k}", "layer{s}.{i}.conv{k}"),
    Row("stage{s}.{i}.body.norm{k}", "layer{s}.{i}.bn{k}"),
    Row("stage{s}.{i}.skip.conv", "layer{s}.{i}.downsample.0"),
    Row("stage{s}.{i}.skip.norm", "layer{s}.{i}.downsample.1"),
    Row("head.dense", "fc"),
)
AKAMASTER = (*RESNET[:4], Row("head.dense", "linear"))
RESNETV2 = (
    Row("stem.conv", "stem.conv"),
    # The first block's first norm stands before both paths, and is ours of the block.
    Row("stage{s}.{i}.before", "stages.{s-1}.blocks.{i}.norm1"),
    Row("stage{s}.{i}.body.norm{k}", "stages.{s-1}.blocks.{i}.norm{k}"),
    Row("stage{s}.{i}.body.conv{k}", "stages.{s-1}.blocks.{i}.conv{k}"),
    Row("stage{s}.{i}.skip.conv", "stages.{s-1}.blocks.{i}.downsample.conv"),
    Row("norm", "norm"),
    Row("head.dense", "head.fc", ONE_TAP),
)

DENSENET = (
    Row("stem.conv", "features.conv0"),
    Row("stem.norm", "features.norm0"),
    Row("stage{s}.layer{j}.body.norm{k}", "features.denseblock{s}.denselayer{j}.norm{k}"),
    Row("stage{s}.layer{j}.body.conv{k}", "features.denseblock{s}.denselayer{j}.conv{k}"),
    Row("transition{s}.norm1", "features.transition{s}.norm"),
    Row("transition{s}.conv1", "features.transition{s}.conv"),
    Row("norm", "features.norm5"),
    Row("head.dense", "classifier"),
)
ALEXNET = (
    *(Row(f"conv{n}.body", f"features.{at}") for n, at in enumerate((0, 3, 6, 8, 10), 1)),
    Row("head.dense1", "classifier.1", flattened(6)),
    Row("head.dense2", "classifier.4"),
    Row("head.dense", "classifier.6"),
)


def vgg_features(config: Config) -> tuple[Row, ...]:
    """VGG's convolutions and norms are numbered through, ReLUs and poolings included."""
    found, at = [], 0
    norm = config.model.family == "vgg_bn"
    for s, count in enumerate(tuple(config.model.stages) or vgg_stages(config.model.depth), 1):
        for i in range(count):
            found.append(Row(f"stage{s}.{i}.body.conv1", f"features.{at}"))
            found.append(Row(f"stage{s}.{i}.body.norm1", f"features.{at + 1}"))
            at += 3 if norm else 2
        at += 1
    return tuple(found)


def vgg_torchvision(config: Config) -> tuple[Row, ...]:
    """torchvision's: a head of matrices."""
    dense = {"dense1": ("classifier.0", flattened(7)), "dense2": ("classifier.3",)}
    head = [Row(f"head.{ours}", *theirs) for ours, theirs in dense.items()]
    return *vgg_features(config), *head, Row("head.dense", "classifier.6")


def vgg_timm(config: Config) -> tuple[Row, ...]:
    """timm's: the head's hidden layers are convolutions."""
    dense = {"dense1": ("pre_logits.fc1", flattened(7, 4)), "dense2": ("pre_logits.fc2", ONE_TAP)}
    head = [Row(f"head.{ours}", *theirs) for ours, theirs in dense.items()]
    return *vgg_features(config), *head, Row("head.dense", "head.fc")


def vit_torchvision(config: Config) -> tuple[Row, ...]:
    """torchvision's: queries, keys and values are one matrix everywhere, in this order."""
    layer, there = "encoder.{i}", "encoder.layers.encoder_layer_{i}"
    return (
        Row("stem.patches", "conv_proj", flattened(config.model.patch, 4)),
        Row("stem.class_token", "class_token"),
        Row("stem.positions", "encoder.pos_embedding"),
        Row(f"{layer}.attention.body.norm", f"{there}.ln_1"),
        Row(f"{layer}.attention.body.attention.qkv", f"{there}.self_attention.in_proj_"),
        Row(f"{layer}.attention.body.attention.out", f"{there}.self_attention.out_proj"),
        Row(f"{layer}.mlp.body.norm", f"{there}.ln_2"),
        Row(f"{layer}.mlp.body.mlp.dense1", f"{there}.mlp.0"),
        Row(f"{layer}.mlp.body.mlp.dense2", f"{there}.mlp.3"),
        Row("norm", "encoder.ln"),
        Row("head.dense", "heads.head"),
    )


def vit_timm(config: Config) -> tuple[Row, ...]:
    """timm's vit_*_patch*; most of its weights saw pixels of mean and deviation 0.5."""
    layer, there = "encoder.{i}", "blocks.{i}"
    return (
        Row("stem.patches", "patch_embed.proj", flattened(config.model.patch, 4)),
        Row("stem.class_token", "cls_token"),
        Row("stem.positions", "pos_embed"),
        Row(f"{layer}.attention.body.norm", f"{there}.norm1"),
        Row(f"{layer}.attention.body.attention.qkv", f"{there}.attn.qkv"),
        Row(f"{layer}.attention.body.attention.out", f"{there}.attn.proj"),
        Row(f"{layer}.mlp.body.norm", f"{there}.norm2"),
        Row(f"{layer}.mlp.body.mlp.dense{{k}}", f"{there}.mlp.fc{{k}}"),
        Row("norm", "norm"),
        Row("head.dense", "head"),
    )


_RESNETS = ("resnet", "ladder")
_BOTTLENECKS = (*_RESNETS, "wide", "resnext")
_VGGS = ("vgg", "vgg_bn")
_IMAGENET = {
    "model.skip": "B",
    "model.merge": "add",
    "model.gains": (1.0, 1.0),
    "model.stem": "7x7",
    "norm.epsilon": 1e-5,
}
_CIFAR = _IMAGENET | {"model.skip": "A_split", "model.stem": "3x3"}
_V15 = _IMAGENET | {"model.stride_at": "3x3"}
_PLAIN = {"model.skip": "none", "norm.epsilon": 1e-5}
_DENSE = {"model.stem": "7x7", "norm.epsilon": 1e-5}
_VIT = {
    "model.skip": "A",
    "model.merge": "add",
    "model.gains": (1.0, 1.0),
    "norm.kind": "layer",
    "norm.epsilon": 1e-6,
}
# By width: a tensor does not tell how many heads share it out (Ti and S of timm, B, L and H).
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}

TABLES = (
    # torchvision.models.resnet and timm.models.resnet: the same names.
    Table("torchvision", _RESNETS, ("basic",), _IMAGENET, lambda _: RESNET),
    Table("torchvision", _BOTTLENECKS, ("bottleneck",), _V15, lambda _: RESNET),
    Table("torchvision", _VGGS, ("single",), _PLAIN, vgg_torchvision),
    Table("torchvision", ("alexnet",), ("single",), _PLAIN, lambda _: ALEXNET),
    Table("torchvision", ("densenet",), ("bottleneck",), _DENSE, lambda _: DENSENET),
    Table("torchvision", ("vit",), ("transformer",), _VIT, vit_torchvision),
    Table("timm", _RESNETS, ("basic",), _IMAGENET, lambda _: RESNET),
    Table("timm", _BOTTLENECKS, ("bottleneck",), _V15, lambda _: RESNET),
    Table("timm", _VGGS, ("single",), _PLAIN, vgg_timm),
    Table("timm", ("densenet",), ("bottleneck",), _DENSE, lambda _: DENSENET),
    Table("timm", ("vit",), ("transformer",), _VIT, vit_timm),
    # timm.models.resnetv2, resnetv2_50 and deeper. Its basic blocks project where ours keep.
    Table("timm", _RESNETS, ("preact_bottleneck",), _V15, lambda _: RESNETV2),
    # github.com/akamaster/pytorch_resnet_cifar10
    Table("akamaster", _RESNETS, ("basic",), _CIFAR, lambda _: AKAMASTER),
)
NAMES = tuple(dict.fromkeys(table.layout for table in TABLES))


def rows(layout: str, config: Config) -> Sequence[Row]:
    """The names that `layout` gives to the config's network.

    Raises: ValueError for a network that the library has not, or has with other values.
    """
    if layout not in NAMES:
        raise ValueError(f"layout {layout!r} is not one of {', '.join(NAMES)}")
    family, block = config.model.family, config.model.block
    known = [t for t in TABLES if t.layout == layout]
    table = next((t for t in known if family in t.families and block in t.blocks), None)
    if table is None:
        there = dict.fromkeys(f"{f} of {b}" for t in known for f in t.families for b in t.blocks)
        raise ValueError(f"layout {layout} has no {family} of {block} blocks, but {_list(there)}")
    flat = flatten(config)
    values = dict(table.values)
    if family == "vit" and config.model.width in _HEADS:
        values["model.heads"] = _HEADS[config.model.width]
    wrong = [(key, value) for key, value in values.items() if flat[key] != value]
    if wrong:
        raise ValueError(
            f"networks of layout {layout} have {_list(f'{k}={v}, not {flat[k]}' for k, v in wrong)}"
            f"; use {' '.join(f'--config.{k}={v}' for k, v in wrong)}"
        )
    return table.rows(config)


def translate(module: str, leaf: str, rows: Sequence[Row]) -> tuple[str, Form | None]:
    """Their name of the `leaf` of our `module`, and its form if not PLAIN.

    Raises: ValueError where no row fits.
    """
    ours = module if leaf in LEAVES else f"{module}.{leaf}"
    for row in rows:
        found = re.fullmatch(_pattern(row.ours), ours)
        if found:
            theirs = _fill(row.theirs, {k: int(v) for k, v in found.groupdict().items()})
            if leaf in LEAVES:
                theirs += LEAVES[leaf] if theirs.endswith("_") else f".{LEAVES[leaf]}"
            return theirs, row.kernel if leaf == "kernel" else None
    raise ValueError(f"this layout has no place for our {ours}; its networks have no such part")


def stages(names: Sequence[str], rows: Sequence[Row]) -> tuple[int, ...]:
    """Blocks per stage, by the names that a library gives to a network's tensors.

    What is numbered without a stage, a Transformer's layers, is one stage.
    """
    last: dict[int, int] = {}
    for row in rows:
        for name in names if "{i}" in row.theirs else ():
            found = re.match(_pattern(row.theirs) + r"\.", name)
            if found:
                stage = int(found.groupdict().get("s", 1)) + row.theirs.count("{s-1}")
                last[stage] = max(last.get(stage, 0), int(found["i"]))
    return tuple(last[stage] + 1 for stage in sorted(last))


def _pattern(row: str) -> str:
    """A regular expression: `{s}` and `{s-1}` are numbers called s."""
    return re.sub(r"\\\{(\w)(\\-1)?\\\}", r"(?P<\1>\\d+)", re.escape(row))


def _fill(row: str, numbers: Mapping[str, int]) -> str:
    return re.sub(r"\{(\w)(-1)?\}", lambda m: str(numbers[m[1]] - bool(m[2])), row)


def _list(words) -> str:
    return " and ".join(words)
