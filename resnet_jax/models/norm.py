"""Normalisations of activations, each with the ReLU that may follow it; `NORMS` is their table."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.keys import (
    ANY,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    Config,
    Key,
    Part,
    choice,
    nearest_divisor,
)
from resnet_jax.models.batch_norm import ONE_NUMBER, BatchNorm, across
from resnet_jax.models.dtypes import wide_type


class GroupNorm(nn.Module):
    """Group normalisation of each example by itself, followed by a ReLU if `relu`.

    Mean and variance are taken over the space and the channels of one of `groups` groups. With
    `groups=1` it is layer normalisation as Wu & He compare it (over all channels and the space).
    Statistics are at least float32, whatever the type of x.

    Shapes: (b, ..., c) -> (b, ..., c). Raises: ValueError if the groups do not divide c.
    Source: Wu & He 2018, arXiv:1803.08494, eq. 1 and 7.
    """

    groups: int = 8
    epsilon: float = 1e-5
    relu: bool = False
    zero: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b *space c"]) -> Float[Array, "b *space c"]:
        """Normalise `x`; training and evaluation are the same."""
        _check_groups(self.groups, {x.shape[-1]})
        c, wide = x.shape[-1], wide_type(x)
        if math.prod(x.shape[1:]) == self.groups:
            raise ValueError(
                f"norm.groups={self.groups} over {self.groups} numbers: a group of one number "
                "gives the same output for every input; make norm.groups smaller"
            )
        scale = self.param("scale", nn.initializers.constant(0.0 if self.zero else 1.0), (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        parts = x.astype(wide).reshape(x.shape[0], -1, self.groups, c // self.groups)
        centred = parts - parts.mean((1, 3), keepdims=True)
        inverse = lax.rsqrt(jnp.square(centred).mean((1, 3), keepdims=True) + self.epsilon)
        y = (centred * inverse).reshape(x.shape)
        y = (y * across(scale, y) + across(bias, y)).astype(x.dtype)
        return nn.relu(y) if self.relu else y


@contextlib.contextmanager
def checking_norms(examples: int) -> Iterator[None]:
    """Refuse the norms that are applied within, if a run could not apply them.

    A network that is initialised sees one example; batch norm will see `examples` at a time.
    Raises: ValueError for a batch norm over one number, and at the end for groups that do not
        divide the channels of some GroupNorm, with the nearest number that divides all.
    """
    channels, groups = set(), 1

    def look(apply, args, kwargs, context):
        nonlocal groups
        norm = context.module if context.method_name == "__call__" else None
        if isinstance(norm, BatchNorm) and examples * math.prod(args[0].shape[1:-1]) == 1:
            raise ValueError(ONE_NUMBER)
        if not isinstance(norm, GroupNorm):
            return apply(*args, **kwargs)
        groups = max(groups, norm.groups)
        channels.add(args[0].shape[-1])
        return apply(*args, **kwargs) if args[0].shape[-1] % groups == 0 else args[0]

    with nn.intercept_methods(look):
        yield
    _check_groups(groups, channels)


def _check_groups(groups: int, channels: set[int]) -> None:
    wrong = sorted(c for c in channels if c % groups)
    if wrong:
        raise ValueError(
            f"norm.groups={groups} does not divide {wrong[0]} channels; "
            f"nearest that does: {nearest_divisor(math.gcd(*channels), groups)}"
        )


class LayerNorm(nn.Module):
    """Layer normalisation of each token by itself.

    Mean and variance are taken over the channels alone; `GroupNorm(1)` takes them over the space
    too. Statistics are at least float32, whatever the type of x.

    Shapes: (..., c) -> (..., c). Source: Ba et al. 2016, arXiv:1607.06450, eq. 3 and 4.
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:
        """Normalise `x`; training and evaluation are the same."""
        c, wide = x.shape[-1], wide_type(x)
        if c == 1:
            raise ValueError(
                "layer normalisation of one channel gives the same output for every input; make "
                "model.width larger"
            )
        scale = self.param("scale", nn.initializers.ones, (c,), wide)
        bias = self.param("bias", nn.initializers.zeros, (c,), wide)
        centred = x.astype(wide) - x.astype(wide).mean(-1, keepdims=True)
        inverse = lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.epsilon)
        y = centred * inverse
        return (y * across(scale, y) + across(bias, y)).astype(x.dtype)


