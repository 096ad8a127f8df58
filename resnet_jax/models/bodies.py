"""The bodies of residual blocks: f = body(z). He et al. 2015, Fig. 5; He et al. 2016, Fig. 4.

A body has a shape and an order. The shape is a row of convolutions (`single`, `basic`, `triple`,
`quadruple`, `bottleneck`). The order places norms and ReLUs among them (`PostActivation`,
`PreActivation`, `Fixup`). `conv` and `norm` are constructors of the layers; a network binds its
number type and constants to them. If `zero`, the body starts at zero, so that a block with an
identity skip starts as the identity: the scale of the last norm starts at zero, or the kernel of
the last convolution if the body ends with one.

Shapes: (b, h, w, c) -> (b, h / stride, w / stride, d), where d is the width of the last layer.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from resnet_jax.models.conv import Conv
from resnet_jax.models.dropout import Dropout
from resnet_jax.models.norm import BatchNorm

Input = Float[Array, "b h w c"]
Output = Float[Array, "b p q d"]


class Layer(NamedTuple):
    """One convolution of a body, in the order of the first fields of `Conv`."""

    width: int
    size: int = 3
    stride: int = 1
    groups: int = 1


Layers = tuple[Layer, ...]
# A row of layers, or a function of the input's channels that returns the row.
Row = Layers | Callable[[int], Layers]


def single(width: int, stride: int = 1, size: int = 3) -> Layers:
    """One convolution: VGG, highway networks, and the one-layer skips of He et al. 2016.

    It is 3x3 unless `size` is another odd number, as in the comparison with 5x5 kernels of Simonyan
    & Zisserman 2014, arXiv:1409.1556, sec. 2.3.
    """
    return (Layer(width, size, stride),)


def basic(width: int, stride: int = 1) -> Layers:
    """Two 3x3 convolutions: He et al. 2015, Fig. 5 left."""
    return Layer(width, 3, stride), Layer(width)


def triple(width: int, stride: int = 1) -> Layers:
    """Three 3x3 convolutions: B(3,3,3) of Zagoruyko & Komodakis 2016, arXiv:1605.07146."""
    return *basic(width, stride), Layer(width)


def quadruple(width: int, stride: int = 1) -> Layers:
    """Four 3x3 convolutions: B(3,3,3,3) of Zagoruyko & Komodakis 2016, arXiv:1605.07146."""
    return *triple(width, stride), Layer(width)


def bottleneck(
    width: int,
    stride: int = 1,
    stride_at: Literal["1x1", "3x3"] = "1x1",
    widen: int = 1,
    groups: int = 1,
) -> Layers:
    """Three convolutions, 1x1 down, 3x3, and 1x1 up to 4 `width`: He et al. 2015, Fig. 5 right.

    The inner width is `widen` times `width` (Wide ResNet). `groups` is the number of groups of the
    3x3 convolution (the cardinality of ResNeXt). `stride_at` names the convolution that has the
    stride: '1x1' as in He et al. 2015, Table 1; '3x3' as in torchvision and most others ("v1.5").
    """
    first, second = (stride, 1) if stride_at == "1x1" else (1, stride)
    inner = widen * width
    return Layer(inner, 1, first), Layer(inner, 3, second, groups), Layer(4 * width, 1)


def layers_of(row: Row, x: Input) -> Layers:
    """Return the layers of a body whose input is `x`."""
    return row(x.shape[-1]) if callable(row) else row


class PostActivation(nn.Module):
    """Convolution, norm, ReLU for every layer, up to `end` after the last convolution.

    end='norm' is the original block: conv-norm-relu-conv-norm (He et al. 2016, Fig. 4a). With
    end='conv', the norm follows the addition instead (Fig. 4b). With end='relu', the last ReLU
    precedes the addition (Fig. 4c). `lead` puts the `activation`, a ReLU, first; with end='norm'
    that is the ReLU-only pre-activation (Fig. 4d). Norms apply theirs (`Activation.behind`).
    """

    layers: Row
    end: Literal["conv", "norm", "relu"] = "norm"
    lead: bool = False
    zero: bool = False
    conv: Callable[..., nn.Module] = Conv
    norm: Callable[..., nn.Module] = BatchNorm
    activation: Callable = nn.relu

    @nn.compact
    def __call__(self, x: Input) -> Output:
        """F(x)."""
        layers = layers_of(self.layers, x)
        x = self.activation(x) if self.lead else x
        for i, layer in enumerate(layers, 1):
            last = i == len(layers)
            bare = last and self.end == "conv"
            gain = 0.0 if self.zero and bare else 1.0
            x = self.conv(*layer, gain=gain, name=f"conv{i}")(x)
            if not bare:
                relu = not last or self.end == "relu"
                x = self.norm(relu=relu, zero=self.zero and last, name=f"norm{i}")(x)
        return x


class PreActivation(nn.Module):
    """Norm, ReLU, convolution for every layer: He et al. 2016, Fig. 4e.

    lead=False leaves out the first norm and ReLU, because the block's `before` applies them for
    skip and body. `dropout` is the rate of dropout after every convolution (DenseNet), and
    `between` that of dropout before every convolution but the first (Wide ResNet).
    """

    layers: Row
    lead: bool = True
    zero: bool = False
    dropout: float = 0.0
    between: float = 0.0
    conv: Callable[..., nn.Module] = Conv
    norm: Callable[..., nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x: Input) -> Output:
        """F(x)."""
        layers = layers_of(self.layers, x)
        for i, layer in enumerate(layers, 1):
            if i > 1 or self.lead:
                x = self.norm(relu=True, name=f"norm{i}")(x)
            if self.between and i > 1:  # a module that is always there would change others' draws
                x = Dropout(self.between)(x)
            gain = 0.0 if self.zero and i == len(layers) else 1.0
            x = self.conv(*layer, gain=gain, name=f"conv{i}")(x)
            x = Dropout(self.dropout)(x)
        return x


class Fixup(nn.Module):
    """A body without norms that starts at zero, and that trains in very deep networks.

    A network has `blocks` blocks with m convolutions each. In each block, the last convolution
    starts at zero and the others at He's initialisation times blocks^(-1 / (2m - 2)). A scalar bias
    precedes every convolution and every ReLU; a scalar gain and a bias follow the last convolution.

    Source: Zhang et al. 2019, arXiv:1901.09321, sec. 3 ("Fixup") and Fig. 1 right.
    Differs: in the authors' code, the skip of a block that changes the shape also sees x with the
    first bias added; here it sees x.
    """

    layers: Row
    blocks: int
    conv: Callable[..., nn.Module] = Conv

    @nn.compact
    def __call__(self, x: Input) -> Output:
        """F(x)."""
        scalar = lambda name, start: self.param(name, nn.initializers.constant(start), ()).astype(
            x.dtype
        )
        layers = layers_of(self.layers, x)
        m = len(layers)
        for i, layer in enumerate(layers, 1):
            gain = 0.0 if i == m else self.blocks ** (-1 / (2 * m - 2))
            x = x + scalar(f"before{i}", 0.0)
            x = self.conv(*layer, gain=gain, name=f"conv{i}")(x)
            x = x * scalar("gain", 1.0) if i == m else x
            x = x + scalar(f"after{i}", 0.0)
            x = x if i == m else nn.relu(x)
        return x
