"""LeNet-5: the convolutional network of 1998.

LeCun et al. 1998 ("Gradient-based learning applied to document recognition"), Fig. 2, in the form
that is common today. It differs from the paper in three places: subsampling is a mean without the
two trained numbers of each map, all 6 maps feed all 16 maps of the next layer instead of those that
Table I connects, and the output is a softmax instead of radial basis functions. It has 61,706
parameters on MNIST. Its kernels start with the gain of a ReLU (He et al. 2015), which is more than
tanh needs: N(0, 2 / fan-in), where the paper has U(-a, a) with a = 2.4 / fan-in.
"""

from collections.abc import Callable

import flax.linen as nn

from resnet_jax.keys import Config, Part
from resnet_jax.models.conv import Conv
from resnet_jax.models.family import Family, Layers, check_image, side, switches
from resnet_jax.models.heads import DenseHead, Pool
from resnet_jax.models.merges import plain
from resnet_jax.models.residual import Chain, Residual

DEPTH = 5
# The two 5x5 convolutions and poolings leave nothing of an image with fewer pixels on a side.
SMALLEST = 12


def lenet(*, num_outputs: int, image: int, conv: Callable[..., nn.Module] = Conv) -> Chain:
    """Return two convolutions, each with tanh and a 2x2 mean, and layers of 120 and 84 units.

    The paper's images have 32 pixels on a side: MNIST's 28 with zeros around them. Images of fewer
    than 32 pixels are padded in the same way. The paper's third convolution covers all of its
    image, so that it is the first hidden layer here.
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
            "head": DenseHead((120, 84), num_outputs, activation=nn.tanh),
        }
    )


def build(config: Config, layers: Layers) -> Chain:
    """Return the network. Raises: ValueError for another depth, and for a smaller image."""
    check_depth(config, DEPTH)
    check_image(layers.shape, SMALLEST, "lenet")
    return lenet(num_outputs=layers.num_outputs, image=side(layers.shape), conv=layers.conv)


def check_depth(config: Config, depth: int) -> None:
    """Raise a ValueError if the config asks for another depth than the family's only one."""
    if config.model.depth != depth:
        raise ValueError(
            f"depth {config.model.depth} is no {config.model.family}, which has {depth} layers"
        )


# The choices of a family that is one plain network without norms.
NO_CHOICES = switches({"single": Part("a convolution")}, ("none",), ("add",), ("none",))

FAMILY = Family("LeNet-5", build=build, switches=NO_CHOICES, depth=DEPTH, plain=True)
