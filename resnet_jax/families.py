"""From a config to a network: what each family is made of, and what follows from its name.

`FAMILIES` is the table: a family's builder reads the config and returns a value, nothing is
computed yet; `choose` sets the keys that a config's argument leaves open, given the block it names,
if any.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models import alexnet, densenet, drop, highway, lenet, resnet, vgg, vit
from resnet_jax.models.conv import Conv
from resnet_jax.models.merges import Gated, Scaled, add, plain
from resnet_jax.models.norm import BatchNorm, GroupNorm, LayerNorm, NoNorm, nearest_divisor
from resnet_jax.models.residual import Chain

SKIPS = ("none", "A", "B", "C", "A_split")
GATES = ("exclusive_gate", "shortcut_gate", "two_gate")
MERGES = ("add", "rezero", *GATES, *drop.FORMS)
NORMS = ("batch", "group", "layer", "none")

# Layers of the deepest network; of one that holds each layer's survival, which flax takes its time
# to walk along; and of one whose program holds each layer: He et al. 2015's deepest.
DEEPEST, SURVIVING, WRITTEN_OUT = 1_000_000, 20_000, 1202
# Stages of the longest network: no image has sides of 2^32 pixels to be halved more often.
STAGES = 32

# Keys of config.model that do something in some networks alone: the merge's and skip's, a
# Transformer's, the rest.
OF_SKIP = ("gains", "gate_bias", "carry_bias", "survival", "survival_rule", "skip_dropout")
OF_TOKENS = ("patch", "heads")
OPTIONAL = (
    *(*OF_SKIP, *OF_TOKENS),
    *("stages", "widen", "cardinality", "growth", "dropout", "zero_init"),
)


class Family(NamedTuple):
    """Networks that differ in depth and in the values of their config."""

    build: Callable[[Any, str | None], Chain]  # of the config and the batch's mesh axis
    choose: Callable[[Any, str | None], None]
    depth: int  # of an argument that names the family and no depth, on small images
    blocks: tuple[str, ...]
    skips: tuple[str, ...] = SKIPS
    merges: tuple[str, ...] = MERGES
    uses: tuple[str, ...] = ()  # of OPTIONAL, beside what its merge uses
    norms: tuple[str, ...] = NORMS
    plain: bool = False  # published without skip connections


def build(config: Any, axis: str | None = None) -> Chain:
    """The config's network, a value: nothing is computed yet.

    `axis` names the mesh axis whose devices share a batch, where there are several: groups of batch
    norm that span devices communicate over it. Nothing else of a network knows of devices.

    Raises: ValueError for a depth that does not exist, an image too small for the strides, a block,
        skip, merge or norm that the family has not, or a network that no gradient passes.
    """
    model = config.model
    family = FAMILIES[model.family]
    for key, value, known in (
        ("model.block", model.block, family.blocks),
        ("model.skip", model.skip, family.skips),
        ("model.merge", model.merge, family.merges),
        ("norm.kind", config.norm.kind, ("none",) if model.block == "dense" else family.norms),
    ):
        if value not in known:
            raise ValueError(
                f"{key}={value!r} is not of the family {model.family}, which has "
                + f"{', '.join(known)}; families are chosen by the config's argument, "
                + f"configs/NAME.py:family={model.family}"
            )
    most, of = deepest(config)
    if model.depth > most:
        raise ValueError(f"model.depth={model.depth} is more than {most}, the most layers of {of}")
    if model.block.startswith("fixup") and config.norm.kind in ("group", "layer"):
        raise ValueError(
            f"norm.kind={config.norm.kind} changes nothing in model.block={model.block}, which has "
            "no norms; leave it at batch, or none"
        )
    starts_at_zero = model.zero_init or model.block.startswith("fixup")
    if model.skip == "none" and starts_at_zero:
        key = "model.zero_init" if model.zero_init else f"model.block={model.block}"
        raise ValueError(
            f"model.skip=none with {key}: without a skip connection bodies that start at zero "
            "pass nothing on and learn nothing; use another of the two"
        )
    return family.build(config, axis)


def deepest(config: Any) -> tuple[int, str]:
    """The most layers that the config's network may have, all else equal, and of what it is so."""
    model = config.model
    if model.family == "densenet":
        return WRITTEN_OUT, "a densenet, whose program holds each of them"
    if config.unroll > WRITTEN_OUT:
        return WRITTEN_OUT, f"a program that holds each of them (unroll={config.unroll})"
    if model.merge in drop.FORMS:
        return SURVIVING, f"a network with a survival for each (model.merge={model.merge})"
    return DEEPEST, "any network"


