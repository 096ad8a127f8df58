"""Batch normalisation with the ReLU that follows it, as one operation with its own gradient.

Autodiff of normalise, scale, shift and ReLU keeps about eight activations a layer for the backward
pass, and a scan over layers writes each into a stacked buffer. Here the backward pass keeps the
input and two statistics a channel, and recomputes the rest.

There is no train flag: a network normalises by the batch exactly where its caller lets
`batch_stats` change (`apply(..., mutable=['batch_stats'])`), and by the running statistics
elsewhere.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


class Span(NamedTuple):
    """`size` neighbouring devices of the mesh axis `axis`, which share one group of examples."""

    axis: str
    size: int

    def groups(self) -> list[list[int]]:
        """The devices of the whole axis, by the group that they share."""
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
    """Normalise each group of examples by its own statistics; returns (y, mean, variance).

        mean, var = E[x], E[(x - mean)^2]             over the examples and the space of a group
        y = relu((x - mean) / sqrt(var + epsilon) * scale + bias)       (ReLU where `relu`)

    With r = 1 / sqrt(var + epsilon), xhat = (x - mean) r, g the cotangent of y (zero where the
    ReLU cuts) and n the number of elements averaged over:

        dx = scale r (g - (sum g + xhat sum(g xhat)) / n),  dscale = sum(g xhat),  dbias = sum g

    Statistics are float32 at least, whatever x is, and carry no gradient of their own. Where a
    group spans several devices, x is this one's part of it; two messages are exchanged, the moments
    and the two sums above, and the gradients are of the sum of all these devices' objectives.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1 and the gradients of sec. 3.
    """
    return _forward(x, scale, bias, epsilon, relu, span)[0]


def _moments(x, span):
    axes = tuple(range(1, x.ndim - 1))
    wide = x.astype(wide_type(x))
    mean = wide.mean(axes)
    variance = jnp.square(wide - _spread(mean, wide)).mean(axes)
    if span is not None:
        # Equal parts: the group's variance is the mean of theirs and the variance of their means.
        means, variances = lax.all_gather(
            jnp.stack((mean, variance)), span.axis, axis=1, axis_index_groups=span.groups()
        )
        mean = means.mean(0)
        variance = (variances + jnp.square(means - mean[None])).mean(0)
    return mean, variance


def wide_type(x):
    """The type of statistics and parameters beside x: float32, or float64 where x is."""
    return x.dtype if x.dtype.itemsize > 4 else jnp.float32


def _spread(statistic, x):
    """(g, c) against (g, n, ..., c)."""
    return jnp.expand_dims(statistic, tuple(range(1, x.ndim - 1)))


def _affine(x, mean, variance, scale, bias, epsilon):
    """Normalised x and its affine image, in the statistics' precision."""
    inverse = lax.rsqrt(variance + epsilon)
    xhat = (x.astype(mean.dtype) - _spread(mean, x)) * _spread(inverse, x)
    return xhat, xhat * _across(scale, xhat) + _across(bias, xhat), inverse


