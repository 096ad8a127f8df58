"""Highway networks: the gated skip connection of 2015, and a plain twin of as many parameters.

    x' = (1 - T(x)) x + T(x) H(x),   H = relu(W x + b),   T = sigmoid(W_T x + b_T)

Srivastava, Greff & Schmidhuber 2015 (arXiv:1505.00387, 1507.06228). A gate doubles a layer's
parameters, so that the plain twin is wider: 71 units for the highway's 50, which are about 5,000
parameters of a layer in both (1505.00387, sec. 3). The twin's layers without gates are wider too,
so that the whole twin has some percent more parameters.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from resnet_jax.keys import POSITIVE, Config, Key, Part, Rule, choice, default
from resnet_jax.models import bodies
from resnet_jax.models.conv import Conv
from resnet_jax.models.dense import Classifier, Dense, Flatten
from resnet_jax.models.family import (
    Family,
    Layers,
    check_image,
    check_is_image,
    check_strides,
    switches,
)
from resnet_jax.models.feedback import KEYS as FEEDBACK_KEYS
from resnet_jax.models.feedback import Feedback
from resnet_jax.models.heads import Head
from resnet_jax.models.merges import Gated, plain
from resnet_jax.models.norm import NORMS, NoNorm
from resnet_jax.models.pooled_highway import pooled_highway
from resnet_jax.models.residual import Chain, Remat, Residual, Stack
from resnet_jax.models.stages import share_out
from resnet_jax.models.starts import KEYS as START_KEYS
from resnet_jax.models.starts import KernelStart


def plain_width(width: int, taps: int = 1) -> int:
    """Return the plain twin's width v, with taps v^2 + v nearest to 2 (taps w^2 + w)."""
    wanted = 2 * (taps * width**2 + width)
    return round((math.sqrt(1 + 4 * taps * wanted) - 1) / (2 * taps))


def dense_highway(
    depth: int,
    *,
    num_outputs: int,
    merge: Callable | None,
    width: int = 50,
    activation: Literal["relu", "tanh"] = "relu",
    kernel_start: KernelStart = "he",
    feedback: Feedback = "weights",
    dtype: Any = jnp.float32,
    remat: Remat = "none",
    unroll: int = 1,
) -> Chain:
    """Return a plain layer, `depth` - 1 highway layers of `width` units, and the classifier.

    The classifier does not count in `depth`, as in 1505.00387, Fig. 1. `merge=None` gives the plain
    twin.
    """
    width = plain_width(width) if merge is None else width
    dense = Dense(width, activation, kernel_start, feedback)
    layer = Residual(dense, merge=merge or plain)
    blocks: dict[str, nn.Module] = {
        "flatten": Flatten(dtype),
        "first": Residual(dense, merge=plain),
        "layers": Stack(layer, depth - 1, remat=remat, unroll=unroll),
        "head": Classifier(num_outputs),
    }
    return Chain(blocks)


def conv_highway(
    stages: Sequence[int],
    *,
    num_outputs: int,
    merge: Callable | None,
    width: int = 16,
    conv: Callable[..., nn.Module] = Conv,
    norm: Callable[..., nn.Module] = NoNorm,
    remat: Remat = "none",
    unroll: int = 1,
) -> Chain:
    """Return stages of `stages[i]` 3x3 layers with `width` 2^i maps in stage i.

    The first layer of a stage is plain and changes the size of the image and the width.
    `merge=None` gives the plain twin. The layers are those of 1507.06228, sec. 3.2, on the stages
    of a CIFAR ResNet; the paper's own networks shrink the image by pooling (pooled_highway.py).
    """
    width = plain_width(width, 9) if merge is None else width
    body = lambda out, stride: bodies.PostActivation(
        bodies.single(out, stride), end="relu", conv=conv, norm=norm
    )
    blocks: dict[str, nn.Module] = {}
    for i, count in enumerate(stages):
        out = width * 2**i
        first = Residual(body(out, 1 if i == 0 else 2), merge=plain)
        blocks[f"stage{i + 1}_first"] = first
        if count > 1:
            rest = Residual(body(out, 1), merge=merge or plain)
            blocks[f"stage{i + 1}"] = Stack(rest, count - 1, remat=remat, unroll=unroll)
    blocks["head"] = Head(num_outputs)
    return Chain(blocks)


