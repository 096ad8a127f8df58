"""How skip and body meet: x' = merge(s, f, z), s = skip(z), f = body(z)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


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


class Scaled(nn.Module):
    """Both paths weighted: x' = a s + b f, with a the carry gain and b the transform gain.

    Constant; or, where `learned`, b is a scalar parameter a layer that starts at `transform`
    (0 is ReZero and SkipInit). Sows (a, b) into the collection `gains`.

    Shapes: s, f equal. Raises: ValueError if they are not.
    Source: He et al. 2016, arXiv:1603.05027, sec. 3.1 (constant scaling); Bachlechner et al. 2020,
    arXiv:2003.04887, eq. 2 (learned).
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
        self.sow("gains", "carry", a, init_fn=tuple, reduce_fn=_last)
        self.sow("gains", "transform", b, init_fn=tuple, reduce_fn=_last)
        return a * s + b * f


def _last(_, value):
    return value


def check_shapes(s: Float[Array, "..."], f: Float[Array, "..."]) -> None:
    """Raise unless skip and body can meet."""
    if s.shape != f.shape:
        raise ValueError(
            f"the skip gives {s.shape} and the body {f.shape}; where a block changes the shape its "
            "skip must too (ZeroPad or Projection)"
        )
