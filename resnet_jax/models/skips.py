"""What a block keeps: s = skip(z)."""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.models.conv import Conv


def identity(x):
    """s = z."""
    return x


class ZeroPad(nn.Module):
    """Option A: every `stride`-th pixel, and zeros for the new channels. Owns nothing.

    `where='end'` puts the new channels last, as He et al. 2015 do (sec. 3.3, option A);
    `where='split'` half on each side, as the widely used akamaster weights expect.

    Shapes: (b, h, w, c) -> (b, ceil(h / stride), ceil(w / stride), width), width >= c.
    """

    width: int
    stride: int = 1
    where: Literal["end", "split"] = "end"

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b p q d"]:
        """Subsample and pad."""
        new = self.width - x.shape[-1]
        if new < 0:
            raise ValueError(
                f"option A cannot narrow {x.shape[-1]} channels to {self.width}; use option B"
            )
        before = new // 2 if self.where == "split" else 0
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, new - before)))


class Projection(nn.Module):
    """Options B and C: a 1x1 convolution, normalised where `norm` is given.

    Shapes: (b, h, w, c) -> (b, ceil(h / stride), ceil(w / stride), width).
    Source: He et al. 2015, arXiv:1512.03385, eq. 2 and sec. 3.3. The norm follows as after every
    convolution of a v1 net; a pre-activation net has none (its input is already normalised).
    """

    width: int
    stride: int = 1
    conv: Callable[..., nn.Module] = Conv
    norm: Callable[..., nn.Module] | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b p q d"]:
        """Project `x`."""
        x = self.conv(self.width, 1, self.stride, name="conv")(x)
        return x if self.norm is None else self.norm(name="norm")(x)