def _across(parameter, x):
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
    count = float(x.size // mean.size)  # which an int32 may not hold
    sum_g, sum_gx = g.sum(axes), (g * xhat).sum(axes)
    dscale, dbias = sum_gx.sum(0).astype(scale.dtype), sum_g.sum(0).astype(bias.dtype)
    if span is not None:
        count *= span.size
        sum_g, sum_gx = lax.psum(
            jnp.stack((sum_g, sum_gx)), span.axis, axis_index_groups=span.groups()
        )
    centred = g - (_spread(sum_g, x) + xhat * _spread(sum_gx, x)) / count
    dx = _across(scale, xhat) * _spread(inverse, x) * centred
    return dx.astype(x.dtype), dscale, dbias


normalise.defvjp(_forward, _backward)


class BatchNorm(nn.Module):
    """Batch normalisation, followed by a ReLU where `relu`.

    `group_size` examples are normalised together; 0 is the whole batch, -1 this device's share. The
    number, not the hardware, fixes the mathematics: where the devices of the mesh axis `axis` share
    a batch, groups within a device need no communication, and larger ones span devices. Running
    statistics follow new = momentum * old + (1 - momentum) * batch, the variance being the biased
    one; batch is the mean over the groups of this device.

    Shapes: (b, ..., c) -> (b, ..., c), b being this device's share of the batch.
    Raises: ValueError where neither of `group_size` and this share is a multiple of the other.
    Source: Ioffe & Szegedy 2015, arXiv:1502.03167. Differs: PyTorch keeps the unbiased variance.
    """

    relu: bool = False
    zero: bool = False
    group_size: int = 0
    momentum: float = 0.9
    epsilon: float = 1e-5
    axis: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b *space c"]) -> Float[Array, "b *space c"]:
        """Normalise `x` by the batch where `batch_stats` may change, else by what was kept."""
        c = x.shape[-1]
        wide = wide_type(x)
        scale = self.param("scale", nn.initializers.constant(0.0 if self.zero else 1.0), (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (c,), wide)
        variance = self.variable("batch_stats", "var", jnp.ones, (c,), wide)
        if not self.is_mutable_collection("batch_stats"):
            m, v = mean.value[None], variance.value[None]
            y = _affine(x[None], m, v, scale, bias, self.epsilon)[1]
            return (nn.relu(y) if self.relu else y)[0].astype(x.dtype)
        # Initialisation sees one example, whatever the group.
        size, span = (x.shape[0], None) if self.is_initializing() else self._group(x.shape[0])
        groups = x.reshape((x.shape[0] // size, size) + x.shape[1:])
        y, batch_mean, batch_variance = normalise(  # pyright: ignore[reportGeneralTypeIssues]
            groups, scale, bias, self.epsilon, self.relu, span
        )
        if not self.is_initializing():
            keep = lambda old, new: self.momentum * old + (1 - self.momentum) * new.mean(0)
            mean.value = keep(mean.value, lax.stop_gradient(batch_mean))
            variance.value = keep(variance.value, lax.stop_gradient(batch_variance))
        return y.reshape(x.shape)

    def _group(self, share: int) -> tuple[int, Span | None]:
        """The examples of a group on this device, and the devices that it spans if several do."""
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


def nearest_divisor(n: int, target: int) -> int:
    """The divisor of `n` nearest to `target`, the smaller of two."""
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return min((*small, *(n // d for d in small)), key=lambda d: (abs(d - target), d))


class GroupNorm(nn.Module):
    """Group normalisation of each example by itself, followed by a ReLU where `relu`.

    Mean and variance over the space and the channels of one of `groups` groups; `groups=1` is
    layer normalisation as Wu & He compare it (over all channels and the space).

    Statistics are float32 at least, whatever x is.

    Shapes: (b, ..., c) -> (b, ..., c). Raises: ValueError where the groups do not divide c.
    Source: Wu & He 2018, arXiv:1803.08494, eq. 1 and 7.
    """

    groups: int = 8
    epsilon: float = 1e-5
    relu: bool = False
    zero: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b *space c"]) -> Float[Array, "b *space c"]:
        """Normalise `x`, in training as in evaluation."""
        if x.shape[-1] % self.groups:
            raise ValueError(
                f"norm.groups={self.groups} does not divide {x.shape[-1]} channels; "
                f"nearest that does: {nearest_divisor(x.shape[-1], self.groups)}"
            )
        c, wide = x.shape[-1], wide_type(x)
        scale = self.param("scale", nn.initializers.constant(0.0 if self.zero else 1.0), (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        parts = x.astype(wide).reshape(x.shape[0], -1, self.groups, c // self.groups)
        centred = parts - parts.mean((1, 3), keepdims=True)
        inverse = lax.rsqrt(jnp.square(centred).mean((1, 3), keepdims=True) + self.epsilon)
        y = (centred * inverse).reshape(x.shape)
        y = (y * _across(scale, y) + _across(bias, y)).astype(x.dtype)
        return nn.relu(y) if self.relu else y


class LayerNorm(nn.Module):
    """Layer normalisation of each token by itself.

    Mean and variance over the channels alone: over the space too it is `GroupNorm(1)`. Statistics
    are float32 at least, whatever x is.

    Shapes: (..., c) -> (..., c). Source: Ba et al. 2016, arXiv:1607.06450, eq. 3 and 4.
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        """Normalise `x`, in training as in evaluation."""
        c, wide = x.shape[-1], wide_type(x)
        scale = self.param("scale", nn.initializers.ones, (c,), wide)
        bias = self.param("bias", nn.initializers.zeros, (c,), wide)
        centred = x.astype(wide) - x.astype(wide).mean(-1, keepdims=True)
        inverse = lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        y = centred * inverse
        return (y * _across(scale, y) + _across(bias, y)).astype(x.dtype)


class NoNorm(nn.Module):
    """Nothing where a norm would stand, but the ReLU: its convolution has a bias instead."""

    relu: bool = False
    zero: bool = False

    def __call__(self, x: Float[Array, "b *space c"]) -> Float[Array, "b *space c"]:
        """`x`, cut at zero where `relu`."""
        return nn.relu(x) if self.relu else x


class Shift(nn.Module):
    """Fixup's scalar bias where a norm would stand outside of the blocks, then the ReLU."""

    relu: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b *space c"]) -> Float[Array, "b *space c"]:
        """`x` shifted by one learned number."""
        y = x + self.param("bias", nn.initializers.zeros, ()).astype(x.dtype)
        return nn.relu(y) if self.relu else y
