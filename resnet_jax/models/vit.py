"""Vision Transformer: an image as a row of patches, and a Transformer on it.

    x_0 = [class; patch_1 E + b; ...; patch_n E + b] + positions        eq. 1
    x_l = layer_l(x_l-1),  l = 1 .. depth                               eq. 2-3, transformer.py
    y   = norm(x_depth)[class] W + b                                    eq. 4

Dosovitskiy et al. 2021 (arXiv:2010.11929), Table 1; images of 224x224, 1000 classes:

| net | depth | width | heads | patch | parameters |
|---|---|---|---|---|---|
| ViT-B/16 | 12 | 768 | 12 | 16 | 86,567,656 |
| ViT-B/32 | 12 | 768 | 12 | 32 | 88,224,232 |
| ViT-L/16 | 24 | 1024 | 16 | 16 | 304,326,632 |
| ViT-L/32 | 24 | 1024 | 16 | 32 | 306,535,400 |
| ViT-H/14 | 32 | 1280 | 16 | 14 | 632,045,800 |

The parameters are counted from torchvision's networks; any other depth is ours. Depth counts
Transformer layers, as the paper does: each of them is two blocks and four weighted layers. The
embedding of the patches and the classifier are two more weighted layers.

Differs: while it is trained before fine-tuning, the paper's network has a hidden layer with tanh
before the classifier (sec. 3.1), which this network never has. With `merge=drop_path`,
`model.survival_rule=linspace` gives the rates of timm's networks.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.keys import FRACTION, POSITIVE, Config, Key, Part, default, nearest_divisor
from resnet_jax.models import transformer
from resnet_jax.models.dropout import Dropout
from resnet_jax.models.dtypes import wide_type
from resnet_jax.models.family import SMALL, Family, Layers, side, switches
from resnet_jax.models.heads import classifier
from resnet_jax.models.layout import Layout, Row, flattened
from resnet_jax.models.merges import RESIDUAL_MERGES, add, plain
from resnet_jax.models.norm import LayerNorm, NoNorm
from resnet_jax.models.residual import Chain, Remat, Stack

# Width, heads and patch of the networks in Table 1 (B, L, H), by depth.
SIZES = {12: (768, 12, 16), 24: (1024, 16, 16), 32: (1280, 16, 14)}


class Embedding(nn.Module):
    """An image's patches as tokens behind a class token, with the positions added.

    The papers' code cuts the image by a convolution whose size is its stride. Here that is a matrix
    product, which runs fast in a loop on every backend. A patch is read row by row, with the
    channels innermost.

    Shapes: (b, h, w, c) -> (b, 1 + h w / patch^2, width), in `dtype`; `patch` divides h and w.
    Source: Dosovitskiy et al. 2021, eq. 1. Initialised like torchvision's: kernel N(0, 1 / fan-in),
    class token zero, positions N(0, 0.02^2).
    """

    patch: int
    width: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b t d"]:
        """Cut and embed `x`."""
        b, h, w, c = x.shape
        rows, columns = h // self.patch, w // self.patch
        x = x.astype(self.dtype).reshape(b, rows, self.patch, columns, self.patch, c)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * columns, -1)
        start = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        x = transformer.dense(self.width, x, "patches", start)(x)
        learned = lambda name, init, t: self.param(
            name, init, (1, t, self.width), wide_type(x)
        ).astype(x.dtype)
        token = learned("class_token", nn.initializers.zeros, 1)
        x = jnp.concatenate((jnp.broadcast_to(token, (b, 1, self.width)), x), 1)
        return Dropout(self.dropout)(
            x + learned("positions", nn.initializers.normal(0.02), x.shape[1])
        )


class TokenHead(nn.Module):
    """The classifier on the first token: (b, t, c) -> (b, y) logits in float32; starts at zero."""

    num_outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b y"]:
        """Classify."""
        return classifier(self.num_outputs, x[:, 0], zero=True)


def vit(
    depth: int,
    *,
    num_outputs: int,
    patch: int = 16,
    width: int = 768,
    heads: int = 12,
    dropout: float = 0.0,
    merge: Callable = add,
    per_layer: Mapping[str, Sequence[float]] | None = None,
    norm: Callable[..., nn.Module] = LayerNorm,
    dtype: Any = jnp.float32,
    remat: Remat = "none",
    unroll: int = 1,
) -> Chain:
    """Return `depth` Transformer layers of `width` channels on patches of `patch` pixels a side.

    Both blocks of a layer use `merge`; `plain` gives the twin without skip connections. `per_layer`
    has the merge's inputs that differ from layer to layer, by name: a number for each layer.
    """
    layer = transformer.layer(heads, merge=merge, norm=norm, dropout=dropout)
    numbers = {name: tuple(values) for name, values in (per_layer or {}).items()}
    return Chain(
        {
            "stem": Embedding(patch, width, dropout, dtype),
            "encoder": Stack(layer, depth, per_layer=numbers, remat=remat, unroll=unroll),
            "norm": norm(),
            "head": TokenHead(num_outputs),
        }
    )


def build(config: Config, layers: Layers) -> Chain:
    """Return the config's network.

    Raises: ValueError if the patch does not divide the image or the heads do not divide the width.
    """
    model = config.model
    if model.depth < 1:
        raise ValueError(
            f"depth {model.depth} is no Vision Transformer of 1 or more; nearest 1 and 2"
        )
    high, wide = layers.shape[:2]
    _check_divides("patch", math.gcd(high, wide), f"images of {high}x{wide} pixels", config)
    _check_divides("heads", model.width, f"model.width={model.width}", config)
    norm: Callable[..., nn.Module] = NoNorm
    if config.norm.kind == "layer":
        norm = functools.partial(LayerNorm, epsilon=config.norm.epsilon)
    plain_twin = model.skip == "none"
    return vit(
        model.depth,
        num_outputs=layers.num_outputs,
        patch=model.patch,
        width=model.width,
        heads=model.heads,
        dropout=model.dropout,
        merge=plain if plain_twin else layers.merge(1, layers.conv),
        per_layer=None if plain_twin else layers.per_layer(model.depth),
        norm=norm,
        dtype=layers.dtype,
        **layers.loop,
    )


def _check_divides(key: str, whole: int, name: str, config: Config) -> None:
    value = config.model[key]
    if whole % value:
        near = nearest_divisor(whole, value)
        raise ValueError(f"model.{key}={value} does not divide {name}; nearest that does: {near}")


def preset(depth: int, block: str | None, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return ViT-B, L or H by the depth, and B's sizes at another depth.

    On small images it is 64 channels, in patches of 4 or 2 pixels (ours).
    """
    width, heads, patch = SIZES.get(depth, SIZES[12])
    if side(shape) < SMALL:
        width, heads, patch = 64, 4, (4 if side(shape) >= 16 else 2)
    return {
        "model.width": width,
        "model.heads": heads,
        "model.patch": patch,
        "norm.epsilon": LayerNorm.epsilon,
    }


