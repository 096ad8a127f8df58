"""The loss along random directions in the space of parameters, scaled filter by filter.

Source: Li et al. 2018, arXiv:1712.09913, sec. 4.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

Params = Any


def random_direction(key: Key[Array, ""], params: Params, axes: Any) -> Params:
    """Return a random direction d whose filters are as long as those of the parameters.

        d_f <- d_f / |d_f| |w_f|       for the weights w_f of each output unit f of a kernel

    d is drawn from a normal distribution. Whatever is no kernel (biases, scales of norms) stays: d
    is 0 there, as in the authors' code. A filter of zeros stays as well. The last axis of a kernel
    counts its output units. `axes` has for each array how many of its first axes count the layers
    of a Stack: `stacked_axes(net, params)` of models/residual.py.
    """
    keys = iter(jax.random.split(key, len(jax.tree.leaves(params))))

    def direction(path, w, layers):
        key = next(keys)
        if getattr(path[-1], "key", None) != "kernel":
            return jnp.zeros_like(w)
        axes = tuple(range(layers, w.ndim - 1))
        d = jax.random.normal(key, w.shape, w.dtype)
        norm = lambda a: jnp.sqrt(jnp.square(a).sum(axes, keepdims=True))
        return d / norm(d) * norm(w)

    return jax.tree.map_with_path(direction, params, axes)


def moved(params: Params, *steps: tuple[Any, Params]) -> Params:
    """Return the parameters plus the sum of a d over the pairs (a, d) of a number and direction."""
    for number, direction in steps:
        params = jax.tree.map(
            lambda w, d, a=number: w + jnp.asarray(a, w.dtype) * d, params, direction
        )
    return params


def slice_1d(
    loss: Callable[[Params], Float[Array, ""]],
    params: Params,
    direction: Params,
    numbers: Float[Array, "k"],
) -> Float[Array, "k"]:
    """Return loss(params + a direction) for each number a. The loss is compiled once."""
    return lax.map(lambda a: loss(moved(params, (a, direction))), numbers)


def slice_2d(
    loss: Callable[[Params], Float[Array, ""]],
    params: Params,
    directions: tuple[Params, Params],
    numbers: tuple[Float[Array, "k"], Float[Array, "l"]],
) -> Float[Array, "k l"]:
    """Return loss(params + a d_1 + b d_2) for each a of the first numbers and b of the second."""
    one, two = directions
    row = lambda a: slice_1d(loss, moved(params, (a, one)), two, numbers[1])
    return lax.map(row, numbers[0])
