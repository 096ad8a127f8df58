"""A convolution whose gradients XLA:CPU runs as fast inside a loop as outside.

XLA:CPU hands a convolution to its fast kernels only when its operands are laid out NHWC x HWIO ->
NHWC. The pass that brings others into that form visits the entry computation alone, and the
gradients of a convolution are others: inside a `lax.scan` over layers they fall to a naive loop,
30-36 times slower (jax#12868, open since 2022). Here each product is written in the fast form to
begin with. On other backends this is lax's own convolution, gradients included.

A `custom_vjp` rules out forward-mode differentiation: use `lax_conv` where `jvp` is needed.
"""

import functools
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.models.norm import nearest_divisor

Padding = tuple[tuple[int, int], tuple[int, int]]

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def lax_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "i j e d"],
    stride: int,
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "b p q d"]:
    """XLA's convolution (a cross-correlation, as everywhere in deep learning).

    y[n, p, q, d] = sum_ijc x_padded[n, s p + i, s q + j, c] kernel[i, j, c, d]

    In `groups` the channels are shared out: output group k sees input group k alone, e = c / groups
    channels of it.
    """
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def canonical_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "i j e d"],
    stride: int,
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "b p q d"]:
    """`lax_conv` with both gradients written as products that XLA:CPU runs fast in loops.

    dx: the cotangent, dilated by the stride, convolved with the kernel flipped in space and with
    its channels swapped. dkernel: x convolved with the cotangent; for kernels of one tap, and for
    small ones with a stride, where that would multiply by the zeros between, one matrix product:

        columns_j = x_padded shifted by j along w     (b h w, j c)
        rows_i    = cotangent shifted by i along h    (b h w, i d)
        dkernel   = columns^T rows                    (j c, i d)

    Of groups each is the same within every group.
    """
    return _fast(x, kernel, stride, padding, groups)


def _fast(x, kernel, stride, padding, groups):
    """`lax_conv`, kept from what XLA does to an image smaller than the kernel.

    It swaps the two, out of the fast form. An image that carries its padding is never smaller, and
    the barrier keeps XLA from taking the padding back.
    """
    if math.prod(kernel.shape[:2]) > math.prod(x.shape[1:3]):
        ends = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
        x = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), ends))
        padding = ((0, 0), (0, 0))
    return lax_conv(x, kernel, stride, padding, groups)


def _forward(x, kernel, stride, padding, groups):
    return _fast(x, kernel, stride, padding, groups), (x, kernel)


def _backward(stride, padding, groups, saved, g):
    x, kernel = saved
    size = max(kernel.shape[:2])
    dx = _input_gradient(x, kernel, g, stride, padding, groups)
    if groups == 1 and (size == 1 or (stride > 1 and size <= 3)):
        return dx, _kernel_by_product(x, kernel, g, stride, padding)
    return dx, _kernel_by_conv(x, kernel, g, stride, padding, groups)


canonical_conv.defvjp(_forward, _backward)


def _dilate(g, stride, axes):
    """Undo the stride: `stride - 1` zeros after every element along `axes`."""
    config = [(0, 0, 0)] * g.ndim
    for axis in axes:
        config[axis] = (0, 0, stride - 1)
    return lax.pad(g, jnp.zeros((), g.dtype), config)


