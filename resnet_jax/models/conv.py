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
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def lax_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "i j c d"],
    stride: int,
    padding: Padding,
) -> Float[Array, "b p q d"]:
    """XLA's convolution (a cross-correlation, as everywhere in deep learning).

    y[n, p, q, d] = sum_ijc x_padded[n, s p + i, s q + j, c] kernel[i, j, c, d]
    """
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=_LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def canonical_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "i j c d"],
    stride: int,
    padding: Padding,
) -> Float[Array, "b p q d"]:
    """`lax_conv` with both gradients written as products that XLA:CPU runs fast in loops.

    dx: the cotangent, dilated by the stride, convolved with the kernel flipped in space and with
    its channels swapped. dkernel: x convolved with the cotangent; for kernels of one tap, and for
    small ones with a stride, where that would multiply by the zeros between, one matrix product:

        columns_j = x_padded shifted by j along w     (b h w, j c)
        rows_i    = cotangent shifted by i along h    (b h w, i d)
        dkernel   = columns^T rows                    (j c, i d)
    """
    return _fast(x, kernel, stride, padding)


def _fast(x, kernel, stride, padding):
    """`lax_conv`, kept from what XLA does to an image smaller than the kernel.

    It swaps the two, out of the fast form. An image that carries its padding is never smaller, and
    the barrier keeps XLA from taking the padding back.
    """
    if math.prod(kernel.shape[:2]) > math.prod(x.shape[1:3]):
        ends = [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)]
        x = lax.optimization_barrier(lax.pad(x, jnp.zeros((), x.dtype), ends))
        padding = ((0, 0), (0, 0))
    return lax_conv(x, kernel, stride, padding)


def _forward(x, kernel, stride, padding):
    return _fast(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, saved, g):
    x, kernel = saved
    size = max(kernel.shape[:2])
    product = size == 1 or (stride > 1 and size <= 3)
    gradient = _kernel_by_product if product else _kernel_by_conv
    return _input_gradient(x, kernel, g, stride, padding), gradient(x, kernel, g, stride, padding)


canonical_conv.defvjp(_forward, _backward)


def _dilate(g, stride, axes):
    """Undo the stride: `stride - 1` zeros after every element along `axes`."""
    config = [(0, 0, 0)] * g.ndim
    for axis in axes:
        config[axis] = (0, 0, stride - 1)
    return lax.pad(g, jnp.zeros((), g.dtype), config)


def _input_gradient(x, kernel, g, stride, padding):
    g = _dilate(g, stride, (1, 2))
    high, wide = (
        (kernel.shape[i] - 1 - padding[i][0], x.shape[1 + i] - g.shape[1 + i] + padding[i][0])
        for i in range(2)
    )
    # Without the barrier XLA folds the flip back into the convolution, out of its fast form.
    flipped = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    return _fast(g, flipped, 1, (high, wide))


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


def _kernel_by_conv(x, kernel, g, stride, padding):
    g = _dilate(g, stride, (1, 2))
    high, wide = (
        (low, kernel.shape[i] - 1 + g.shape[1 + i] - x.shape[1 + i] - low)
        for i, (low, _) in enumerate(padding)
    )
    x, g = lax.optimization_barrier((x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)))
    return lax.optimization_barrier(_fast(x, g, 1, (high, wide))).transpose(1, 2, 0, 3)


def conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "i j c d"],
    stride: int,
    padding: Padding,
) -> Float[Array, "b p q d"]:
    """The convolution of this backend: `canonical_conv` on the CPU, `lax_conv` elsewhere."""
    one = canonical_conv if jax.default_backend() == "cpu" else lax_conv
    return one(x, kernel, stride, padding)


class Conv(nn.Module):
    """Square convolution without bias, padded so that stride 1 keeps the size.

    Padding is explicit, (size - 1) // 2 before and size // 2 after: flax's 'SAME' pads a stride-2
    convolution otherwise than the papers' code does (0 before and 1 after instead of 1 and 1 for
    odd sizes), and imported weights would predict something else.

    Shapes: (b, h, w, c) -> (b, ceil(h / stride), ceil(w / stride), width).
    Source: initialised N(0, 2 / (size^2 width)), the fan-out form that He et al.'s code uses
    (2015, arXiv:1502.01852, eq. 14); zeros where `zero`.
    """

    width: int
    size: int = 3
    stride: int = 1
    zero: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b p q d"]:
        """Convolve `x`."""
        fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        init = nn.initializers.zeros if self.zero else fan_out
        kernel = self.param("kernel", init, (self.size, self.size, x.shape[-1], self.width))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        ends = ((self.size - 1) // 2, self.size // 2)
        return conv(x, kernel, self.stride, (ends, ends))
