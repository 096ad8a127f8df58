"""How skip and body meet: x' = merge(s, f, z) with s = skip(z) and f = body(z).

A merge that has weights or draws at random is a Module; any other merge is a function. A merge
that weighs its two paths sows their gains into the collection `gains` (gains.py). `MERGES` is the
table of the merges that a config can choose, each with its keys.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.keys import ANY, NUMBERS, PROBABILITY, Config, Key, Part, choice
from resnet_jax.models.conv import Conv
from resnet_jax.models.dense import HE
from resnet_jax.models.dtypes import wide_type
from resnet_jax.models.gains import check_shapes, sow_gains
from resnet_jax.models.stochastic_depth import DROPS, survivals


def plain(s, f, z):
    """No skip connection: x' = f. The plain twin shows what the skip connection does."""
    return f


def add(s: Float[Array, "..."], f: Float[Array, "..."], z) -> Float[Array, "..."]:
    """The residual connection: x' = s + f.

    Shapes: s and f are equal. Raises: ValueError if they are not.
    Source: He et al. 2015, arXiv:1512.03385, eq. 1-2.
    """
    check_shapes(s, f)
    return s + f


def concat(s: Float[Array, "*n c"], f: Float[Array, "*n k"], z) -> Float[Array, "*n d"]:
    """The dense connection, which keeps the input beside the body's output: x' = [s, f].

    Shapes: (..., c), (..., k) -> (..., c + k).
    Source: Huang et al. 2017, arXiv:1608.06993, eq. 2.
    """
    return jnp.concatenate((s, f), -1)


