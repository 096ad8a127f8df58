"""LSTM networks: recurrent layers that keep what they have read on a line through time.

`depth` counts recurrent layers; each has two matrices. The cell is in recurrent.py: merge=forget
has the forget gate of 2000, merge=add is the cell of 1997, and skip=none keeps nothing of c.
Images are read row by row or pixel by pixel.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn

from resnet_jax.keys import POSITIVE, Config, Key, Part, choice
from resnet_jax.models.family import Family, Layers, switches
from resnet_jax.models.merges import plain
from resnet_jax.models.recurrent import (
    AsSequence,
    LstmCell,
    Recurrent,
    SequenceHead,
    TanhStep,
)
from resnet_jax.models.residual import Chain, Residual

WIDTH = 128
KEYS = {
    "model.width": Key(WIDTH, POSITIVE, "units of every layer"),
    "model.read": Key(
        AsSequence.read, choice("rows", "pixels"), "the steps of an image: its rows or its pixels"
    ),
    "model.outputs": Key(SequenceHead.of, choice("last", "every"), "the steps that have an output"),
}


def rnn_block(width: int, merge: Callable) -> Residual:
    """Return a step of the tanh RNN: a residual block, or a plain one."""
    return Residual(TanhStep(width), merge=merge)


def build(config: Config, layers: Layers, block: Callable[..., nn.Module]) -> Chain:
    """Return the config's network, of `depth` layers whose steps are `block(width, merge)`.

    Raises: ValueError for a depth below 1, and for an example that is no sequence and no image.
    """
    model = config.model
    if model.depth < 1:
        raise ValueError(f"depth {model.depth} is no recurrent network of 1 or more; nearest 1, 2")
    if len(layers.shape) not in (2, 3):
        raise ValueError(
            f"data.shape={layers.shape} is no sequence (steps, channels) and no image for "
            f"family={model.family}"
        )
    merge = plain if model.skip == "none" else layers.merge(1, layers.conv)
    forget_bias = model.get("forget_bias", 0.0)
    step = block(model.width, merge)
    layer = Recurrent(step, model.width, forget_bias, **layers.loop)
    return Chain(
        {
            "sequence": AsSequence(model.read, layers.dtype),
            **{f"layer{i + 1}": layer for i in range(model.depth)},
            "head": SequenceHead(layers.num_outputs, model.outputs),
        }
    )


FAMILY = Family(
    "LSTM networks, whose depth counts layers and whose blocks are steps in time",
    build=functools.partial(build, block=LstmCell),
    keys=KEYS,
    switches=switches(
        {"lstm": Part("the LSTM's cell, without peepholes")},
        skips=("A", "none"),
        merges=("forget", "add"),
        norms=("none",),
    ),
    depth=1,
    unrolled=True,
    images=False,
)
FAMILY_RNN = dataclasses.replace(
    FAMILY,
    summary="tanh recurrent networks, plain or residual",
    build=functools.partial(build, block=rnn_block),
    switches=switches(
        {"rnn": Part("h' = tanh(W x + U h + b)")},
        skips=("none", "A"),
        merges=("add",),
        norms=("none",),
    ),
)
