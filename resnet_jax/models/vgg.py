"""VGG: plain stacks of 3x3 convolutions, the depth that came before skip connections.

Simonyan & Zisserman 2014 (arXiv:1409.1556), Table 1, 224x224 images, 1000 classes:

| net | convolutions per stage | parameters | with batch norm |
|---|---|---|---|
| A, 11 layers | 1 1 2 2 2 | 132,863,336 | 132,868,840 |
| B, 13 | 2 2 2 2 2 | 133,047,848 | 133,053,736 |
| D, 16 | 2 2 3 3 3 | 138,357,544 | 138,365,992 |
| E, 19 | 2 2 4 4 4 | 143,667,240 | 143,678,248 |

Deeper networks follow the same rule: from 13 layers on, three more layers are one convolution more
in each of the last three stages. The parameters are counted from torchvision's networks, whose
batch-normalised convolutions keep their biases; those of 13 layers with norm are added up.

Kernels of convolutions and of hidden dense layers start by He's rule; the paper starts them from
N(0, 0.01^2) or from a shallower trained network (sec. 3.1). `model.kernel_start` names another
start of the convolutions.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn

from resnet_jax.keys import FRACTION, POSITIVE, SIZES, Config, Key, Part, default
from resnet_jax.models import activations, bodies
from resnet_jax.models.activations import RELU, Activation
from resnet_jax.models.conv import Conv
from resnet_jax.models.family import SKIPS, SMALL, Family, Layers, given_stages, side, switches
from resnet_jax.models.feedback import KEYS as FEEDBACK_KEYS
from resnet_jax.models.heads import DenseHead, Pool
from resnet_jax.models.layout import ONE_TAP, Layout, Row, flattened
from resnet_jax.models.merges import GATES, add, plain
from resnet_jax.models.norm import NoNorm
from resnet_jax.models.residual import Chain, Remat, Residual, Stack
from resnet_jax.models.skips import identity
from resnet_jax.models.starts import KEYS as START_KEYS


def vgg(
    stages: Sequence[int],
    *,
    num_outputs: int,
    image: int,
    skip: str = "none",
    width: int = 64,
    hidden: int = 4096,
    pool: int = 7,
    dropout: float = 0.5,
    merge: Callable = add,
    activation: Activation = RELU,
    conv: Callable[..., nn.Module] = Conv,
    norm: Callable[..., nn.Module] = NoNorm,
    remat: Remat = "none",
    unroll: int = 1,
) -> Chain:
    """Return `stages[i]` convolutions of `width` min(2^i, 8) maps each, then two hidden layers.

    A 2x2 max pooling follows each stage as long as `image`, the pixels on the shorter side, has
    more than one left, so that small images pass all five stages. Every convolution is a block:
    with `skip` A or B each has a skip connection of its own. The paper's networks have none
    (`skip='none'`). `activation` stands in the place of every ReLU.
    """
    conv = functools.partial(activation.kernels(conv), bias=True)
    act = activation.function
    body = lambda out: bodies.PostActivation(bodies.single(out), conv=conv, norm=norm)
    meet = plain if skip == "none" else merge
    blocks: dict[str, nn.Module] = {}
    channels = None
    for i, count in enumerate(stages, 1):
        out = width * min(2 ** (i - 1), 8)
        if out != channels:
            # The first block keeps nothing: the image has fewer channels than any width.
            wider = channels is not None and skip != "none"
            kept = SKIPS[skip].build(out, 1, True, conv, norm) if wider else identity
            first = plain if channels is None else meet
            blocks[f"stage{i}_first"] = Residual(body(out), kept, first, after=act)
            count -= 1
        if count:
            rest = Residual(body(out), merge=meet, after=act)
            blocks[f"stage{i}"] = Stack(rest, count, remat=remat, unroll=unroll)
        channels = out
        if image > 1:
            blocks[f"pool{i}"] = Pool(2, 2)
            image //= 2
    blocks["head"] = DenseHead(
        (hidden, hidden),
        num_outputs,
        pool,
        dropout,
        activation=act,
        variance=activation.variance,
    )
    return Chain(blocks)


def vgg_stages(depth: int) -> tuple[int, ...]:
    """Return the convolutions in each stage.

    Raises: ValueError with the rule and the nearest two depths.
    """
    if depth == 11:
        return (1, 1, 2, 2, 2)
    more, rest = divmod(depth - 13, 3)
    if rest or more < 0:
        near = (11, 13) if depth < 13 else (13 + 3 * more, 16 + 3 * more)
        raise ValueError(
            f"depth {depth} is no VGG (11, 13, 16, 19 and 3n+13); nearest {near[0]} and {near[1]}"
        )
    return (2, 2, *(2 + more,) * 3)


def hidden_width(width: int, image: int) -> int:
    """Return the units of a hidden layer: the papers' 4096 for 64 maps on large images.

    On small images there are 512: more would be nearly all of the network's parameters.
    """
    return width * (8 if image < SMALL else 64)


def build(config: Config, layers: Layers) -> Chain:
    """Return the config's network."""
    model, image = config.model, side(layers.shape)
    return vgg(
        given_stages(config, 1, 3) or vgg_stages(model.depth),
        num_outputs=layers.num_outputs,
        image=image,
        skip=model.skip,
        width=model.width,
        hidden=hidden_width(model.width, image),
        pool=1 if image < SMALL else 7,
        dropout=model.dropout,
        merge=layers.merge(3, layers.conv),
        activation=activations.activation(config, model.depth - 1),
        conv=layers.conv,
        norm=layers.norm,
        **layers.loop,
    )