class Scaled(nn.Module):
    """Both paths weighted: x' = a s + b f, with the carry gain a and the transform gain b.

    If `learned`, b is a scalar parameter of each layer that starts at `transform` (0 gives ReZero,
    and SkipInit if the body has no norm). Otherwise both gains are constants.

    Shapes: s and f are equal. Raises: ValueError if they are not.
    Source: He et al. 2016, arXiv:1603.05027, sec. 3.1 (constant scaling); Bachlechner et al. 2020,
    arXiv:2003.04887, eq. 2, and De & Smith 2020, arXiv:2002.10444, sec. 4 (learned).
    """

    carry: float = 1.0
    transform: float = 1.0
    learned: bool = False

    @nn.compact
    def __call__(
        self, s: Float[Array, "..."], f: Float[Array, "..."], z: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """Return a s + b f."""
        check_shapes(s, f)
        b = jnp.asarray(self.transform, f.dtype)
        if self.learned:
            b = self.param("transform", nn.initializers.constant(self.transform), ()).astype(
                f.dtype
            )
        a = jnp.asarray(self.carry, s.dtype)
        sow_gains(self, a, b)
        return a * s + b * f


class Gated(nn.Module):
    """Paths weighted by gates that see the block's input: x' = C(z) s + T(z) f.

        T = sigmoid(W_T z + transform_bias)
        C = 1 - T, or sigmoid(W_C z + carry_bias) if a `carry_bias` is given

    The coupled form, C = 1 - T, is the highway layer (z = s) and He et al.'s exclusive gate: with a
    bias far below zero it carries the input and shuts the body. With a `carry_bias` the two gates
    are free. With both biases far above zero they are open, which is the residual connection; the
    coupled form cannot be that. `transform=False` leaves the body alone: x' = (1 - T) s + f, the
    shortcut-only gate.

    W is a matrix for vectors and tokens and a `size` x `size` convolution for images, with the
    stride that brings z to the size of s. A matrix starts by `kernel_start`: from
    N(0, 1 / c), truncated at two deviations, or from N(0, 2 / c) as the highway's authors start it.
    Biases are the initial values of parameters, in logits.

    Shapes: s and f (b, ..., d) are equal; z (b, ..., c). Raises: ValueError if s and f differ.
    Source: Srivastava et al. 2015, arXiv:1505.00387, eq. 2-3 (two gates, coupled); He et al. 2016,
    arXiv:1603.05027, sec. 3.1 (exclusive and shortcut-only gating, 1x1).
    """

    transform_bias: float
    carry_bias: float | None = None
    transform: bool = True
    size: int = 1
    kernel_start: Literal["lecun", "he"] = "lecun"
    conv: Callable[..., nn.Module] = Conv

    @nn.compact
    def __call__(
        self, s: Float[Array, "b *n d"], f: Float[Array, "b *n d"], z: Float[Array, "b *m c"]
    ) -> Float[Array, "b *n d"]:
        """Return C s + T f."""
        check_shapes(s, f)
        t = nn.sigmoid(self._gate("gate", self.transform_bias, s, z))
        if self.carry_bias is None:
            c = 1 - t
        else:
            c = nn.sigmoid(self._gate("carry_gate", self.carry_bias, s, z))
        t = t if self.transform else jnp.ones_like(t)
        sow_gains(self, c, t)
        return c * s + t * f

    def _gate(self, name, bias, s, z):
        start = nn.initializers.constant(bias)
        if z.ndim < 4:
            kernel = HE if self.kernel_start == "he" else nn.initializers.lecun_normal()
            return nn.Dense(
                s.shape[-1],
                kernel_init=kernel,
                bias_init=start,
                param_dtype=wide_type(z),
                dtype=z.dtype,
                name=name,
            )(z)
        stride = max(-(-z.shape[axis] // s.shape[axis]) for axis in (1, 2))
        gate = self.conv(s.shape[-1], self.size, stride, bias=True, start=bias, name=name)
        return gate(z)


class Forget(nn.Module):
    """The forget gate of an LSTM: x' = sigmoid(z) s + f, with the gate's logits z.

    The line s of the cell is a skip connection through time. With z far above zero it is the
    residual connection, the carousel of 1997.

    Shapes: s, f and z are equal. Raises: ValueError if s and f are not.
    Source: Gers et al. 2000, Neural Computation 12.
    """

    @nn.compact
    def __call__(
        self, s: Float[Array, "..."], f: Float[Array, "..."], z: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """Return sigmoid(z) s + f."""
        check_shapes(s, f)
        gate = nn.sigmoid(z)
        sow_gains(self, gate, jnp.ones((), f.dtype))
        return gate * s + f


@dataclass(frozen=True, eq=False)
class Merge(Part):
    """A merge that a config can choose.

    `build(config, conv, size)` makes it, with the network's convolution class and the size of a
    gate's kernel. `per_layer(config, blocks)` gives the inputs of the merge that differ from block
    to block, by name: one number for each of the network's `blocks` blocks, first to last. The
    merge is a Module that has a field of each name, which the input overrides.
    """

    per_layer: Callable[[Config, int], Mapping[str, tuple[float, ...]]] = lambda config, blocks: {}


def _build_add(config: Config, conv: Any, size: int) -> Callable:
    gains = tuple(config.model.gains)
    return add if gains == (1.0, 1.0) else Scaled(*gains)


def _check_gains(config: Config) -> None:
    gains = tuple(config.model.gains)
    if len(gains) != 2:
        raise ValueError(f"model.gains={gains} must be two numbers, of the skip and of the body")
    if not any(gains):
        raise ValueError(f"model.gains={gains} pass nothing on; leave one of them above 0")


_GATE = {"model.gate_bias": Key(-6.0, ANY, "initial bias of the body's gate, in logits")}
_CARRY = {"model.carry_bias": Key(6.0, ANY, "initial bias of the skip's gate, in logits")}


def _drop(name: str, summary: str) -> Merge:
    return Merge(
        summary,
        build=lambda config, conv, size: DROPS[name](),
        keys={
            "model.survival": Key(0.5, PROBABILITY, "probability that the last block is kept"),
            "model.survival_rule": Key(
                "linear",
                choice("linear", "uniform", "linspace"),
                "survival of the others: linear to the last's from 1 at the input, or from 1 at "
                "the first block (linspace), or uniform",
            ),
        },
        per_layer=lambda config, blocks: {
            "survival": survivals(config.model.survival_rule, config.model.survival, blocks)
        },
    )


MERGES: dict[str, Merge] = {
    "add": Merge(
        "the residual connection, x' = s + f",
        build=_build_add,
        keys={"model.gains": Key((1.0, 1.0), NUMBERS, "constant gains of skip and body")},
        check=_check_gains,
    ),
    "rezero": Merge(
        "x' = s + b f with a learned scalar b that starts at 0 (ReZero, SkipInit)",
        build=lambda config, conv, size: Scaled(1.0, 0.0, learned=True),
    ),
    "exclusive_gate": Merge(
        "x' = (1 - T) s + T f, the coupled gate of highway networks",
        build=lambda config, conv, size: Gated(config.model.gate_bias, size=size, conv=conv),
        keys=_GATE,
    ),
    "shortcut_gate": Merge(
        "x' = (1 - T) s + f, a gate on the skip alone",
        build=lambda config, conv, size: Gated(
            config.model.gate_bias, transform=False, size=size, conv=conv
        ),
        keys=_GATE,
    ),
    "two_gate": Merge(
        "x' = C s + T f with two free gates",
        build=lambda config, conv, size: Gated(
            config.model.gate_bias, config.model.carry_bias, size=size, conv=conv
        ),
        keys=_GATE | _CARRY,
    ),
    "stochastic_depth": _drop(
        "stochastic_depth", "bodies are dropped for a whole batch, and scaled in evaluation"
    ),
    "stochastic_depth_rescaled": _drop(
        "stochastic_depth_rescaled", "bodies are dropped for a whole batch, and scaled in training"
    ),
    "drop_path": _drop(
        "drop_path", "bodies are dropped for each example, and scaled in training (DropPath)"
    ),
    "drop_path_unscaled": _drop(
        "drop_path_unscaled", "bodies are dropped for each example, and scaled in evaluation"
    ),
    "concat": Merge("x' = [s, f], DenseNet's", build=lambda config, conv, size: concat),
    "forget": Merge(
        "c' = sigmoid(z) c + f, the forget gate of an LSTM",
        build=lambda config, conv, size: Forget(),
        keys={"model.forget_bias": Key(1.0, ANY, "initial bias of the forget gate, in logits")},
    ),
}
GATES = ("exclusive_gate", "shortcut_gate", "two_gate")
# Every merge of blocks that keep the shape. The first is a family's default merge.
RESIDUAL_MERGES = ("add", *(name for name in MERGES if name not in ("add", "concat", "forget")))
