"""What a block learns: f = body(z). He et al. 2015, Fig. 5 and 2016, Fig. 4.

`conv` and `norm` make the layers (Conv and a norm, with the network's type and constants bound).
`zero` starts the body at zero, so that a block with an identity skip starts as the identity: by
the last norm's scale, or in a pre-activation body, which ends with a convolution, by its kernel.
"""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
from jaxtyping import Array, Float

from resnet_jax.models.conv import Conv
from resnet_jax.models.norm import BatchNorm

Input = Float[Array, "b h w c"]
Output = Float[Array, "b p q d"]


class Basic(nn.Module):
    """conv3-norm-relu-conv3-norm: (b, h, w, c) -> (b, h / stride, w / stride, width)."""

    width: int
    stride: int = 1
    zero: bool = False
    conv: Callable[..., nn.Module] = Conv
    norm: Callable[..., nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x: Input) -> Output:
        """F(x) of He et al. 2015, Fig. 5 left."""
        x = self.conv(self.width, 3, self.stride, name="conv1")(x)
        x = self.norm(relu=True, name="norm1")(x)
        x = self.conv(self.width, 3, name="conv2")(x)
        return self.norm(zero=self.zero, name="norm2")(x)


class Bottleneck(nn.Module):
    """conv1-conv3-conv1, the last 4 times as wide: (b, h, w, c) -> (b, h / s, w / s, 4 width).

    `stride_at`: '1x1' as in He et al. 2015, Table 1, '3x3' as torchvision and most others ("v1.5").
    """

    width: int
    stride: int = 1
    zero: bool = False
    stride_at: Literal["1x1", "3x3"] = "1x1"
    conv: Callable[..., nn.Module] = Conv
    norm: Callable[..., nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x: Input) -> Output:
        """F(x) of He et al. 2015, Fig. 5 right."""
        first, second = (self.stride, 1) if self.stride_at == "1x1" else (1, self.stride)
        x = self.conv(self.width, 1, first, name="conv1")(x)
        x = self.norm(relu=True, name="norm1")(x)
        x = self.conv(self.width, 3, second, name="conv2")(x)
        x = self.norm(relu=True, name="norm2")(x)
        x = self.conv(4 * self.width, 1, name="conv3")(x)
        return self.norm(zero=self.zero, name="norm3")(x)


class PreBasic(nn.Module):
    """norm-relu-conv3-norm-relu-conv3: (b, h, w, c) -> (b, h / stride, w / stride, width).

    `lead=False` leaves the first norm-relu out: the block's `before` does it for both paths.
    """

    width: int
    stride: int = 1
    zero: bool = False
    lead: bool = True
    conv: Callable[..., nn.Module] = Conv
    norm: Callable[..., nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x: Input) -> Output:
        """F(x) of He et al. 2016, Fig. 4e."""
        x = self.norm(relu=True, name="norm1")(x) if self.lead else x
        x = self.conv(self.width, 3, self.stride, name="conv1")(x)
        x = self.norm(relu=True, name="norm2")(x)
        return self.conv(self.width, 3, zero=self.zero, name="conv2")(x)


class PreBottleneck(nn.Module):
    """Pre-activation bottleneck: (b, h, w, c) -> (b, h / stride, w / stride, 4 width)."""

    width: int
    stride: int = 1
    zero: bool = False
    lead: bool = True
    stride_at: Literal["1x1", "3x3"] = "1x1"
    conv: Callable[..., nn.Module] = Conv
    norm: Callable[..., nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x: Input) -> Output:
        """F(x) of He et al. 2016, Fig. 4e, with the bottleneck of its sec. 5."""
        first, second = (self.stride, 1) if self.stride_at == "1x1" else (1, self.stride)
        x = self.norm(relu=True, name="norm1")(x) if self.lead else x
        x = self.conv(self.width, 1, first, name="conv1")(x)
        x = self.norm(relu=True, name="norm2")(x)
        x = self.conv(self.width, 3, second, name="conv2")(x)
        x = self.norm(relu=True, name="norm3")(x)
        return self.conv(4 * self.width, 1, zero=self.zero, name="conv3")(x)
