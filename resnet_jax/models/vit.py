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

Counted by torchvision's networks; any other depth is ours. Depth counts Transformer layers, as the
paper does: each is two blocks and four weighted layers, beside the patches' and the classifier.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.models import transformer
from resnet_jax.models.drop import Dropout
from resnet_jax.models.heads import classifier
from resnet_jax.models.merges import add
from resnet_jax.models.norm import LayerNorm, wide_type
from resnet_jax.models.residual import Chain, Remat, Stack

# Depth -> width, heads and patch of Table 1's network (B, L, H).
SIZES = {12: (768, 12, 16), 24: (1024, 16, 16), 32: (1280, 16, 14)}


class Embedding(nn.Module):
    """An image's patches as tokens behind a class token, each with its place added.

    The convolution of the papers' code, whose size is its stride, is one matrix product here, which
    runs fast in a loop on every backend. A patch is read row by row, channels innermost.

    Shapes: (b, h, w, c) -> (b, 1 + h w / patch^2, width), in `dtype`; `patch` divides h and w.
    Source: Dosovitskiy et al. 2021, eq. 1. Initialised as torchvision's: kernel N(0, 1 / fan-in),
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

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b y"]:
        """Classify."""
        return classifier(self.num_classes, x[:, 0], zero=True)


def vit(
    depth: int,
    *,
    num_classes: int,
    patch: int = 16,
    width: int = 768,
    heads: int = 12,
    dropout: float = 0.0,
    merge: Callable = add,
    survivals: Sequence[float] = (),
    norm: Callable[..., nn.Module] = LayerNorm,
    dtype: Any = jnp.float32,
    remat: Remat = "none",
    unroll: int = 1,
) -> Chain:
    """`depth` Transformer layers of `width` channels on patches of `patch` pixels a side.

    `merge` stands at both blocks of a layer; `plain` is the twin without skip connections.
    `survivals` are the merge's own number for each layer (drop.py).
    """
    layer = transformer.layer(heads, merge=merge, norm=norm, dropout=dropout)
    sides = (tuple(survivals),) if survivals else ()
    return Chain(
        {
            "stem": Embedding(patch, width, dropout, dtype),
            "encoder": Stack(layer, depth, sides=sides, remat=remat, unroll=unroll),
            "norm": norm(),
            "head": TokenHead(num_classes),
        }
    )
