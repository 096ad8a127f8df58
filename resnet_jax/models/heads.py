"""Heads, which turn features into logits, and the pooling between stages."""

import math
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.models.dense import classifier
from resnet_jax.models.dropout import Dropout
from resnet_jax.models.dtypes import wide_type


def adaptive_average(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b s s c"]:
    """Return the average of an image of any size over `size` x `size` windows.

    Along an axis of n pixels, window i holds the pixels floor(i n / size) to
    ceil((i + 1) n / size) - 1. Windows overlap if `size` does not divide n.
    """
    if x.shape[1:3] == (size, size):
        return x
    rows, columns = (jnp.asarray(_average(n, size), x.dtype) for n in x.shape[1:3])
    return jnp.einsum("ph,bhwc,qw->bpqc", rows, x, columns)


def _average(n: int, size: int) -> np.ndarray:
    """Return the (size, n) matrix that averages one axis of n pixels."""
    matrix = np.zeros((size, n))
    for i in range(size):
        window = slice(i * n // size, math.ceil((i + 1) * n / size))
        matrix[i, window] = 1 / (window.stop - window.start)
    return matrix


class Mean(nn.Module):
    """Global average pooling: (b, h, w, c) -> (b, c)."""

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
        """Return the mean over the image."""
        return x.mean((1, 2))


class Head(nn.Module):
    """Global average pooling and the classifier, which starts at zero if `zero` (Fixup).

    Shapes: (b, h, w, c) -> (b, y) logits in float32 (float64 if x is).
    """

    num_outputs: int
    zero: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y"]:
        """Classify."""
        return classifier(self.num_outputs, x.mean((1, 2)), self.zero)


class DenseHead(nn.Module):
    """Hidden dense layers and the classifier on all features: LeNet's, AlexNet's and VGG's head.

    If `pool` is given, the image is first averaged to `pool` x `pool`, as in torchvision, so that
    the network takes images of any size. The image is then flattened row by row, with the channels
    innermost. Kernels of hidden layers start from N(0, variance / fan-in). Dropout follows each
    hidden layer, or precedes it if `drop_first` (AlexNet).

    Shapes: (b, h, w, c) -> (b, y) logits in float32 (float64 if x is).
    """

    hidden: tuple[int, ...]
    num_outputs: int
    pool: int | None = None
    dropout: float = 0.0
    drop_first: bool = False
    activation: Callable = nn.relu
    variance: float = 2.0

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y"]:
        """Classify."""
        x = x if self.pool is None else adaptive_average(x, self.pool)
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.hidden, 1):
            x = Dropout(self.dropout)(x) if self.drop_first else x
            start = nn.initializers.variance_scaling(self.variance, "fan_in", "normal")
            dense = nn.Dense(
                width, kernel_init=start, dtype=x.dtype, param_dtype=wide_type(x), name=f"dense{i}"
            )
            x = self.activation(dense(x))
            x = x if self.drop_first else Dropout(self.dropout)(x)
        return classifier(self.num_outputs, x)


class Pool(nn.Module):
    """The maximum or the mean over windows of `size` x `size`.

    `padding` pixels are added on each side; they are never the maximum and count as zeros in a
    mean. Pixels at the end that do not fill a window are left out.

    Shapes: (b, h, w, c) -> (b, p, q, c).
    """

    size: int = 2
    stride: int = 2
    padding: int = 0
    kind: Literal["max", "mean"] = "max"

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b p q c"]:
        """Pool `x`."""
        start, reduce = (-jnp.inf, lax.max) if self.kind == "max" else (0.0, lax.add)
        window, strides, ends = (self.size,) * 2, (self.stride,) * 2, (self.padding,) * 2
        y = nn.pool(x, start, reduce, window, strides, (ends, ends))
        return y if self.kind == "max" else y / jnp.asarray(self.size**2, x.dtype)
