"""Batch normalisation and the ReLU that follows it, as one operation with its own gradient.

Autodiff of normalise, scale, shift and ReLU keeps about eight activations of each layer for the
backward pass, and a scan over layers writes each of them into a stacked buffer. Our backward pass
keeps the input and two statistics of each channel, and recomputes the rest. It rules out
forward-mode differentiation; `--config.kernels=reference` leaves the gradient to autodiff.

There is no train flag: a network normalises by the batch if its caller lets `batch_stats` change
(`apply(..., mutable=['batch_stats'])`), and by the running statistics otherwise.
"""

import functools
import math
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.keys import nearest_divisor
from resnet_jax.models.conv import Kernels
from resnet_jax.models.dtypes import wide_type


class Span(NamedTuple):
    """`size` neighbouring devices of the mesh axis `axis`; they share one group of examples."""

    axis: str
    size: int

    def groups(self) -> list[list[int]]:
        """Return the device indices of the whole axis, one list for each group."""
        starts = range(0, lax.axis_size(self.axis), self.size)
        return [list(range(start, start + self.size)) for start in starts]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalise(
    x: Float[Array, "g n *space c"],
    scale: Float[Array, "c"],
    bias: Float[Array, "c"],
    epsilon: float,
    relu: bool,
    span: Span | None = None,
) -> tuple[Float[Array, "g n *space c"], Float[Array, "g c"], Float[Array, "g c"]]:
    """Normalise each group of examples by its own statistics; return (y, mean, variance).

        mean, var = E[x], E[(x - mean)^2]             over the examples and the space of a group
        y = relu((x - mean) / sqrt(var + epsilon) * scale + bias)        (the ReLU if `relu`)

    Write r = 1 / sqrt(var + epsilon), xhat = (x - mean) r, g for the cotangent of y (zero at the
    elements that the ReLU cuts) and n for the number of elements averaged over. The gradients are

        dx = scale r (g - (sum g + xhat sum(g xhat)) / n),  dscale = sum(g xhat),  dbias = sum g

    Statistics are at least float32, whatever the type of x, and carry no gradient of their own. If
    a group spans several devices, x is this device's part of the group. The devices then exchange
    two messages, the moments and the two sums above, and the gradients are those of the sum of all
    these devices' objectives.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1 and the gradients of sec. 3.
    """
    return _forward(x, scale, bias, epsilon, relu, span)[0]


def _moments(x, span):
    axes = tuple(range(1, x.ndim - 1))
    wide = x.astype(wide_type(x))
    mean = wide.mean(axes)
    variance = jnp.square(wide - _spread(mean, wide)).mean(axes)
    if span is not None:
        # The parts are equal, so that the group's variance is the mean of the devices' variances
        # plus the variance of the devices' means.
        means, variances = lax.all_gather(
            jnp.stack((mean, variance)), span.axis, axis=1, axis_index_groups=span.groups()
        )
        mean = means.mean(0)
        variance = (variances + jnp.square(means - mean[None])).mean(0)
    return mean, variance


def _spread(statistic, x):
    """Reshape statistics (g, c) so that they broadcast against x (g, n, ..., c)."""
    return jnp.expand_dims(statistic, tuple(range(1, x.ndim - 1)))


def _affine(x, mean, variance, scale, bias, epsilon):
    """Return normalised x, its affine image and 1 / sqrt(var + eps), in the statistics' type."""
    inverse = lax.rsqrt(variance + epsilon)
    xhat = (x.astype(mean.dtype) - _spread(mean, x)) * _spread(inverse, x)
    return xhat, xhat * across(scale, xhat) + across(bias, xhat), inverse


def across(parameter: Float[Array, "c"], x: Float[Array, "*n c"]) -> Float[Array, "*ones c"]:
    """Reshape a parameter of the channels so that it broadcasts against x, in x's type."""
    return parameter.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def _forward(x, scale, bias, epsilon, relu, span):
    mean, variance = _moments(x, span)
    y = _affine(x, mean, variance, scale, bias, epsilon)[1]
    y = (nn.relu(y) if relu else y).astype(x.dtype)
    return (y, mean, variance), (x, mean, variance, scale, bias)


