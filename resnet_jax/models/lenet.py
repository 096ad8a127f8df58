"""LeNet-5: the convolutional network of 1998.

LeCun et al. 1998 ("Gradient-based learning applied to document recognition"), Fig. 2, in the form
that is common today: means without trained coefficients where the paper's subsampling has two
numbers a map, all 6 maps feed all 16 where its Table I connects some, and a softmax where it has
radial basis functions. 61,706 parameters on MNIST.
"""

from collections.abc import Callable

import flax.linen as nn

from resnet_jax.models.conv import Conv
from resnet_jax.models.heads import DenseHead, Pool
from resnet_jax.models.merges import plain
from resnet_jax.models.residual import Chain, Residual

DEPTH = 5
# The two 5x5 convolutions and poolings leave nothing of fewer pixels a side.
SMALLEST = 12


def lenet(*, num_classes: int, image: int, conv: Callable[..., nn.Module] = Conv) -> Chain:
    """Two convolutions, each with tanh and a 2x2 mean, then 120 and 84 hidden units.

    The paper's images are 32 pixels a side, MNIST's 28 with zeros around: smaller ones are padded
    so. The third convolution covers all that is left of its image, so that it is a hidden layer.
    """
    layer = lambda width, padding: Residual(
        conv(width, 5, padding=padding, bias=True), merge=plain, after=nn.tanh
    )
    return Chain(
        {
            "conv1": layer(6, 2 if image < 32 else 0),
            "pool1": Pool(2, 2, kind="mean"),
            "conv2": layer(16, 0),
            "pool2": Pool(2, 2, kind="mean"),
            "head": DenseHead((120, 84), num_classes, activation=nn.tanh),
        }
    )
