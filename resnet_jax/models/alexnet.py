"""AlexNet in one tower: the network of 2012 as its author wrote it down in 2014.

Krizhevsky 2014 (arXiv:1404.5997), footnote 1, as torchvision has it: no local response
normalisation, 64 192 384 256 256 maps, 61,100,840 parameters. (Krizhevsky et al. 2012 has two
towers and 96 256 384 384 256.)
"""

from collections.abc import Callable

import flax.linen as nn

from resnet_jax.keys import FRACTION, POSITIVE, Config, Key, default
from resnet_jax.models import activations
from resnet_jax.models.activations import RELU, Activation
from resnet_jax.models.conv import Conv
from resnet_jax.models.family import SMALL, Family, Layers, check_image, side
from resnet_jax.models.heads import DenseHead, Pool
from resnet_jax.models.layout import Layout, Row, flattened
from resnet_jax.models.lenet import NO_CHOICES, check_depth
from resnet_jax.models.merges import plain
from resnet_jax.models.residual import Chain, Residual
from resnet_jax.models.vgg import hidden_width

DEPTH = 8
# The three poolings leave nothing of an image with fewer pixels on a side.
SMALLEST = 15


def alexnet(
    *,
    num_outputs: int,
    image: int,
    width: int = 64,
    hidden: int = 4096,
    dropout: float = 0.5,
    activation: Activation = RELU,
    conv: Callable[..., nn.Module] = Conv,
) -> Chain:
    """Return five convolutions and three dense layers, with `width` maps in the first convolution.

    An `image` with fewer than 64 pixels on a side is too small for the first layer's 11x11 windows
    four pixels apart. On it that layer is 5x5 without a stride, and nothing is pooled to 6x6; this
    small form is ours. `activation` stands in the place of every ReLU.
    """
    small = image < SMALL
    conv = activation.kernels(conv)

    def layer(maps, size, stride, padding):
        body = conv(maps, size, stride, padding=padding, bias=True)
        return Residual(body, merge=plain, after=activation.function)

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
                (hidden, hidden),
                num_outputs,
                None if small else 6,
                dropout,
                drop_first=True,
                activation=activation.function,
                variance=activation.variance,
            ),
        }
    )


def build(config: Config, layers: Layers) -> Chain:
    """Return the network. Raises: ValueError for another depth, and for a smaller image."""
    check_depth(config, DEPTH)
    check_image(layers.shape, SMALLEST, "alexnet")
    model, image = config.model, side(layers.shape)
    return alexnet(
        num_outputs=layers.num_outputs,
        image=image,
        width=model.width,
        hidden=hidden_width(model.width, image),
        dropout=model.dropout,
        activation=activations.activation(config, DEPTH - 1),
        conv=layers.conv,
    )


_ROWS = (
    *(Row(f"conv{n}.body", f"features.{i}") for n, i in enumerate((0, 3, 6, 8, 10), 1)),
    Row("head.dense1", "classifier.1", flattened(6)),
    Row("head.dense2", "classifier.4"),
    Row("head.dense", "classifier.6"),
)

FAMILY = Family(
    "AlexNet in one tower",
    build=build,
    keys={
        "model.width": Key(default(alexnet, "width"), POSITIVE, "maps of the first convolution"),
        "model.dropout": Key(
            default(alexnet, "dropout"), FRACTION, "rate of dropout before each hidden layer"
        ),
    }
    | activations.KEYS,
    check=activations.check,
    switches=NO_CHOICES,
    depth=DEPTH,
    layouts=(
        Layout("torchvision", ("single",), lambda _: {"model.skip": "none"}, lambda _: _ROWS),
    ),
    plain=True,
)
