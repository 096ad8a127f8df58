"""A convolution whose gradients are as fast inside a loop as outside on XLA:CPU.

XLA:CPU uses its fast kernels only for convolutions with the layouts NHWC x HWIO -> NHWC. The
gradients of a convolution have other layouts. A compiler pass brings these into the fast form, but
the pass visits only the entry computation: inside a `lax.scan` over layers, the gradients run as a
naive loop, 30-36 times slower (jax#12868, open since 2022). This file writes each gradient in the
fast form from the start. On other backends it uses lax's own convolution and gradients.

`canonical_conv` has a `custom_vjp`, so forward-mode differentiation (`jax.jvp`, `jax.jacfwd`) fails
on the CPU. `lax_conv` allows it; `--config.kernels=reference` chooses it.
"""

import functools
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.keys import nearest_divisor
from resnet_jax.models.feedback import Feedback, multiply
from resnet_jax.models.starts import KernelStart, identity_kernel, kernel_start

Padding = tuple[tuple[int, int], tuple[int, int]]
# How an operation is computed: as fast as may be, or so that JAX differentiates it in any mode.
Kernels = Literal["auto", "reference"]

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def lax_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "i j e d"],
    stride: int,
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "b p q d"]:
    """XLA's convolution: a cross-correlation, as is usual in deep learning.

    y[n, p, q, d] = sum_ijc x_padded[n, s p + i, s q + j, c] kernel[i, j, c, d]

    `groups` divides the channels: output group k sees only the e = c / groups channels of input
    group k.
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
    """`lax_conv` whose two gradients are products that XLA:CPU runs fast in loops.

    dx is a convolution: the cotangent, dilated by the stride, with the kernel flipped in space and
    its input and output channels swapped. dkernel is x convolved with the dilated cotangent. It is
    one matrix product instead for a 1x1 kernel, and for a kernel of at most 3x3 with a stride, for
    which that convolution would multiply by many zeros:

        columns_j = x_padded shifted by j along w     (b h w, j c)
        rows_i    = cotangent shifted by i along h    (b h w, i d)
        dkernel   = columns^T rows                    (j c, i d)

    With groups, dx and dkernel are such convolutions within each group.
    """
    return _fast(x, kernel, stride, padding, groups)


def _fast(x, kernel, stride, padding, groups):
    """`lax_conv` in the fast form even if the image is smaller than the kernel.

    XLA swaps image and kernel if the image is smaller, which leaves the fast form. The padding is
    therefore added to the image first, because a padded image is never smaller than the kernel. The
    barrier keeps XLA from moving the padding back into the convolution.
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
    """Put `stride - 1` zeros between neighbours along `axes`, which undoes the stride."""
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
    # Without the barrier XLA folds the flip into the convolution, which leaves the fast form.
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
    # The sum runs over the examples, so they become the input channels; the examples of one group
    # stand beside each other.
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
    kernels: Kernels = "auto",
) -> Float[Array, "b p q d"]:
    """Convolve with `canonical_conv` if JAX's default backend is the CPU, else with `lax_conv`.

    With `kernels='reference'` it is `lax_conv` on every backend, which allows forward mode.
    The choice is made while the network is traced, so a program that is then lowered for another
    platform keeps it. `lax.platform_dependent` would choose at lowering, but it would trace both
    and put a branch around every convolution.
    """
    fast = kernels == "auto" and jax.default_backend() == "cpu"
    convolve = canonical_conv if fast else lax_conv
    return convolve(x, kernel, stride, padding, groups)


class Conv(nn.Module):
    """A `size` x `size` convolution, padded so that stride 1 keeps the image's size.

    The padding is explicit: (size - 1) // 2 pixels before and size // 2 after, or `padding` pixels
    on both sides. flax's 'SAME' pads a 3x3 convolution of stride 2 by 0 and 1 pixels instead of 1
    and 1 as the papers' code does, so that imported weights would give other predictions.

    The kernel starts at N(0, variance gain^2 / n); the variance 2 is the ReLU's. If `fan` is 'out',
    n is size^2 width, as in the code of He et al. (2015, arXiv:1502.01852, eq. 14). If `fan` is
    'in', n is size^2 times the input channels of a group, which keeps the scale of the signal in a
    network without norms (eq. 10).
    The kernel starts at zero if `gain` is 0. `kernel_start` names another start (starts.py), whose
    orthogonal matrix `gain` multiplies, too.

    If `dirac`, a convolution that keeps the shape has the kernel W of DiracNet, with an identity in
    the place of a skip connection: output channel k is

        W[..., k] = a[k] I[..., k] + b[k] V[..., k] / |V[..., k]|

    V is the parameter `kernel`, which then starts at N(0, 1), and I the kernel of the identity. The
    parameters a = `identity_gain` and b = `kernel_gain` start at 1 and 0.1; they are no kernels, so
    that they do not decay with `optimizer.decay=kernels`. Source: Zagoruyko & Komodakis 2017,
    arXiv:1706.00388, sec. 3, from memory. Differs: an earlier form of the authors' code has one a
    and one b for all channels of a layer, which start at 5 and 0.001, and a negative concatenated
    ReLU.

    `feedback` names what carries the error back to x in the kernel's place (feedback.py).
    If `bias`, a bias is added that starts at `start`.
    `kernels` chooses how the convolution is computed (`conv`).

    Shapes: (b, h, w, c) -> (b, ceil(h / stride), ceil(w / stride), width) with the default padding.
    Raises: ValueError if `groups` does not divide c and `width`.
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
    kernel_start: KernelStart = "he"
    variance: float = 2.0
    dirac: bool = False
    feedback: Feedback = "weights"
    dtype: Any = jnp.float32
    kernels: Kernels = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b p q d"]:
        """Convolve `x`."""
        channels = x.shape[-1]
        if channels % self.groups or self.width % self.groups:
            both = math.gcd(channels, self.width)
            raise ValueError(
                f"{self.groups} groups do not divide a convolution of {channels} to {self.width} "
                "channels (model.cardinality of a bottleneck); nearest that do: "
                f"{nearest_divisor(both, self.groups)}"
            )
        begin: Any = nn.initializers.zeros
        if self.gain:
            variance = self.variance * self.gain**2
            begin = kernel_start(self.kernel_start, self.fan, variance, self.groups)
        shape = (self.size, self.size, channels // self.groups, self.width)
        identity = self.dirac and (self.stride, channels) == (1, self.width)
        begin = nn.initializers.normal(1.0) if identity else begin
        kernel = self.param("kernel", begin, shape)
        kernel = self._with_identity(kernel) if identity else kernel
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        ends = ((self.size - 1) // 2, self.size // 2)
        if self.padding is not None:
            ends = (self.padding, self.padding)
        product = functools.partial(
            conv, stride=self.stride, padding=(ends, ends), groups=self.groups, kernels=self.kernels
        )
        y = multiply(self, self.feedback, product, x, kernel, begin)
        if self.bias:
            bias = self.param("bias", nn.initializers.constant(self.start), (self.width,))
            y = y + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        return y

    def _with_identity(self, kernel: Float[Array, "i j e d"]) -> Float[Array, "i j e d"]:
        """Return DiracNet's W of the kernel V."""
        gain = lambda name, start: self.param(
            name, nn.initializers.constant(start), (self.width,)
        ).reshape(1, 1, 1, -1)
        length = jnp.sqrt(jnp.square(kernel).sum((0, 1, 2), keepdims=True))
        identity = identity_kernel(kernel.shape, kernel.dtype)
        return gain("identity_gain", 1.0) * identity + gain("kernel_gain", 0.1) * kernel / length