def _input_gradient(x, kernel, g, stride, padding, groups):
    g = _dilate(g, stride, (1, 2))
    high, wide = (
        (kernel.shape[i] - 1 - padding[i][0], x.shape[1 + i] - g.shape[1 + i] + padding[i][0])
        for i in range(2)
    )
    i, j, e, d = kernel.shape
    grouped = jnp.flip(kernel, (0, 1)).reshape(i, j, e, groups, d // groups)
    swapped = grouped.transpose(0, 1, 4, 3, 2).reshape(i, j, d // groups, groups * e)
    # Without the barrier XLA folds the flip back into the convolution, out of its fast form.
    return _fast(g, lax.optimization_barrier(swapped), 1, (high, wide), groups)


def _kernel_by_product(x, kernel, g, stride, padding):
    high, wide, c, d = kernel.shape
    p, q = g.shape[1:3]
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    columns = [x[:, :, j : j + stride * (q - 1) + 1 : stride] for j in range(wide)]
    g = _dilate(g, stride, (1,))
    rows = [
        lax.pad(
            g,
            jnp.zeros((), g.dtype),
            ((0, 0, 0), (i, x.shape[1] - i - g.shape[1], 0)) + ((0, 0, 0),) * 2,
        )
        for i in range(high)
    ]
    product = jnp.einsum(
        "...a,...b->ab",
        jnp.concatenate(columns, -1).reshape(-1, wide * c),
        jnp.concatenate(rows, -1).reshape(-1, high * d),
    )
    return product.reshape(wide, c, high, d).transpose(2, 0, 1, 3)


def _kernel_by_conv(x, kernel, g, stride, padding, groups):
    g = _dilate(g, stride, (1, 2))
    high, wide = (
        (low, kernel.shape[i] - 1 + g.shape[1 + i] - x.shape[1 + i] - low)
        for i, (low, _) in enumerate(padding)
    )
    b, h, w, c = x.shape
    # The examples are what is summed over; each group's stand beside each other.
    x = x.reshape(b, h, w, groups, c // groups).transpose(4, 1, 2, 3, 0)
    x = x.reshape(c // groups, h, w, groups * b)
    x, g = lax.optimization_barrier((x, g.transpose(1, 2, 0, 3)))
    product = _fast(x, g, 1, (high, wide), groups)
    return lax.optimization_barrier(product).transpose(1, 2, 0, 3)


def conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "i j e d"],
    stride: int,
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "b p q d"]:
    """The convolution of this backend: `canonical_conv` on the CPU, `lax_conv` elsewhere.

    It is JAX's default backend, asked when the network is traced: a program that is lowered for
    another platform gets this one's. `lax.platform_dependent` would choose as late as lowering,
    at the price of a branch around every convolution and of tracing both.
    """
    one = canonical_conv if jax.default_backend() == "cpu" else lax_conv
    return one(x, kernel, stride, padding, groups)


class Conv(nn.Module):
    """Square convolution, padded so that stride 1 keeps the size, without bias unless asked for.

    Padding is explicit, (size - 1) // 2 before and size // 2 after, or `padding` on both sides:
    flax's 'SAME' pads a stride-2 convolution otherwise than the papers' code does (0 before and 1
    after instead of 1 and 1 for odd sizes), and imported weights would predict something else.

    Shapes: (b, h, w, c) -> (b, ceil(h / stride), ceil(w / stride), width).
    Raises: ValueError where `groups` do not divide the channels.
    Source: initialised N(0, 2 gain^2 / (size^2 width)), the fan-out form that He et al.'s code uses
    (2015, arXiv:1502.01852, eq. 14), or with the channels that a tap sees in width's place where
    `fan` is 'in' (eq. 10: without a norm it keeps the signal's scale); zeros where `gain` is 0.
    A bias starts at `start`.
    """

    width: int
    size: int = 3
    stride: int = 1
    groups: int = 1
    padding: int | None = None
    bias: bool = False
    gain: float = 1.0
    fan: Literal["in", "out"] = "out"
    start: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b p q d"]:
        """Convolve `x`."""
        channels = x.shape[-1]
        if channels % self.groups or self.width % self.groups:
            both = math.gcd(channels, self.width)
            raise ValueError(
                f"{self.groups} groups do not divide a convolution of {channels} to {self.width} "
                f"channels; nearest that do: {nearest_divisor(both, self.groups)}"
            )
        fan = "fan_in" if self.fan == "in" else "fan_out"
        he = nn.initializers.variance_scaling(2 * self.gain**2 or 1, fan, "normal")
        shape = (self.size, self.size, channels // self.groups, self.width)
        kernel = self.param("kernel", he if self.gain else nn.initializers.zeros, shape)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        ends = ((self.size - 1) // 2, self.size // 2)
        if self.padding is not None:
            ends = (self.padding, self.padding)
        y = conv(x, kernel, self.stride, (ends, ends), self.groups)
        if self.bias:
            bias = self.param("bias", nn.initializers.constant(self.start), (self.width,))
            y = y + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return y
