"""The limits of a device: bytes and products a second, and the bytes that a step must move.

A command measures the limits together with what it compares with them. On a GPU residual networks
meet the first limit: normalisation, ReLU and addition move more than half of a step's bytes and
compute next to nothing.
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
    """The limits of a device."""

    bandwidth: float  # bytes a second that a copy reads and writes
    products: float  # multiply-adds a second of a square matrix product


def roofs(dtype: str, *, megabytes: int, size: int, calls: int = 10, rounds: int = 5) -> Roofs:
    """Measure a copy of `megabytes` and products of `size` x `size` matrices.

    The shortest of `rounds` measurements counts, each of `calls` calls.
    """
    x = jnp.ones(megabytes * 1_000_000 // 4, jnp.float32)
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    b = a / size**0.5  # else a few products in a row would overflow
    copy, multiply = program(lambda x: x + 1, x, donate=(0,)), program(jnp.matmul, a, b)
    bandwidth = 2 * x.nbytes / _seconds(copy, (x,), calls, rounds)
    return Roofs(bandwidth, size**3 / _seconds(multiply, (a, b), calls, rounds))


def _seconds(function: Any, arguments: tuple, calls: int, rounds: int) -> float:
    """Return the seconds of a call; a call's result is the first argument of the next call."""
    x, *rest = arguments
    best = float("inf")
    for _ in range(rounds + 1):  # the first round warms up, and is never the shortest
        jax.block_until_ready(x)
        began = time.perf_counter()
        for _ in range(calls):
            x = function(x, *rest)
        jax.block_until_ready(x)
        best = min(best, (time.perf_counter() - began) / calls)
    return best


def elements(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Return the least elements that a training step moves to and from memory for an image.

    `shape` is the image's, (h, w, c). For every convolution with `in` and `out` elements they are

        3 (in + out)    read and written by the forward pass and by each of its two gradients
        8 out           norm and ReLU: the statistics 1, normalise 2, the gradient's sums 2, dx 3

    Source: ours, by counting the kernels that XLA's fusion leaves. Additions are part of the norms.
    Pooling and the classifier are left out, and so are weights, which a batch reads once.
    """
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    return sum(
        times * (8 * out + 3 * (read + out))
        for read, out, times in convolutions(jax.make_jaxpr(net.apply)(variables, x))
    )


def convolutions(jaxpr: Any, times: int = 1) -> Iterator[tuple[int, int, int]]:
    """Yield each convolution of a jaxpr: elements in, elements out, and how often it is run."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            yield eqn.invars[0].aval.size, eqn.outvars[0].aval.size, times
        inner = times * eqn.params.get("length", 1)
        for part in jax.tree.leaves(list(eqn.params.values())):
            if hasattr(part, "eqns"):
                yield from convolutions(part, inner)


def macs(net: nn.Module, shape: tuple[int, ...]) -> int:
    """Return the multiply-adds of evaluating an image; a training step has three times as many."""
    return measure.count(net, jax.ShapeDtypeStruct((1, *shape), jnp.float32))[0].macs
