"""The layers of a convolutional network before its first block."""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
from jaxtyping import Array, Float

from resnet_jax.models.heads import Pool

StemKind = Literal["3x3", "7x7"]


class Stem(nn.Module):
    """The layers before the first block.

    '3x3' is one convolution. '7x7' is a convolution with stride 2 and then 3x3 max pooling with
    stride 2. Norm and ReLU follow the convolution if `activate`; a pre-activation network leaves
    them to its first block.

    Differs: He et al. 2016's code for ImageNet has norm and ReLU before the pooling in
    pre-activation networks, too. With fixed statistics and positive scales that gives the same.
    While a network trains, the first block's batch norm sees other moments behind the pooling. Ours
    equals timm's.

    Shapes: (b, h, w, c) -> (b, h, w, width), or (b, h / 4, w / 4, width).
    """

    width: int
    kind: StemKind
    activate: bool
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b p q d"]:
        """Lift the image to the first stage's channels."""
        size, stride = (3, 1) if self.kind == "3x3" else (7, 2)
        x = self.conv(self.width, size, stride, name="conv")(x)
        if self.activate:
            x = self.norm(relu=True, name="norm")(x)
        if self.kind == "7x7":
            x = Pool(3, 2, 1)(x)
        return x
