"""What a device allows at most: bytes and products a second, and the bytes that a step must move.

Measured in the same command as what is held against them. On a GPU residual networks meet the
first: normalisation, ReLU and addition move more than half of a step's bytes and compute nothing.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from resnet_jax.models import measure
from resnet_jax.training.compile import program


class Roofs(NamedTuple):
    """Of one device."""

    bandwidth: float  # bytes a second, read and written, of a copy
    products: float  # multiply-adds a second of a square matrix product


def roofs(dtype: str, *, megabytes: int, size: int, calls: int = 10, rounds: int = 5) -> Roofs:
    """Copy `megabytes` and multiply matrices of `size`, the best of `rounds` times `calls`."""
    x = jnp.ones(megabytes * 1_000_000 // 4, jnp.float32)
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    b = a / size**0.5  # or a few products in a row would overflow
    copy, multiply = program(lambda x: x + 1, x, donate=(0,)), program(jnp.matmul, a, b)
    bandwidth = 2 * x.nbytes / _seconds(copy, (x,), calls, rounds)
    return Roofs(bandwidth, size**3 / _seconds(multiply, (a, b), calls, rounds))


def _seconds(function: Any, arguments: tuple, calls: int, rounds: int) -> float:
    """Of one call, each call's result being the next one's first argument."""
    x, *rest = arguments
    best = float("inf")
    for _ in range(rounds + 1):  # the first one warms up, and is no better
        jax.block_until_ready(x)
        began = time.perf_counter()
        for _ in range(calls):
            x = function(x, *rest)
        jax.block_until_ready(x)
        best = min(best, (time.perf_counter() - began) / calls)
    return best


def elements(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Elements that a training step moves for one image, (h, w, c), to and from memory at least.

    A model, of what XLA fuses: of every convolution

        in + out    read and written, forward; and again for each of its two gradients
        8 out       norm and ReLU: the statistics 1, normalise 2, the gradient's sums 2, dx 3

    Source: ours, by counting the kernels that remain. Additions ride on the norms; pooling and the
    classifier are left out, as are weights, which a batch reads once.
    """
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    return sum(
        times * (8 * out + 3 * (read + out))
        for read, out, times in convolutions(jax.make_jaxpr(net.apply)(variables, x))
    )


def convolutions(jaxpr: Any, times: int = 1) -> Iterator[tuple[int, int, int]]:
    """Of each convolution of a jaxpr: elements in, elements out, and how often it is run."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            yield eqn.invars[0].aval.size, eqn.outvars[0].aval.size, times
        inner = times * eqn.params.get("length", 1)
        for part in jax.tree.leaves(list(eqn.params.values())):
            if hasattr(part, "eqns"):
                yield from convolutions(part, inner)


def macs(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds of evaluating one image; a training step's are three times as many."""
    return measure.count(net, jax.ShapeDtypeStruct((1, *shape), jnp.float32))[0].macs
