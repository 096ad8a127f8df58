"""What a network counts: layers, blocks, parameters, products, and the bytes its gradient holds.

All of it is read off values and shapes: no array is made and nothing is compiled.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from resnet_jax.models.merges import plain
from resnet_jax.models.residual import Chain, Residual, Stack
from resnet_jax.models.skips import identity


class Counts(NamedTuple):
    """Of one network, or of one part of it."""

    layers: int  # weighted, on the longest path
    blocks: int  # Residuals
    identity_skips: int
    parameters: int
    macs: int  # multiply-adds


def count(net: nn.Module, x: jax.ShapeDtypeStruct) -> tuple[Counts, jax.ShapeDtypeStruct]:
    """Counts of `net`, with the multiply-adds of evaluating it on `x`, and its output's shape.

    An identity skip is one that meets its body, whatever the merge weighs it with: those of plain
    nets, zero-padded and projected ones and those with dropout do not count.
    """
    y, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), x)
    params = variables.get("params", {})
    blocks = [(m, times) for m, times in modules(net) if isinstance(m, Residual)]
    counts = Counts(
        layers=layers(net, params),
        blocks=sum(times for _, times in blocks),
        identity_skips=sum(
            times for b, times in blocks if b.skip is identity and b.merge is not plain
        ),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        macs=macs(jax.make_jaxpr(net.apply)(variables, x)),
    )
    return counts, y


def modules(net: nn.Module, times: int = 1) -> Iterator[tuple[nn.Module, int]]:
    """`net` and every module among its fields, each with the number of times it is applied."""
    yield net, times
    inner = times * net.depth if isinstance(net, Stack) else times
    for field in dataclasses.fields(net):
        if field.name not in ("parent", "name"):
            for child in jax.tree.leaves(getattr(net, field.name)):
                if isinstance(child, nn.Module):
                    yield from modules(child, inner)


def layers(net: Any, params: Any) -> int:
    """Weighted layers on the longest path, He et al.'s depth; weights on skips do not count."""
    within = lambda part, name: layers(part, params.get(name, {}))
    if isinstance(net, Stack):
        return net.depth * within(net.block, "layers")
    if isinstance(net, Chain):
        return sum(within(block, name) for name, block in net.blocks.items())
    if isinstance(net, Residual):
        return sum(within(getattr(net, part), part) for part in ("before", "body", "after"))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(path[-1].key == "kernel" for path, _ in leaves)


def macs(jaxpr: Any) -> int:
    """Multiply-adds of the convolutions and matrix products of a jaxpr, all it calls included.

    A scan counts as often as it turns, a conditional as its dearest branch.
    """
    total = 0
    for eqn in jaxpr.eqns:
        inner = [macs(p) for p in jax.tree.leaves(list(eqn.params.values())) if hasattr(p, "eqns")]
        if eqn.primitive.name == "conv_general_dilated":
            kernel = eqn.invars[1].aval.shape
            outputs = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
            total += eqn.outvars[0].aval.size * math.prod(kernel) // outputs
        elif eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            total += eqn.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
        elif eqn.primitive.name == "cond":
            total += max(inner)
        else:
            total += sum(inner) * eqn.params.get("length", 1)
    return total


def held_bytes(loss: Callable, params: Any, *inputs: Any) -> int:
    """Bytes that `loss(params, *inputs)` keeps for its gradient, parameters and inputs aside.

    As JAX hands them from the forward to the backward pass, before a compiler merges any. A
    parameter's copy in another type counts.
    """

    def forward(params, *inputs):
        return jax.tree.leaves(jax.vjp(lambda p: loss(p, *inputs), params)[1])

    jaxpr = jax.make_jaxpr(forward)(params, *inputs).jaxpr
    given = {id(var) for var in jaxpr.invars}
    kept = {id(var): var.aval for var in jaxpr.outvars if id(var) not in given}
    return sum(aval.size * aval.dtype.itemsize for aval in kept.values())