def used(config: Any) -> set[str]:
    """The keys of OPTIONAL that do something in the config's network.

    A plain twin keeps those of its merge and skip: it differs from its residual net in one value.
    """
    model = config.model
    keys = set(FAMILIES[model.family].uses)
    form, shape = resnet.form_and_shape(model.block)
    if shape != "bottleneck":
        keys -= {"cardinality"}
    if form == "fixup":
        keys -= {"zero_init"}
    if model.skip == "none":
        return keys | set(OF_SKIP)
    of_merge = {"add": ("gains",), "two_gate": ("gate_bias", "carry_bias")}
    of_merge |= {gate: ("gate_bias",) for gate in GATES[:2]}
    of_merge |= {form: ("survival", "survival_rule") for form in drop.FORMS}
    return keys | set(of_merge.get(model.merge, ()))


def image_size(config: Any) -> int:
    """Pixels of an image's shorter side."""
    return min(config.data.shape[:2])


def _common(config: Any, axis: str | None) -> dict[str, Any]:
    """The keywords of every builder: its classes and how its layers are made."""
    kind = config.norm.kind
    norm: Callable[..., nn.Module] = NoNorm
    if kind == "batch":
        norm = functools.partial(
            BatchNorm,
            group_size=config.norm.group_size,
            momentum=config.norm.momentum,
            epsilon=config.norm.epsilon,
            axis=axis,
        )
    elif kind in ("group", "layer"):
        groups = 1 if kind == "layer" else config.norm.groups
        norm = functools.partial(GroupNorm, groups=groups, epsilon=config.norm.epsilon)
    bare = kind == "none"
    conv = functools.partial(
        Conv, dtype=jnp.dtype(config.dtype), bias=bare, fan="in" if bare else "out"
    )
    return {"num_classes": config.model.num_classes, "conv": conv, "norm": norm}


def _loops(config: Any) -> dict[str, Any]:
    """The keywords of a builder that has Stacks."""
    remat = config.remat
    if remat == "auto":
        remat = "block" if jax.default_backend() == "cpu" else "none"
    return {"remat": remat, "unroll": config.unroll}


def merge(config: Any, conv: Callable[..., nn.Module], size: int) -> Callable:
    """The config's merge; the gates of images are `size` x `size` convolutions."""
    model = config.model
    gate = functools.partial(Gated, transform_bias=model.gate_bias, size=size, conv=conv)
    if model.merge == "add":
        gains = tuple(model.gains)
        return add if gains == (1.0, 1.0) else Scaled(*gains)
    if model.merge in drop.FORMS:
        return drop.FORMS[model.merge]
    return {
        "rezero": lambda: Scaled(1.0, 0.0, learned=True),
        "exclusive_gate": gate,
        "shortcut_gate": lambda: gate(transform=False),
        "two_gate": lambda: gate(carry_bias=model.carry_bias),
    }[model.merge]()


def _survivals(config: Any, blocks: int) -> tuple[float, ...]:
    """The survivals of `blocks` blocks; empty where the merge drops none."""
    model = config.model
    if model.merge not in drop.FORMS or model.skip == "none":
        return ()
    return drop.survivals(model.survival_rule, model.survival, blocks)


# --- residual networks, wide and with groups