def _torchvision(config: Config) -> tuple[Row, ...]:
    """Queries, keys and values are one matrix in both libraries, in this order."""
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


def _timm(config: Config) -> tuple[Row, ...]:
    """The networks vit_*_patch*; most of timm's weights saw pixels of mean and deviation 0.5."""
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


# By width: a tensor does not tell how many heads share it (Ti and S of timm; B, L and H).
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}


def _values(config: Config) -> dict[str, Any]:
    values: dict[str, Any] = {
        "model.skip": "A",
        "model.merge": "add",
        "model.gains": (1.0, 1.0),
        "norm.kind": "layer",
        "norm.epsilon": 1e-6,
    }
    width = config.model.width
    return values | ({"model.heads": _HEADS[width]} if width in _HEADS else {})


_OLD_NAMES = ((r"\.mlp\.linear_1\.", ".mlp.0."), (r"\.mlp\.linear_2\.", ".mlp.3."))

FAMILY = Family(
    "Vision Transformers",
    build=build,
    keys={
        "model.width": Key(default(vit, "width"), POSITIVE, "channels of every token"),
        "model.patch": Key(default(vit, "patch"), POSITIVE, "pixels on each side of a patch"),
        "model.heads": Key(default(vit, "heads"), POSITIVE, "heads of attention; divide the width"),
        "model.dropout": Key(
            default(vit, "dropout"), FRACTION, "rate of dropout after dense layers"
        ),
    },
    switches=switches(
        {"transformer": Part("attention, then a perceptron of each token")},
        skips=("A", "none"),
        merges=RESIDUAL_MERGES,
        norms=("layer", "none"),
    ),
    preset=preset,
    depth=12,
    layouts=(
        # The files that torchvision distributes have older names.
        Layout("torchvision", ("transformer",), _values, _torchvision, old=_OLD_NAMES),
        Layout("timm", ("transformer",), _values, _timm),
    ),
)
