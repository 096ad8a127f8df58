"""Counts of a network: layers, blocks, parameters, multiply-adds, and the bytes of its gradient.

All counts follow from the network's fields and shapes. No array is made and nothing is compiled.
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
    """The counts of a network, or of a part of a network."""

    layers: int  # weighted layers on the longest path
    blocks: int  # Residuals
    identity_skips: int
    parameters: int
    macs: int  # multiply-adds


def count(net: nn.Module, x: Any) -> tuple[Counts, Any]:
    """Return the counts of `net` and the shape of its output.

    `x` is the input: an array or a ShapeDtypeStruct, or any tree of them. The multiply-adds are
    those of one evaluation on `x`. A skip counts as an identity skip if it is the identity and the
    merge uses it with any weight. Skips of plain networks, zero-padded and projected skips and
    skips with dropout do not count.
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
    """Yield `net` and every module in its fields, each with the number of times it is applied."""
    yield net, times
    inner = times * net.depth if isinstance(net, Stack) else times
    for field in dataclasses.fields(net):
        if field.name not in ("parent", "name"):
            for child in jax.tree.leaves(getattr(net, field.name)):
                if isinstance(child, nn.Module):
                    yield from modules(child, inner)


def layers(net: Any, params: Any) -> int:
    """Return the weighted layers on the longest path, as He et al. count a network's depth.

    `params` are the network's parameters or their shapes. Weights on skips do not count.
    """
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
    """Return the multiply-adds of the convolutions and matrix products in a jaxpr.

    Calls within the jaxpr count too: the body of a scan once for each turn, and a conditional by
    the branch with the most multiply-adds.
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
    """Return the bytes that `loss(params, *inputs)` stores for the gradient of `params`.

    These are the arrays that JAX hands from the forward to the backward pass, before the compiler
    merges any of them. Parameters and inputs do not count, but a copy of a parameter in another
    number type does.
    """

    def forward(params, *inputs):
        return jax.tree.leaves(jax.vjp(lambda p: loss(p, *inputs), params)[1])

    jaxpr = jax.make_jaxpr(forward)(params, *inputs).jaxpr
    given = {id(var) for var in jaxpr.invars}
    kept = {id(var): var.aval for var in jaxpr.outvars if id(var) not in given}
    return sum(aval.size * aval.dtype.itemsize for aval in kept.values())