def _resnet(config: Any, axis: str | None) -> Chain:
    model, image, common = config.model, image_size(config), _common(config, axis)
    small = image < resnet.SMALL
    # A Wide ResNet's name counts the two projections of a small net beside its 6n+2.
    extra = 4 if model.family == "wide" and small else 2
    stages = _given_stages(config, resnet.SHAPES[resnet.form_and_shape(model.block)[1]], extra)
    if not stages and model.family == "ladder":
        stages = resnet.ladder_stages(model.depth, image)
    elif not stages:
        stages = resnet.resnet_stages(model.depth, model.block, image, extra)
    _check_strides(config, len(stages))
    if model.zero_init and config.norm.kind == "none":
        raise ValueError(
            "model.zero_init zeroes a norm's scale and norm.kind=none has none; "
            "use model.merge=rezero"
        )
    return resnet.resnet(
        stages,
        block=model.block,
        skip=model.skip,
        width=model.width,
        widen=model.widen,
        groups=model.cardinality,
        stem=model.stem,
        stride_at=model.stride_at,
        merge=merge(config, common["conv"], size=1),
        survivals=_survivals(config, sum(stages)),
        skip_dropout=model.skip_dropout,
        zero=model.zero_init,
        **common,
        **_loops(config),
    )


def _given_stages(config: Any, layers: int, extra: int) -> tuple[int, ...]:
    """model.stages, of blocks of `layers` weighted layers beside `extra`; empty where not given.

    Raises: ValueError where that is not model.depth.
    """
    model = config.model
    stages = tuple(model.stages)
    if len(stages) > STAGES:
        raise ValueError(f"model.stages holds {len(stages)} stages; at most {STAGES}")
    depth = layers * sum(stages) + extra
    if stages and depth != model.depth:
        raise ValueError(
            f"model.stages={stages} of {model.block} blocks has {depth} layers, "
            f"not model.depth={model.depth}; set model.depth={depth}"
        )
    return stages


def _check_strides(config: Any, stages: int) -> None:
    stem, image = config.model.stem, image_size(config)
    strides = 2 ** (stages - 1) * (4 if stem == "7x7" else 1)
    if image < strides:
        raise ValueError(
            f"images of {config.data.shape[0]}x{config.data.shape[1]} are too small for "
            f"{stages} stages behind a {stem} stem, which need {strides} pixels a side"
            + ("; use model.stem=3x3" if stem == "7x7" else "")
        )


def _choose_resnet(config: Any, block: str | None) -> None:
    """Basic where the depth allows it, else bottleneck; A for basic on small images, else B."""
    model, image = config.model, image_size(config)
    model.block = block or resnet.default_block(model.family, model.depth, image)
    model.skip = resnet.default_skip(model.block, image)


def _choose_wide(config: Any, block: str | None) -> None:
    """WRN-d-10 of pre-activation basic blocks; WRN-50-2 of torchvision on large images."""
    model, small = config.model, image_size(config) < resnet.SMALL
    model.block, model.skip = block or ("preact_basic" if small else "bottleneck"), "B"
    model.widen, model.stride_at = (10 if small else 2), "3x3"


def _choose_resnext(config: Any, block: str | None) -> None:
    """8x64d on small images (sec. 5.3), 32x4d on large ones (Table 1)."""
    model, small = config.model, image_size(config) < resnet.SMALL
    model.block, model.skip = block or "bottleneck", "B"
    model.width, model.stride_at = 64, "3x3"
    model.cardinality, model.widen = (8, 8) if small else (32, 2)


# --- before


def _vgg(config: Any, axis: str | None) -> Chain:
    model, image, common = config.model, image_size(config), _common(config, axis)
    small = image < resnet.SMALL
    return vgg.vgg(
        _given_stages(config, 1, 3) or vgg.vgg_stages(model.depth),
        image=image,
        skip=model.skip,
        width=model.width,
        hidden=_hidden(config),
        pool=1 if small else 7,
        dropout=model.dropout,
        merge=merge(config, common["conv"], size=3),
        **common,
        **_loops(config),
    )


def _hidden(config: Any) -> int:
    """Units of VGG's and AlexNet's hidden layers: the papers' 4096 where width is 64.

    On small images 512: more would be nearly all of the network's parameters.
    """
    return config.model.width * (8 if image_size(config) < resnet.SMALL else 64)


