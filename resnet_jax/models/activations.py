"""Activations of convolutional networks: the ReLU, tanh, and the tailored leaky ReLU (TAT).

A network has one `Activation`, which it applies behind its norms and in its heads. The ReLU stays
fused with batch norm (batch_norm.py); another activation follows the norm as an operation of its
own.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.keys import Config, Key, choice

# The cosine that a TAT network gives two orthogonal inputs: Zhang et al. 2022, arXiv:2203.08120.
ETA = 0.9

KEYS = {
    "model.activation": Key(
        "relu",
        choice("relu", "tanh", "tat"),
        "activation of the layers; tat is a leaky ReLU whose slope follows from the depth, for "
        "plain networks without norms",
    )
}


class Activation(NamedTuple):
    """A function of single numbers, and the variance v of the kernels that keep its signal's scale.

    v is about 1 / E[function(z)^2] for z ~ N(0, 1). A kernel starts with variance v / fan-in.
    """

    function: Callable[[Any], Any] = nn.relu
    variance: float = 2.0

    def kernels(self, conv: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        """Return the constructor of convolutions whose kernels start with this variance."""
        return conv if self == RELU else functools.partial(conv, variance=self.variance)

    def behind(self, norm: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        """Return the constructor of norms whose `relu=True` puts the activation behind the norm."""
        return norm if self == RELU else functools.partial(Activated, norm, self.function)


RELU = Activation()
# tanh is about the identity for small numbers.
TANH = Activation(jnp.tanh, 1.0)


class Activated(nn.Module):
    """A norm and an activation, in the place of a norm and its ReLU; the variables are the norm's.

    Shapes: those of the norm.
    """

    norm: Callable[..., nn.Module]
    function: Callable[[Any], Any]
    relu: bool = False
    zero: bool = False

    def setup(self):
        """Make the norm, whose variables have the names that they have without an activation."""
        self.inner = self.norm(zero=self.zero)
        nn.share_scope(self, self.inner)

    def __call__(self, x: Float[Array, "b *rest"]) -> Float[Array, "b *rest"]:
        """Normalise `x`, and apply the activation if `relu`."""
        y = self.inner(x)
        return self.function(y) if self.relu else y


@dataclass(frozen=True)
class LeakyReLU:
    """The leaky ReLU that keeps the mean square of N(0, 1).

        f(x) = sqrt(2 / (1 + slope^2)) (max(x, 0) + slope min(x, 0))

    Shapes: any. Source: Zhang et al. 2022, arXiv:2203.08120 (tailored leaky ReLUs).
    """

    slope: float

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """f(x)."""
        return math.sqrt(2 / (1 + self.slope**2)) * jnp.where(x > 0, x, self.slope * x)


def cosine(c: float, slope: float) -> float:
    """Return the cosine behind a wide layer with this LeakyReLU, of inputs with the cosine `c`.

        C(c) = c + (1 - slope)^2 / (pi (1 + slope^2)) (sqrt(1 - c^2) - c arccos c)

    Source: Zhang et al. 2022, arXiv:2203.08120 (the local C map); it equals that of their code.
    """
    c = min(c, 1.0)
    curved = math.sqrt(1 - c * c) - c * math.acos(c)
    return c + (1 - slope) ** 2 / (math.pi * (1 + slope**2)) * curved


@functools.lru_cache
def tailored_slope(layers: int, eta: float = ETA) -> float:
    """Return the slope with which `layers` layers bring orthogonal inputs to the cosine `eta`.

    C applied `layers` times to 0 falls from the ReLU's value to 0 while the slope grows from 0 to
    1, so that halving an interval finds it. The slope is 0 if the ReLU itself stays below `eta`,
    which it does in a network of few layers.

    Source: Zhang et al. 2022, arXiv:2203.08120, with the eta of their experiments, from memory.
    Differs: pooling and padding are left out.
    """
    low, high = 0.0, 1.0
    if _cosine_behind(layers, low, eta) < eta:
        return low
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _cosine_behind(layers, middle, eta) >= eta else (low, middle)
    return (low + high) / 2


def _cosine_behind(layers: int, slope: float, eta: float) -> float:
    """Return C applied `layers` times to 0, or the first value that reaches `eta`."""
    c = 0.0
    for _ in range(layers):
        c = cosine(c, slope)
        if c >= eta:
            break
    return c


def activation(config: Config, layers: int) -> Activation:
    """Return the config's activation, in a network that applies it in `layers` layers."""
    name = config.model.get("activation", "relu")
    if name == "tat":
        return Activation(LeakyReLU(tailored_slope(layers)), 1.0)
    return TANH if name == "tanh" else RELU


def check(config: Config) -> None:
    """Raise a ValueError for tat with a norm or a skip connection."""
    if config.model.get("activation") != "tat":
        return
    for key, value in (("norm", config.norm.kind), ("skip", config.model.skip)):
        if value != "none":
            raise ValueError(
                f"model.activation=tat with {key}={value}: its slope is that of a plain network "
                f"without norms; choose {key}=none"
            )
