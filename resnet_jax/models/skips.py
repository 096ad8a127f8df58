"""The skips of residual blocks: s = skip(z) is what a block keeps of its input."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.models.conv import Conv


def identity(x):
    """s = z."""
    return x


class ZeroPad(nn.Module):
    """Option A: every `stride`-th pixel, with zeros for the new channels. It has no weights.

    where='end' puts the new channels last (He et al. 2015, sec. 3.3, option A). where='split' puts
    half of them on each side, which the widely used akamaster weights expect. If `average`, the
    pixels are the means of `stride` x `stride` windows, of which those at the end may be smaller
    (the authors' code of Huang et al. 2016, arXiv:1603.09382, which has images of even sizes).

    Shapes: (b, h, w, c) -> (b, ceil(h / stride), ceil(w / stride), width).
    Raises: ValueError if `width` is less than c.
    """

    width: int
    stride: int = 1
    where: Literal["end", "split"] = "end"
    average: bool = False

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b p q d"]:
        """Subsample and pad."""
        new = self.width - x.shape[-1]
        if new < 0:
            raise ValueError(
                f"option A cannot narrow {x.shape[-1]} channels to {self.width}; use option B"
            )
        before = new // 2 if self.where == "split" else 0
        if self.average:
            x = _means(x, self.stride)
        else:
            x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, new - before)))


def _means(x: Float[Array, "b h w c"], stride: int) -> Float[Array, "b p q c"]:
    """Return the means over windows of stride x stride pixels."""
    window = (stride, stride)
    ends: Any = [(0, -side % stride) for side in x.shape[1:3]]
    return nn.avg_pool(x, window, window, ends, count_include_pad=False)


class Projection(nn.Module):
    """Options B and C: a 1x1 convolution, followed by a norm if `norm` is given.

    A norm follows every convolution of a v1 network, this one included. A pre-activation network
    gives no norm here, because the input of the projection is already normalised.

    Shapes: (b, h, w, c) -> (b, ceil(h / stride), ceil(w / stride), width).
    Source: He et al. 2015, arXiv:1512.03385, eq. 2 and sec. 3.3.
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
