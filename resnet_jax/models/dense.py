"""Layers of vectors: a dense layer with its ReLU, flattening, and the classifier."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.models.dtypes import wide_type
from resnet_jax.models.feedback import Feedback, multiply
from resnet_jax.models.starts import KernelStart, kernel_start

# The initial kernels of dense layers that a ReLU follows: He et al. 2015, arXiv:1502.01852, eq. 10.
HE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def classifier(num_outputs: int, x: Float[Array, "b c"], zero: bool = False) -> Float[Array, "b y"]:
    """Return the logits of a network's last layer, a dense layer with the name `dense`.

    The layer computes in float32, or in float64 if `x` is float64. Its kernel starts at zero if
    `zero`, else from N(0, 1/c) for c inputs, and its bias at zero. PyTorch's classifiers start from
    uniform numbers within 1/sqrt(c), which are 1.73 times smaller. Call this function from a
    compact method: the layer becomes a child of that module.
    """
    x = x.astype(wide_type(x))
    init = nn.initializers.zeros if zero else nn.initializers.lecun_normal()
    return nn.Dense(num_outputs, kernel_init=init, name="dense", param_dtype=x.dtype)(x)


class Linear(nn.Module):
    """A dense layer, y = x W + b, that computes in the type of x.

    W starts by the initializer `start`, and b by `bias`. `feedback` names what carries the error
    back to x in the place of W (feedback.py).

    Shapes: (..., c) -> (..., width).
    """

    width: int
    start: Callable[..., Array]
    feedback: Feedback = "weights"
    bias: Callable[..., Array] = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n d"]:
        """x W + b."""
        wide = wide_type(x)
        kernel = self.param("kernel", self.start, (x.shape[-1], self.width), wide)
        bias = self.param("bias", self.bias, (self.width,), wide)
        y = multiply(self, self.feedback, jnp.matmul, x, kernel.astype(x.dtype), self.start)
        return y + bias.astype(x.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class Dense(nn.Module):
    """A dense layer and its activation, the ReLU or tanh: H(x) = relu(W x + b).

    W starts from N(0, 2 / c) before a ReLU, and from N(0, 1 / c) before tanh, which is about the
    identity for small numbers. `kernel_start` names another start (starts.py), and `feedback` what
    carries the error back (feedback.py).

    Shapes: (b, c) -> (b, width).
    """

    width: int
    activation: Literal["relu", "tanh"] = "relu"
    kernel_start: KernelStart = "he"
    feedback: Feedback = "weights"

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b d"]:
        """H(x)."""
        start = kernel_start(self.kernel_start, "in", 2.0 if self.activation == "relu" else 1.0)
        dense = Linear(self.width, start, self.feedback, name="dense")
        return nn.relu(dense(x)) if self.activation == "relu" else nn.tanh(dense(x))


class Flatten(nn.Module):
    """One vector for each example, in the type `dtype`; a vector stays as it is.

    Shapes: (b, h, w, c) -> (b, h w c), row by row with the channels innermost; (b, c) -> (b, c).
    """

    dtype: Any = jnp.float32

    def __call__(self, x: Float[Array, "b *rest"]) -> Float[Array, "b n"]:
        """Flatten each example of `x`."""
        return x.reshape(x.shape[0], -1).astype(self.dtype)


class Classifier(nn.Module):
    """The logits of vectors: (b, c) -> (b, y), in float32 (float64 if `x` is)."""

    num_outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b y"]:
        """Classify."""
        return classifier(self.num_outputs, x)