def _features(config: Config) -> list[Row]:
    """Name convolutions and norms: both libraries number them, ReLUs and poolings included."""
    rows, number = [], 0
    norm = config.norm.kind == "batch"
    for s, count in enumerate(tuple(config.model.stages) or vgg_stages(config.model.depth), 1):
        for i in range(count):
            rows.append(Row(f"stage{s}.{i}.body.conv1", f"features.{number}"))
            rows.append(Row(f"stage{s}.{i}.body.norm1", f"features.{number + 1}"))
            number += 3 if norm else 2
        number += 1
    return rows


# timm stores the head's hidden layers as convolutions.
_TORCHVISION = (
    Row("head.dense1", "classifier.0", flattened(7)),
    Row("head.dense2", "classifier.3"),
    Row("head.dense", "classifier.6"),
)
_TIMM = (
    Row("head.dense1", "pre_logits.fc1", flattened(7, 4)),
    Row("head.dense2", "pre_logits.fc2", ONE_TAP),
    Row("head.dense", "head.fc"),
)


def _values(config: Config) -> dict[str, Any]:
    values: dict[str, Any] = {"model.skip": "none"}
    if config.norm.kind == "batch":
        values["norm.epsilon"] = 1e-5
    if side(config.data.shape) < SMALL:  # the libraries' head sees 7x7 positions
        values["data.shape"] = (224, 224, 3)
    return values


def _family(summary: str, norm: str) -> Family:
    return Family(
        summary,
        build=build,
        keys={
            "model.stages": Key((), SIZES, "convolutions in each stage; () is the depth's"),
            "model.width": Key(default(vgg, "width"), POSITIVE, "maps of the first stage"),
            "model.dropout": Key(
                default(vgg, "dropout"), FRACTION, "rate of dropout after each hidden layer"
            ),
        }
        | START_KEYS
        | FEEDBACK_KEYS
        | activations.KEYS,
        switches=switches(
            {"single": Part("one 3x3 convolution")},
            skips=("none", "A", "B"),
            merges=("add", "rezero", *GATES),
            norms=tuple(dict.fromkeys((norm, "none", "batch", "group", "layer"))),
        ),
        check=activations.check,
        depth=11,
        layouts=(
            Layout("torchvision", ("single",), _values, lambda c: _features(c) + [*_TORCHVISION]),
            Layout("timm", ("single",), _values, lambda c: _features(c) + [*_TIMM]),
        ),
        plain=True,
    )


FAMILY = _family("VGG", "none")
FAMILY_BN = _family("VGG with batch norm", "batch")