def highway_stages(depth: int) -> tuple[int, ...]:
    """Return the convolutions in each of three stages; the remainder goes to the earliest."""
    if depth < 4:
        raise ValueError(f"depth {depth} is no convolutional highway of 4 or more; nearest 4 and 5")
    return share_out(depth - 1, 3)


def build(config: Config, layers: Layers) -> Chain:
    """Return the config's network."""
    model = config.model
    merge: Any = None if model.skip == "none" else layers.merge(3, layers.conv)
    if model.block == "dense" and isinstance(merge, Gated):
        merge = merge.copy(kernel_start=model.gate_start)
    options: dict[str, Any] = {
        "num_outputs": layers.num_outputs,
        "merge": merge,
        "width": model.width,
        **layers.loop,
    }
    if model.block == "dense":
        if model.depth < 2:
            raise ValueError(f"depth {model.depth} is no highway of 2 or more; nearest 2 and 3")
        options |= {"activation": model.activation, "kernel_start": model.kernel_start}
        options["feedback"] = model.feedback
        return dense_highway(model.depth, dtype=layers.dtype, **options)
    if model.block == "pooled":
        check_image(layers.shape, 22 if model.depth == 10 else 4, f"depth={model.depth}")
        options["width"] = plain_width(model.width, 9) if merge is None else model.width
        options |= {"dropout": model.dropout, "conv": layers.conv, "norm": layers.norm}
        return pooled_highway(model.depth, **options)
    check_is_image(config, layers.shape)
    check_strides(layers.shape, 3)
    return conv_highway(highway_stages(model.depth), conv=layers.conv, norm=layers.norm, **options)


def preset(depth: int, block: str | None, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return a coupled gate that starts as carry, on convolutions or on 50 dense units."""
    values = {"model.gate_bias": -2.0, "model.carry_bias": 2.0}
    if block == "pooled":
        bias = -1.0 if depth == 10 else -2.0
        return values | {"model.width": 32, "model.gate_bias": bias, "model.carry_bias": -bias}
    return values | ({"model.width": default(dense_highway, "width")} if block == "dense" else {})


def _check_dense(config: Config) -> None:
    if config.norm.kind != "none":
        raise ValueError(f"norm={config.norm.kind} with block=dense, which has none; use norm=none")


FAMILY = Family(
    "highway networks",
    build=build,
    keys={
        "model.width": Key(
            default(conv_highway, "width"), POSITIVE, "maps of the first stage, or dense units"
        ),
    },
    switches=switches(
        {
            "single": Part("a 3x3 convolution"),
            "dense": Part(
                "a dense layer",
                keys={
                    "model.activation": Key(
                        default(dense_highway, "activation"),
                        choice("relu", "tanh"),
                        "activation of the layers",
                    ),
                    "model.gate_start": Key(
                        Gated.kernel_start,
                        choice("lecun", "he"),
                        "how gates' kernels start: N(0, 1/n), or N(0, 2/n) as the authors'",
                    ),
                }
                | START_KEYS
                | FEEDBACK_KEYS,
                check=_check_dense,
            ),
            "pooled": Part(
                "the paper's own networks of 10 and 19 layers, with max pooling and dropout",
                keys={
                    "model.dropout": Key(
                        default(pooled_highway, "dropout"),
                        Rule(lambda rate: 0 <= rate < 0.7, "must lie in [0, 0.7)"),
                        "rate of dropout on the input; the rates after poolings rise with it",
                    )
                },
            ),
        },
        skips=("A", "none"),
        merges=("exclusive_gate", "add", "shortcut_gate", "two_gate"),
        norms=("none", *(name for name in NORMS if name != "none")),
    ),
    preset=preset,
    depth=19,
    images=False,
)