def _choose_vgg(config: Any, block: str | None) -> None:
    """No skip, as published; the norm by the family's name."""
    model = config.model
    model.block, model.skip, model.width, model.dropout = block or "single", "none", 64, 0.5
    config.norm.kind = "batch" if model.family == "vgg_bn" else "none"


def _lenet(config: Any, axis: str | None) -> Chain:
    _check_fixed(config, lenet.DEPTH, lenet.SMALLEST)
    common = _common(config, axis)
    return lenet.lenet(
        num_classes=common["num_classes"], image=image_size(config), conv=common["conv"]
    )


def _alexnet(config: Any, axis: str | None) -> Chain:
    _check_fixed(config, alexnet.DEPTH, alexnet.SMALLEST)
    model, image, common = config.model, image_size(config), _common(config, axis)
    return alexnet.alexnet(
        num_classes=common["num_classes"],
        image=image,
        width=model.width,
        hidden=_hidden(config),
        dropout=model.dropout,
        conv=common["conv"],
    )


def _check_fixed(config: Any, depth: int, smallest: int) -> None:
    model, image = config.model, image_size(config)
    if model.depth != depth:
        raise ValueError(f"depth {model.depth} is no {model.family}, which has {depth} layers")
    if image < smallest:
        raise ValueError(
            f"images of {config.data.shape[0]}x{config.data.shape[1]} are too small for "
            f"{model.family}, which needs {smallest} pixels a side"
        )


def _choose_fixed(config: Any, block: str | None) -> None:
    """One network: plain, without norms."""
    model = config.model
    model.block, model.skip, config.norm.kind = block or "single", "none", "none"
    if model.family == "alexnet":
        model.width, model.dropout = 64, 0.5


# --- beside and after


def _highway(config: Any, axis: str | None) -> Chain:
    model, common = config.model, _common(config, axis)
    meet = None if model.skip == "none" else merge(config, common["conv"], size=3)
    options = {"merge": meet, "width": model.width, **_loops(config)}
    if model.block == "dense":
        if model.depth < 2:
            raise ValueError(f"depth {model.depth} is no highway of 2 or more; nearest 2 and 3")
        options |= {"num_classes": common["num_classes"], "dtype": jnp.dtype(config.dtype)}
        return highway.dense_highway(model.depth, **options)
    _check_strides(config, 3)
    return highway.conv_highway(highway.highway_stages(model.depth), **common, **options)


def _choose_highway(config: Any, block: str | None) -> None:
    """Convolutions of 16 maps, or 50 dense units, and a coupled gate that starts as carry."""
    model = config.model
    model.block, model.skip, model.merge = block or "single", "A", "exclusive_gate"
    model.width = 50 if block == "dense" else model.width
    model.gate_bias, model.carry_bias, config.norm.kind = -2.0, 2.0, "none"


def _densenet(config: Any, axis: str | None) -> Chain:
    model = config.model
    bottleneck = model.block == "bottleneck"
    given = _given_stages(config, 2 if bottleneck else 1, len(model.stages) + 1)
    stages = given or densenet.densenet_stages(model.depth, bottleneck, image_size(config))
    _check_strides(config, len(stages))
    return densenet.densenet(
        stages,
        growth=model.growth,
        bottleneck=bottleneck,
        stem=model.stem,
        dropout=model.dropout,
        **_common(config, axis),
    )


def _choose_densenet(config: Any, block: str | None) -> None:
    """DenseNet (L, 12), or on large images DenseNet-BC of growth 32, 48 of 161 layers.

    On small images BC where the depth is 6n+4 and not 40, which the paper has without.
    """
    model, large = config.model, image_size(config) >= resnet.SMALL
    bottleneck = large or ((model.depth - 4) % 6 == 0 and model.depth != 40)
    model.block = block or ("bottleneck" if bottleneck else "basic")
    model.skip, model.merge = "A", "concat"
    model.growth = (48 if model.depth == 161 else 32) if large else 12