class NoNorm(nn.Module):
    """The ReLU alone, in the place of a norm. The convolution before it has a bias instead."""

    relu: bool = False
    zero: bool = False

    def __call__(self, x: Float[Array, "b *space c"]) -> Float[Array, "b *space c"]:
        """Return `x`, cut at zero if `relu`."""
        return nn.relu(x) if self.relu else x


class Shift(nn.Module):
    """Fixup's scalar bias, in the place of a norm outside of the blocks, and then the ReLU."""

    relu: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b *space c"]) -> Float[Array, "b *space c"]:
        """Return `x` shifted by a learned number."""
        y = x + self.param("bias", nn.initializers.zeros, ()).astype(x.dtype)
        return nn.relu(y) if self.relu else y


_EPSILON = {
    "norm.epsilon": Key(BatchNorm.epsilon, POSITIVE, "added to the variance before its square root")
}


def _check_group_size(config: Config) -> None:
    group, batch = config.norm.group_size, config.batch_size // config.accumulate
    parts = f" / accumulate={config.accumulate}" if config.accumulate > 1 else ""
    if group < -1:
        raise ValueError(
            f"norm.group_size={group} must be a number of examples, 0 for the whole batch or -1 "
            "for a device's share"
        )
    if parts and group > batch:
        raise ValueError(
            f"norm.group_size={group} is more than the {batch} examples of a part of "
            f"batch_size={config.batch_size}{parts}; use --config.accumulate="
            f"{max(1, config.batch_size // group)} or smaller groups"
        )
    if group > 0 and batch % group:
        raise ValueError(
            f"norm.group_size={group} does not divide batch_size={config.batch_size}{parts}; "
            f"nearest {nearest_divisor(batch, group)}"
        )
    if config.norm.precise > config.chunk_steps:
        raise ValueError(
            f"norm.precise={config.norm.precise} is more than chunk_steps={config.chunk_steps}, "
            "the batches that are on the devices at once"
        )


def _batch_norm(config: Config, axis: str | None) -> Callable[..., nn.Module]:
    norm = config.norm
    return functools.partial(
        BatchNorm,
        group_size=norm.group_size,
        momentum=norm.momentum,
        epsilon=norm.epsilon,
        axis=axis,
        scale=norm.scale,
        kernels=config.kernels,
    )


# `build(config, axis)` returns the constructor of a network's norms: (relu=, zero=, name=) -> norm.
# `axis` names the mesh axis whose devices share a batch, if there are several.
NORMS: dict[str, Part] = {
    "batch": Part(
        "batch normalisation",
        build=_batch_norm,
        keys=_EPSILON
        | {
            "norm.group_size": Key(
                BatchNorm.group_size,
                ANY,
                "examples normalised together; 0 is the whole batch, -1 a device's share",
            ),
            "norm.precise": Key(
                0, NOT_NEGATIVE, "batches that statistics are recomputed from; 0 is off"
            ),
            "norm.scale": Key(
                BatchNorm.scale,
                choice("ones", "uniform"),
                "how scales start: at 1, or drawn from U(0, 1) as in Torch",
            ),
            "norm.momentum": Key(BatchNorm.momentum, FRACTION, "of the running statistics"),
        },
        check=_check_group_size,
    ),
    "group": Part(
        "group normalisation",
        build=lambda config, axis: functools.partial(
            GroupNorm, groups=config.norm.groups, epsilon=config.norm.epsilon
        ),
        keys=_EPSILON | {"norm.groups": Key(GroupNorm.groups, POSITIVE, "groups of channels")},
    ),
    "layer": Part(
        "layer normalisation over channels and space; in a Vision Transformer over a token's "
        "channels",
        build=lambda config, axis: functools.partial(
            GroupNorm, groups=1, epsilon=config.norm.epsilon
        ),
        keys=_EPSILON,
    ),
    "none": Part("no norm; convolutions have biases", build=lambda config, axis: NoNorm),
}
