"""VGG: plain stacks of 3x3 convolutions, the depth that came before skip connections.

Simonyan & Zisserman 2014 (arXiv:1409.1556), Table 1, 224x224 images, 1000 classes:

| net | convolutions per stage | parameters | with batch norm |
|---|---|---|---|
| A, 11 layers | 1 1 2 2 2 | 132,863,336 | 132,868,840 |
| B, 13 | 2 2 2 2 2 | 133,047,848 | 133,053,736 |
| D, 16 | 2 2 3 3 3 | 138,357,544 | 138,365,992 |
| E, 19 | 2 2 4 4 4 | 143,667,240 | 143,678,248 |

and by the same rule deeper: from 13 layers on, each step of three adds one convolution to each of
the last three stages. Counted by torchvision's networks (whose batch-normalised convolutions keep
their biases); 13 with norm by adding up.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn

from resnet_jax.models import bodies
from resnet_jax.models.conv import Conv
from resnet_jax.models.heads import DenseHead, Pool
from resnet_jax.models.merges import add, plain
from resnet_jax.models.norm import NoNorm
from resnet_jax.models.residual import Chain, Remat, Residual, Stack
from resnet_jax.models.skips import Projection, ZeroPad, identity

STAGES = 5


def vgg(
    stages: Sequence[int],
    *,
    num_classes: int,
    image: int,
    skip: str = "none",
    width: int = 64,
    hidden: int = 4096,
    pool: int = 7,
    dropout: float = 0.5,
    merge: Callable = add,
    conv: Callable[..., nn.Module] = Conv,
    norm: Callable[..., nn.Module] = NoNorm,
    remat: Remat = "none",
    unroll: int = 1,
) -> Chain:
    """`stages[i]` convolutions of `width` min(2^i, 8) maps and 2x2 max pooling; two hidden layers.

    Pooling ends where `image` has one pixel left, so that small images pass all five stages. Every
    convolution is a block: with `skip` A or B each has a skip connection of its own, which the
    paper's networks have not (`skip='none'`).
    """
    conv = functools.partial(conv, bias=True)
    body = lambda out: bodies.PostActivation(bodies.single(out), conv=conv, norm=norm)
    meet = plain if skip == "none" else merge
    blocks: dict[str, nn.Module] = {}
    channels = None
    for i, count in enumerate(stages, 1):
        out = width * min(2 ** (i - 1), 8)
        if out != channels:
            # The image's own channels are fewer than any width: nothing to keep in the first.
            kept = identity if skip == "none" or channels is None else _wider(skip, out, conv, norm)
            first = plain if channels is None else meet
            blocks[f"stage{i}_first"] = Residual(body(out), kept, first, after=nn.relu)
            count -= 1
        if count:
            rest = Residual(body(out), merge=meet, after=nn.relu)
            blocks[f"stage{i}"] = Stack(rest, count, remat=remat, unroll=unroll)
        channels = out
        if image > 1:
            blocks[f"pool{i}"] = Pool(2, 2)
            image //= 2
    blocks["head"] = DenseHead((hidden, hidden), num_classes, pool, dropout)
    return Chain(blocks)


def _wider(skip: str, width: int, conv, norm) -> Callable:
    return Projection(width, 1, conv, norm) if skip == "B" else ZeroPad(width)


def vgg_stages(depth: int) -> tuple[int, ...]:
    """Convolutions per stage. Raises: ValueError with the rule and the nearest two depths."""
    if depth == 11:
        return (1, 1, 2, 2, 2)
    more, rest = divmod(depth - 13, 3)
    if rest or more < 0:
        near = (11, 13) if depth < 13 else (13 + 3 * more, 16 + 3 * more)
        raise ValueError(
            f"depth {depth} is no VGG (11, 13, 16, 19 and 3n+13); nearest {near[0]} and {near[1]}"
        )
    return (2, 2, *(2 + more,) * 3)