def _backward(epsilon, relu, span, saved, cotangents):
    x, mean, variance, scale, bias = saved
    g = cotangents[0].astype(mean.dtype)
    xhat, y, inverse = _affine(x, mean, variance, scale, bias, epsilon)
    if relu:
        g = jnp.where(y > 0, g, 0)
    axes = tuple(range(1, x.ndim - 1))
    count = float(x.size // mean.size)  # a float, because an int32 may not hold it
    sum_g, sum_gx = g.sum(axes), (g * xhat).sum(axes)
    dscale, dbias = sum_gx.sum(0).astype(scale.dtype), sum_g.sum(0).astype(bias.dtype)
    if span is not None:
        count *= span.size
        sum_g, sum_gx = lax.psum(
            jnp.stack((sum_g, sum_gx)), span.axis, axis_index_groups=span.groups()
        )
    centred = g - (_spread(sum_g, x) + xhat * _spread(sum_gx, x)) / count
    dx = across(scale, xhat) * _spread(inverse, x) * centred
    return dx.astype(x.dtype), dscale, dbias


normalise.defvjp(_forward, _backward)


def reference_normalise(
    x: Float[Array, "g n *space c"],
    scale: Float[Array, "c"],
    bias: Float[Array, "c"],
    epsilon: float,
    relu: bool,
    span: Span | None = None,
) -> tuple[Float[Array, "g n *space c"], Float[Array, "g c"], Float[Array, "g c"]]:
    """Return what `normalise` returns, with gradients by autodiff of its two equations.

    Forward mode (`jax.jvp`) works, and so do derivatives of any order. The gradients equal those of
    `normalise` to rounding; the backward pass stores several times as much.
    """
    y, mean, variance = _forward(x, scale, bias, epsilon, relu, span)[0]
    return y, lax.stop_gradient(mean), lax.stop_gradient(variance)


# The mean of one number is the number itself: nothing of the input would be left.
ONE_NUMBER = (
    "batch norm over one number for each channel gives the same output for every input; make "
    "batch_size and norm.group_size larger, use larger images, or choose norm=none"
)


class BatchNorm(nn.Module):
    """Batch normalisation, followed by a ReLU if `relu`.

    `group_size` examples are normalised together; 0 stands for the whole batch and -1 for this
    device's share of it. The number and not the hardware fixes the mathematics: if the devices of
    the mesh axis `axis` share a batch, groups that lie within a device need no communication, and
    larger groups span devices. Running statistics follow

        new = momentum * old + (1 - momentum) * batch

    with the biased variance; `batch` is the mean over the groups of this device. The scale starts
    at zero if `zero`, else at one, or with numbers drawn from U(0, 1) if `scale` is 'uniform', as
    in Torch until 2017. With `kernels='reference'` the gradient is autodiff's
    (`reference_normalise`).

    Shapes: (b, ..., c) -> (b, ..., c); b is this device's share of the batch.
    Raises: ValueError if neither of `group_size` and this share is a multiple of the other.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167. Differs: PyTorch keeps the unbiased variance.
    """

    relu: bool = False
    zero: bool = False
    group_size: int = 0
    momentum: float = 0.9
    epsilon: float = 1e-5
    axis: str | None = None
    scale: Literal["ones", "uniform"] = "ones"
    kernels: Kernels = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "b *space c"]) -> Float[Array, "b *space c"]:
        """Normalise by the batch if `batch_stats` may change, else by the running statistics."""
        c = x.shape[-1]
        wide = wide_type(x)
        start = nn.initializers.constant(0.0 if self.zero else 1.0)
        if self.scale == "uniform" and not self.zero:
            start = nn.initializers.uniform(1.0)
        scale = self.param("scale", start, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (c,), wide)
        variance = self.variable("batch_stats", "var", jnp.ones, (c,), wide)
        if not self.is_mutable_collection("batch_stats"):
            m, v = mean.value[None], variance.value[None]
            y = _affine(x[None], m, v, scale, bias, self.epsilon)[1]
            return (nn.relu(y) if self.relu else y)[0].astype(x.dtype)
        # Initialisation sees one example, whatever the group size is.
        size, span = (x.shape[0], None) if self.is_initializing() else self._group(x.shape[0])
        numbers = size * (span.size if span else 1) * math.prod(x.shape[1:-1])
        if numbers == 1 and not self.is_initializing():
            raise ValueError(ONE_NUMBER)
        groups = x.reshape((x.shape[0] // size, size) + x.shape[1:])
        compute: Any = normalise if self.kernels == "auto" else reference_normalise
        y, batch_mean, batch_variance = compute(groups, scale, bias, self.epsilon, self.relu, span)
        if not self.is_initializing():
            keep = lambda old, new: self.momentum * old + (1 - self.momentum) * new.mean(0)
            mean.value = keep(mean.value, lax.stop_gradient(batch_mean))
            variance.value = keep(variance.value, lax.stop_gradient(batch_variance))
        return y.reshape(x.shape)

    def _group(self, share: int) -> tuple[int, Span | None]:
        """Return the examples of a group on this device, and its Span if it spans devices."""
        devices = 1 if self.axis is None else lax.axis_size(self.axis)
        if self.group_size < 0:
            return share, None
        size = self.group_size or share * devices
        if share % size == 0:
            return size, None
        if self.axis is not None and size % share == 0 and (share * devices) % size == 0:
            return share, Span(self.axis, size // share)
        batch = f"the batch of {share}" + (f" on each of {devices} devices" if devices > 1 else "")
        raise ValueError(
            f"norm.group_size={size} does not divide {batch}; "
            f"nearest that does: {nearest_divisor(share, size)}"
        )
