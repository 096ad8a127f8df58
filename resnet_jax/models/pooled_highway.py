"""The convolutional highway networks of Srivastava et al. 2015, as the authors' code has them.

    layers  input  stages of highway layers between max poolings             end
    10      MNIST  conv 5x5 w, 2 x w | 3 x w | 3 x w                         dense
    19      CIFAR  conv 3x3 w, 4 x w | conv, 5 x 2.5w | conv, 5 x 4w         conv 1x1, dense

Source: arXiv:1507.06228, sec. 3.2 and Tables 1 and 2 (Highway B); the widths, the places of pooling
and dropout and the initial biases are those of github.com/flukeskywalker/highway-networks. The
networks of 11 and 32 layers (Highway A and C) are not in that code, and the paper does not give
their widths.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.models import bodies
from resnet_jax.models.conv import Conv
from resnet_jax.models.dense import Classifier, Flatten
from resnet_jax.models.dropout import Dropout
from resnet_jax.models.heads import Mean
from resnet_jax.models.merges import plain
from resnet_jax.models.residual import Chain, Remat, Residual, Stack
from resnet_jax.models.stages import published


class Stage(NamedTuple):
    """Highway layers of one width, and the pooling behind them.

    `entry` is the size of the plain convolution before them, 0 if there is none. `pool` is the size
    of the max pooling, which has stride 2.
    """

    width: float  # in units of the first stage's width
    layers: int
    entry: int
    pool: int


class Network(NamedTuple):
    """A network of the paper: its stages, the width of its last 1x1 convolution, and dropout.

    `more_dropout` has, for the input and for each pooling, the published rate of dropout less that
    of the input (0.2): model.dropout is added to it. `valid`: the first convolution has no padding.
    """

    stages: tuple[Stage, ...]
    last: int
    more_dropout: tuple[float, ...]
    valid: bool


NETWORKS = {
    10: Network(
        (Stage(1, 2, 5, 3), Stage(1, 3, 0, 3), Stage(1, 3, 0, 2)),
        last=0,
        more_dropout=(0.0, 0.1, 0.2, 0.3),
        valid=True,
    ),
    19: Network(
        (Stage(1, 4, 3, 2), Stage(2.5, 5, 3, 2), Stage(4, 5, 3, 0)),
        last=100,
        more_dropout=(0.0,) * 4,
        valid=False,
    ),
}


class CeilPool(nn.Module):
    """Max pooling with stride 2 in which the last window may reach beyond the image, as in Caffe.

    Shapes: (b, h, w, c) -> (b, ceil((h - size) / 2) + 1, ceil((w - size) / 2) + 1, c).
    """

    size: int

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b p q c"]:
        """Pool `x`."""
        ends: Any = [(0, (side - self.size) % 2) for side in x.shape[1:3]]
        return nn.max_pool(x, (self.size, self.size), (2, 2), ends)


def pooled_highway(
    depth: int,
    *,
    num_outputs: int,
    merge: Callable | None,
    width: int,
    dropout: float = 0.2,
    conv: Callable[..., nn.Module] = Conv,
    norm: Callable[..., nn.Module],
    remat: Remat = "none",
    unroll: int = 1,
) -> Chain:
    """Return the published network of this depth, whose first stage has `width` maps.

    `merge=None` gives plain layers in the place of highway layers. `dropout` is the rate on the
    input; the other rates differ from it as the published ones do, and 0 is no dropout at all.
    Shapes: (b, h, w, c) -> (b, num_outputs). Raises: ValueError for another depth.
    """
    network = published(NETWORKS, depth, "pooled highway of the paper")
    rates = (dropout and dropout + more for more in network.more_dropout)

    def layer(out: int, size: int = 3, merge: Callable = plain, padding: int | None = None):
        made = conv if padding is None else lambda *a, **k: conv(*a, padding=padding, **k)
        row = (bodies.Layer(out, size),)
        return Residual(bodies.PostActivation(row, end="relu", conv=made, norm=norm), merge=merge)

    blocks: dict[str, nn.Module] = {"dropout0": Dropout(next(rates))}
    for i, stage in enumerate(network.stages, 1):
        out = round(stage.width * width)
        if stage.entry:
            padding = 0 if network.valid and i == 1 else None
            blocks[f"stage{i}_first"] = layer(out, stage.entry, padding=padding)
        highways = layer(out, merge=merge or plain)
        blocks[f"stage{i}"] = Stack(highways, stage.layers, remat=remat, unroll=unroll)
        if stage.pool:
            blocks[f"pool{i}"] = CeilPool(stage.pool)
            blocks[f"dropout{i}"] = Dropout(next(rates))
    if network.last:
        blocks["last"] = layer(network.last, 1)
        blocks["mean"] = Mean()
        blocks["dropout"] = Dropout(next(rates))
    else:
        blocks["flatten"] = Flatten(jnp.float32)
    blocks["head"] = Classifier(num_outputs)
    return Chain(blocks)
