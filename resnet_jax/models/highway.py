"""Highway networks: the gated skip connection of 2015, and a plain twin of as many parameters.

    x' = (1 - T(x)) x + T(x) H(x),   H = relu(W x + b),   T = sigmoid(W_T x + b_T)

Srivastava, Greff & Schmidhuber 2015 (arXiv:1505.00387, 1507.06228). A gate doubles a layer's
parameters, so that the plain twin is wider: 71 units where the highway has 50, about 5,000
parameters a layer in both (1505.00387, sec. 3). Its layers without gates are wider too, so that the
whole has some percent more.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.models import bodies
from resnet_jax.models.conv import Conv
from resnet_jax.models.heads import HE, Head, classifier
from resnet_jax.models.merges import plain
from resnet_jax.models.norm import NoNorm, wide_type
from resnet_jax.models.residual import Chain, Remat, Residual, Stack


class Dense(nn.Module):
    """H(x) = relu(W x + b) of vectors: (b, c) -> (b, width)."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b d"]:
        """H(x)."""
        dense = nn.Dense(
            self.width, kernel_init=HE, dtype=x.dtype, param_dtype=wide_type(x), name="dense"
        )
        return nn.relu(dense(x))


class Flatten(nn.Module):
    """(b, h, w, c) -> (b, h w c), in `dtype`."""

    dtype: Any = jnp.float32

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b n"]:
        """One vector an image."""
        return x.reshape(x.shape[0], -1).astype(self.dtype)


class Classifier(nn.Module):
    """The softmax layer's logits: (b, c) -> (b, y)."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b y"]:
        """Classify."""
        return classifier(self.num_classes, x)


def plain_width(width: int, taps: int = 1) -> int:
    """The plain twin's width: v with taps v^2 + v nearest to 2 (taps w^2 + w)."""
    wanted = 2 * (taps * width**2 + width)
    return round((math.sqrt(1 + 4 * taps * wanted) - 1) / (2 * taps))


def dense_highway(
    depth: int,
    *,
    num_classes: int,
    merge: Callable | None,
    width: int = 50,
    dtype: Any = jnp.float32,
    remat: Remat = "none",
    unroll: int = 1,
) -> Chain:
    """A plain first layer and `depth` - 1 highway layers of `width` units, then the classifier.

    The classifier is not counted in `depth`, as in 1505.00387, Fig. 1. `merge=None` is the plain
    twin.
    """
    width = plain_width(width) if merge is None else width
    layer = Residual(Dense(width), merge=merge or plain)
    blocks: dict[str, nn.Module] = {
        "flatten": Flatten(dtype),
        "first": Residual(Dense(width), merge=plain),
        "layers": Stack(layer, depth - 1, remat=remat, unroll=unroll),
        "head": Classifier(num_classes),
    }
    return Chain(blocks)


def conv_highway(
    stages: Sequence[int],
    *,
    num_classes: int,
    merge: Callable | None,
    width: int = 16,
    conv: Callable[..., nn.Module] = Conv,
    norm: Callable[..., nn.Module] = NoNorm,
    remat: Remat = "none",
    unroll: int = 1,
) -> Chain:
    """Stages of `stages[i]` 3x3 layers, the first of each plain: it brings image and width to size.

    `width` 2^i maps in stage i. `merge=None` is the plain twin. The layers of 1507.06228, sec. 3.2,
    on the stages of a CIFAR ResNet; its own networks, FitNet's, shrink by pooling.
    """
    width = plain_width(width, 9) if merge is None else width
    body = lambda out, stride: bodies.PostActivation(
        bodies.single(out, stride), end="relu", conv=conv, norm=norm
    )
    blocks: dict[str, nn.Module] = {}
    for i, count in enumerate(stages):
        out = width * 2**i
        first = Residual(body(out, 1 if i == 0 else 2), merge=plain)
        blocks[f"stage{i + 1}_first"] = first
        if count > 1:
            rest = Residual(body(out, 1), merge=merge or plain)
            blocks[f"stage{i + 1}"] = Stack(rest, count - 1, remat=remat, unroll=unroll)
    blocks["head"] = Head(num_classes)
    return Chain(blocks)


def highway_stages(depth: int) -> tuple[int, ...]:
    """The convolutions of a conv highway in three stages, the remainder to the earliest."""
    if depth < 4:
        raise ValueError(f"depth {depth} is no convolutional highway of 4 or more; nearest 4 and 5")
    each, rest = divmod(depth - 1, 3)
    return tuple(each + (i < rest) for i in range(3))
