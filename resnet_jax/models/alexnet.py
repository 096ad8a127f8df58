"""AlexNet in one tower: the network of 2012 as its author wrote it down in 2014.

Krizhevsky 2014 (arXiv:1404.5997), footnote 1, as torchvision has it: no local response
normalisation, 64 192 384 256 256 maps, 61,100,840 parameters. (Krizhevsky et al. 2012 has two
towers and 96 256 384 384 256.)
"""

from collections.abc import Callable

import flax.linen as nn

from resnet_jax.models.conv import Conv
from resnet_jax.models.heads import DenseHead, Pool
from resnet_jax.models.merges import plain
from resnet_jax.models.residual import Chain, Residual
from resnet_jax.models.resnet import SMALL

DEPTH = 8
# Its three poolings leave nothing of fewer pixels a side.
SMALLEST = 15


def alexnet(
    *,
    num_classes: int,
    image: int,
    width: int = 64,
    hidden: int = 4096,
    dropout: float = 0.5,
    conv: Callable[..., nn.Module] = Conv,
) -> Chain:
    """Five convolutions and three layers of matrices; `width` maps in the first convolution.

    Where `image` has fewer than 64 pixels a side, too few for the first layer's 11x11 windows four
    pixels apart, that layer is 5x5 without a stride and nothing is pooled to 6x6 (ours).
    """
    small = image < SMALL

    def layer(maps, size, stride, padding):
        one = conv(maps, size, stride, padding=padding, bias=True)
        return Residual(one, merge=plain, after=nn.relu)

    return Chain(
        {
            "conv1": layer(width, 5, 1, 2) if small else layer(width, 11, 4, 2),
            "pool1": Pool(3, 2),
            "conv2": layer(3 * width, 5, 1, 2),
            "pool2": Pool(3, 2),
            "conv3": layer(6 * width, 3, 1, 1),
            "conv4": layer(4 * width, 3, 1, 1),
            "conv5": layer(4 * width, 3, 1, 1),
            "pool3": Pool(3, 2),
            "head": DenseHead(
                (hidden, hidden), num_classes, None if small else 6, dropout, drop_first=True
            ),
        }
    )