def _vit(config: Any, axis: str | None) -> Chain:
    del axis  # its norms see one token at a time
    model = config.model
    if model.depth < 1:
        raise ValueError(
            f"depth {model.depth} is no Vision Transformer of 1 or more; nearest 1 and 2"
        )
    high, wide = config.data.shape[:2]
    _check_divides("patch", math.gcd(high, wide), f"images of {high}x{wide} pixels", config)
    _check_divides("heads", model.width, f"model.width={model.width}", config)
    norm = functools.partial(LayerNorm, epsilon=config.norm.epsilon)
    return vit.vit(
        model.depth,
        num_classes=model.num_classes,
        patch=model.patch,
        width=model.width,
        heads=model.heads,
        dropout=model.dropout,
        merge=plain if model.skip == "none" else merge(config, Conv, size=1),
        survivals=_survivals(config, model.depth),
        norm=NoNorm if config.norm.kind == "none" else norm,
        dtype=jnp.dtype(config.dtype),
        **_loops(config),
    )


def _check_divides(key: str, whole: int, what: str, config: Any) -> None:
    given = config.model[key]
    if whole % given:
        near = nearest_divisor(whole, given)
        raise ValueError(f"model.{key}={given} does not divide {what}; nearest that does: {near}")


def _choose_vit(config: Any, block: str | None) -> None:
    """ViT-B, L or H by the depth, B at another; 64 channels on small images, in patches of 4 or 2.

    norm.kind=layer is over each token's channels.
    """
    model, image = config.model, image_size(config)
    model.block, model.skip, model.merge = block or "transformer", "A", "add"
    model.width, model.heads, model.patch = vit.SIZES.get(model.depth, vit.SIZES[12])
    if image < resnet.SMALL:
        model.width, model.heads, model.patch = 64, 4, (4 if image >= 16 else 2)
    config.norm.kind, config.norm.epsilon = "layer", 1e-6


def _ending(*shapes: str) -> tuple[str, ...]:
    return tuple(b for b in resnet.BLOCKS if resnet.form_and_shape(b)[1] in shapes)


_RESIDUAL = ("stages", "skip_dropout", "widen", "cardinality", "zero_init")
_PLAIN = {"skips": ("none",), "merges": ("add",), "norms": ("none",), "plain": True}
_VGG = {
    "skips": ("none", "A", "B"),
    "merges": ("add", "rezero", *GATES),
    "uses": ("stages", "dropout"),
    "plain": True,
}
FAMILIES = {
    "resnet": Family(_resnet, _choose_resnet, 20, resnet.BLOCKS, uses=_RESIDUAL),
    "ladder": Family(_resnet, _choose_resnet, 18, _ending("basic"), uses=_RESIDUAL),
    "wide": Family(_resnet, _choose_wide, 28, _ending("basic", "bottleneck"), uses=_RESIDUAL),
    "resnext": Family(_resnet, _choose_resnext, 29, _ending("bottleneck"), uses=_RESIDUAL),
    "vgg": Family(_vgg, _choose_vgg, 11, ("single",), **_VGG),
    "vgg_bn": Family(_vgg, _choose_vgg, 11, ("single",), **_VGG),
    "lenet": Family(_lenet, _choose_fixed, lenet.DEPTH, ("single",), **_PLAIN),
    "alexnet": Family(
        _alexnet, _choose_fixed, alexnet.DEPTH, ("single",), uses=("dropout",), **_PLAIN
    ),
    "highway": Family(
        _highway, _choose_highway, 19, ("single", "dense"), ("none", "A"), ("add", *GATES)
    ),
    "densenet": Family(
        _densenet,
        _choose_densenet,
        40,
        ("basic", "bottleneck"),
        ("A",),
        ("concat",),
        uses=("stages", "growth", "dropout"),
    ),
    "vit": Family(
        _vit,
        _choose_vit,
        12,
        ("transformer",),
        ("none", "A"),
        uses=(*OF_TOKENS, "dropout"),
        norms=("layer", "none"),
    ),
}
