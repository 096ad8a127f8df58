"""What turns features into logits, and the pooling between stages."""

import math
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.models.drop import Dropout
from resnet_jax.models.norm import wide_type

# Of layers that a ReLU follows: He et al. 2015, arXiv:1502.01852, eq. 10.
HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Head(nn.Module):
    """Global average pooling and the classifier: (b, h, w, c) -> (b, y) logits in float32.

    `zero`: the classifier starts at zero (Fixup).
    """

    num_classes: int
    zero: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y"]:
        """Classify."""
        return classifier(self.num_classes, x.mean((1, 2)), self.zero)


class DenseHead(nn.Module):
    """Hidden layers and the classifier on all features: LeNet's, AlexNet's and VGG's head.

    The image is averaged to `pool` x `pool` first where that is given (as torchvision does, so that
    a network takes any image), and flattened row by row, channels innermost. Dropout follows each
    hidden layer, or comes before it where `drop_first` (AlexNet).

    Shapes: (b, h, w, c) -> (b, y) logits in float32.
    """

    hidden: tuple[int, ...]
    num_classes: int
    pool: int | None = None
    dropout: float = 0.0
    drop_first: bool = False
    activation: Callable = nn.relu

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y"]:
        """Classify."""
        x = x if self.pool is None else adaptive_average(x, self.pool)
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.hidden, 1):
            x = Dropout(self.dropout)(x) if self.drop_first else x
            dense = nn.Dense(
                width, kernel_init=HE, dtype=x.dtype, param_dtype=wide_type(x), name=f"dense{i}"
            )
            x = self.activation(dense(x))
            x = x if self.drop_first else Dropout(self.dropout)(x)
        return classifier(self.num_classes, x)


def classifier(num_classes: int, x: Float[Array, "b c"], zero: bool = False) -> Float[Array, "b y"]:
    """The last layer, called `dense`, in float32 at least; to be called from a compact method."""
    x = x.astype(wide_type(x))
    init = nn.initializers.zeros if zero else nn.initializers.lecun_normal()
    return nn.Dense(num_classes, kernel_init=init, name="dense", param_dtype=x.dtype)(x)


class Pool(nn.Module):
    """Maximum or mean over windows: (b, h, w, c) -> (b, p, q, c); what does not fit is left out.

    `padding` on both sides is never the maximum, and counts as zeros in a mean.
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


def adaptive_average(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b s s c"]:
    """Average to `size` x `size` whatever the image: output i of n pixels is the mean of pixels
    floor(i n / size) .. ceil((i + 1) n / size) - 1, which overlap where size does not divide n.
    """
    if x.shape[1:3] == (size, size):
        return x
    rows, columns = (jnp.asarray(_average(n, size), x.dtype) for n in x.shape[1:3])
    return jnp.einsum("ph,bhwc,qw->bpqc", rows, x, columns)


def _average(n: int, size: int) -> np.ndarray:
    """The (size, n) matrix of `adaptive_average` along one axis."""
    matrix = np.zeros((size, n))
    for i in range(size):
        window = slice(i * n // size, math.ceil((i + 1) * n / size))
        matrix[i, window] = 1 / (window.stop - window.start)
    return matrix
