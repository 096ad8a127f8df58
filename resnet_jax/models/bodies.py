"""What a block learns: f = body(z). He et al. 2015, Fig. 5 and 2016, Fig. 4.

A body is a row of convolutions (`single`, `basic`, `bottleneck`: its shape) and the places of its
norms and ReLUs (`PostActivation`, `PreActivation`: its order). `conv` and `norm` make the layers,
with the network's type and constants bound. `zero` starts the body at zero, so that a block with
an identity skip starts as the identity: by the last norm's scale, or in a body that ends with a
convolution by its kernel.

Shapes: (b, h, w, c) -> (b, h / stride, w / stride, d), d the width of the last layer.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from resnet_jax.models.conv import Conv
from resnet_jax.models.drop import Dropout
from resnet_jax.models.norm import BatchNorm

Input = Float[Array, "b h w c"]
Output = Float[Array, "b p q d"]


class Layer(NamedTuple):
    """One convolution of a body: the fields that `Conv` begins with."""

    width: int
    size: int = 3
    stride: int = 1
    groups: int = 1


Layers = tuple[Layer, ...]


def single(width: int, stride: int = 1) -> Layers:
    """One 3x3 convolution: VGG's and highway networks', and He et al. 2016's one-layer skip."""
    return (Layer(width, 3, stride),)


def basic(width: int, stride: int = 1) -> Layers:
    """Two 3x3 convolutions: He et al. 2015, Fig. 5 left."""
    return Layer(width, 3, stride), Layer(width)


def bottleneck(
    width: int,
    stride: int = 1,
    stride_at: Literal["1x1", "3x3"] = "1x1",
    widen: int = 1,
    groups: int = 1,
) -> Layers:
    """1x1 down, 3x3, 1x1 up to 4 `width`: He et al. 2015, Fig. 5 right.

    The inner width is `widen` times `width` (Wide ResNet; ResNeXt's cardinality is `groups`).
    `stride_at`: '1x1' as in He et al. 2015, Table 1, '3x3' as torchvision and most others ("v1.5").
    """
    first, second = (stride, 1) if stride_at == "1x1" else (1, stride)
    inner = widen * width
    return Layer(inner, 1, first), Layer(inner, 3, second, groups), Layer(4 * width, 1)


class PostActivation(nn.Module):
    """conv-norm-relu for every layer, up to `end` after the last convolution.

    end='norm': conv-norm-relu-conv-norm, the original (He et al. 2016, Fig. 4a); 'conv': the norm
    is left to what follows the addition (Fig. 4b); 'relu': the ReLU stands before it (Fig. 4c).
    `lead`: a ReLU comes first (Fig. 4d, ReLU-only pre-activation, with end='norm').
    """

    layers: Layers
    end: Literal["conv", "norm", "relu"] = "norm"
    lead: bool = False
    zero: bool = False
    conv: Callable[..., nn.Module] = Conv
    norm: Callable[..., nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x: Input) -> Output:
        """F(x)."""
        x = nn.relu(x) if self.lead else x
        for i, layer in enumerate(self.layers, 1):
            last = i == len(self.layers)
            bare = last and self.end == "conv"
            gain = 0.0 if self.zero and bare else 1.0
            x = self.conv(*layer, gain=gain, name=f"conv{i}")(x)
            if not bare:
                relu = not last or self.end == "relu"
                x = self.norm(relu=relu, zero=self.zero and last, name=f"norm{i}")(x)
        return x


class PreActivation(nn.Module):
    """norm-relu-conv for every layer: He et al. 2016, Fig. 4e.

    `lead=False` leaves the first norm-relu out: the block's `before` does it for both paths.
    `dropout`: the rate of dropout after every convolution (DenseNet).
    """

    layers: Layers
    lead: bool = True
    zero: bool = False
    dropout: float = 0.0
    conv: Callable[..., nn.Module] = Conv
    norm: Callable[..., nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x: Input) -> Output:
        """F(x)."""
        for i, layer in enumerate(self.layers, 1):
            if i > 1 or self.lead:
                x = self.norm(relu=True, name=f"norm{i}")(x)
            gain = 0.0 if self.zero and i == len(self.layers) else 1.0
            x = self.conv(*layer, gain=gain, name=f"conv{i}")(x)
            x = Dropout(self.dropout)(x)
        return x


class Fixup(nn.Module):
    """A body without norms that starts at zero and may still be very deep.

    Of m convolutions in each of `blocks` blocks the last starts at zero and the others at He's
    initialisation times blocks^(-1 / (2m - 2)); a scalar bias stands before every convolution and
    every ReLU, a scalar gain before the addition, and a bias after it.

    Source: Zhang et al. 2019, arXiv:1901.09321, sec. 3 ("Fixup") and Fig. 1 right.
    Differs: where its authors' code changes the shape, the skip too sees x with the first bias.
    """

    layers: Layers
    blocks: int
    conv: Callable[..., nn.Module] = Conv

    @nn.compact
    def __call__(self, x: Input) -> Output:
        """F(x)."""
        scalar = lambda name, start: self.param(name, nn.initializers.constant(start), ()).astype(
            x.dtype
        )
        m = len(self.layers)
        for i, layer in enumerate(self.layers, 1):
            gain = 0.0 if i == m else self.blocks ** (-1 / (2 * m - 2))
            x = x + scalar(f"before{i}", 0.0)
            x = self.conv(*layer, gain=gain, name=f"conv{i}")(x)
            x = x * scalar("gain", 1.0) if i == m else x
            x = x + scalar(f"after{i}", 0.0)
            x = x if i == m else nn.relu(x)
        return x
