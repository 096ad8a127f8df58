"""How skip and body meet: x' = merge(s, f, z), s = skip(z), f = body(z).

A merge that weighs its paths sows the weights, averaged over all they are applied to, into the
collection `gains`: `carry` (of the skip) and `transform` (of the body).
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.models.conv import Conv
from resnet_jax.models.norm import wide_type


def plain(s, f, z):
    """No skip connection: x' = f. The twin that shows what the skip does."""
    return f


def add(s: Float[Array, "..."], f: Float[Array, "..."], z) -> Float[Array, "..."]:
    """The residual connection: x' = s + f.

    Shapes: s, f equal. Raises: ValueError if they are not.
    Source: He et al. 2015, arXiv:1512.03385, eq. 1-2.
    """
    check_shapes(s, f)
    return s + f


def concat(s: Float[Array, "*n c"], f: Float[Array, "*n k"], z) -> Float[Array, "*n d"]:
    """Keep all that went before beside what is new: x' = [s, f] along the channels.

    Shapes: (..., c), (..., k) -> (..., c + k).
    Source: Huang et al. 2017, arXiv:1608.06993, eq. 2.
    """
    return jnp.concatenate((s, f), -1)


class Scaled(nn.Module):
    """Both paths weighted: x' = a s + b f, with a the carry gain and b the transform gain.

    Constant; or, where `learned`, b is a scalar parameter a layer that starts at `transform`
    (0 is ReZero, and SkipInit where the body has no norm).

    Shapes: s, f equal. Raises: ValueError if they are not.
    Source: He et al. 2016, arXiv:1603.05027, sec. 3.1 (constant scaling); Bachlechner et al. 2020,
    arXiv:2003.04887, eq. 2, and De & Smith 2020, arXiv:2002.10444, sec. 4 (learned).
    """

    carry: float = 1.0
    transform: float = 1.0
    learned: bool = False

    @nn.compact
    def __call__(
        self, s: Float[Array, "..."], f: Float[Array, "..."], z: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """a s + b f."""
        check_shapes(s, f)
        b = jnp.asarray(self.transform, f.dtype)
        if self.learned:
            b = self.param("transform", nn.initializers.constant(self.transform), ()).astype(
                f.dtype
            )
        a = jnp.asarray(self.carry, s.dtype)
        sow_gains(self, a, b)
        return a * s + b * f


class Gated(nn.Module):
    """Paths weighted by gates that see the block's input: x' = C(z) s + T(z) f.

        T = sigmoid(W_T z + transform_bias)
        C = 1 - T, or sigmoid(W_C z + carry_bias) where that is given

    The coupled form is the highway layer (z = s) and He et al.'s exclusive gate: a bias far below
    zero carries the input and shuts the body. With `carry_bias` the gates are free: both far above
    zero is the residual connection, which the coupled form cannot be. `transform=False` leaves the
    body alone: x' = (1 - T) s + f, the shortcut-only gate.

    W is a matrix for vectors and tokens and a `size` x `size` convolution for images, with the
    stride that brings z to the size of s. Biases are the initial values of parameters, in logits.

    Shapes: s, f (b, ..., d) equal; z (b, ..., c). Raises: ValueError if s and f differ.
    Source: Srivastava et al. 2015, arXiv:1505.00387, eq. 2-3 (two gates, coupled); He et al. 2016,
    arXiv:1603.05027, sec. 3.1 (exclusive and shortcut-only gating, 1x1).
    """

    transform_bias: float = -2.0
    carry_bias: float | None = None
    transform: bool = True
    size: int = 1
    conv: Callable[..., nn.Module] = Conv

    @nn.compact
    def __call__(
        self, s: Float[Array, "b *n d"], f: Float[Array, "b *n d"], z: Float[Array, "b *m c"]
    ) -> Float[Array, "b *n d"]:
        """C s + T f."""
        check_shapes(s, f)
        t = nn.sigmoid(self._gate("gate", self.transform_bias, s, z))
        if self.carry_bias is None:
            c = 1 - t
        else:
            c = nn.sigmoid(self._gate("carry_gate", self.carry_bias, s, z))
        t = t if self.transform else jnp.ones_like(t)
        sow_gains(self, c, t)
        return c * s + t * f

    def _gate(self, name, bias, s, z):
        start = nn.initializers.constant(bias)
        if z.ndim < 4:
            return nn.Dense(
                s.shape[-1], bias_init=start, param_dtype=wide_type(z), dtype=z.dtype, name=name
            )(z)
        stride = max(-(-z.shape[axis] // s.shape[axis]) for axis in (1, 2))
        gate = self.conv(s.shape[-1], self.size, stride, bias=True, start=bias, name=name)
        return gate(z)


def sow_gains(module: nn.Module, carry: Float[Array, "..."], transform: Float[Array, "..."]):
    """Report a merge's gains, each averaged to one number."""
    last = lambda _, value: value
    for name, gain in (("carry", carry), ("transform", transform)):
        module.sow("gains", name, gain.mean(), init_fn=tuple, reduce_fn=last)


def check_shapes(s: Float[Array, "..."], f: Float[Array, "..."]) -> None:
    """Raise unless skip and body can meet."""
    if s.shape != f.shape:
        raise ValueError(
            f"the skip gives {s.shape} and the body {f.shape}; where a block changes the shape its "
            "skip must too (ZeroPad or Projection)"
        )
