"""Lesions: the loss of a network without some of its blocks, or with blocks in another order.

Source: Veit et al. 2016, arXiv:1605.06431, sec. 4.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from jaxtyping import Array, Float, Int, Key

from resnet_jax.analysis.norms import Loss
from resnet_jax.analysis.observe import blocks_of, observe
from resnet_jax.analysis.order import Path

Part = Literal["body", "block"]


def lesions(
    apply: Callable,
    variables: Any,
    x: Any,
    loss: Loss,
    masks: Float[Array, "k n"],
    *,
    part: Part = "body",
    train: bool = False,
) -> Float[Array, "k"]:
    """Return loss(output) under each row of `masks`, which has a 1 for each block that is kept.

    part='body' multiplies the bodies' outputs by the mask; skips stay, as in Veit et al.
    part='block' leaves out whole blocks, so that the output is the input: the way to delete a layer
    of a plain network. It has no effect on a block that changes the shape. The network is compiled
    once for all masks, because the masks are arguments of the compiled program.
    Raises: ValueError unless `masks` has a column for each block.
    """
    blocks = blocks_of(apply, variables, x, train=train)
    if masks.ndim != 2 or masks.shape[1] != len(blocks):
        raise ValueError(f"masks are {masks.shape}; they need {len(blocks)} columns, one a block")

    def one(mask):
        if part == "body":
            lesion = {"scales": blocks.collection(body=mask)}
        else:
            kept = flatten_dict(blocks.collection(block=mask))
            same = {blocks.places[block][0] for block in deletable(blocks)}
            lesion = {"lesions": unflatten_dict({p: a for p, a in kept.items() if p[:-1] in same})}
        return loss(observe(apply, {**variables, **lesion}, x, {}, train=train)[0])

    return lax.map(one, masks)


def deletable(blocks: Any) -> list[int]:
    """Return the numbers of the blocks that keep the shape, which can be left out whole."""
    return [block for block in range(len(blocks)) if blocks.same(block)]


def deletions(
    apply: Callable,
    variables: Any,
    x: Any,
    loss: Loss,
    *,
    part: Part = "body",
    train: bool = False,
) -> tuple[list[int], Float[Array, "k"]]:
    """Return numbers of blocks, and the loss without each of them (see `lesions`).

    The blocks are all blocks for part='body', and those that keep the shape for part='block'.
    Raises: ValueError if no block keeps the shape and part='block'.
    """
    blocks = blocks_of(apply, variables, x, train=train)
    chosen = [*range(len(blocks))] if part == "body" else deletable(blocks)
    if not chosen:
        raise ValueError("every block of the network changes the shape; none can be left out whole")
    masks = 1 - jnp.eye(len(blocks))[np.array(chosen)]
    return chosen, lesions(apply, variables, x, loss, masks, part=part, train=train)


def permuted(variables: Any, stack: Path, order: Int[Array, "d"] | np.ndarray) -> Any:
    """Return the variables with the layers of one Stack reordered: layer i is the old order[i].

    `stack` is the Stack's path in the network: ("stage1",). Variables of all collections move.
    Numbers that are fields of the network, such as the survival of stochastic depth, stay.
    Raises: ValueError if the variables have no such Stack, or layers of another number. The layers
        of a tied Stack share parameters and cannot be reordered.
    """
    prefix, depth = (*stack, "layers"), len(order)
    flat: dict[Any, Any] = flatten_dict(variables)
    inside = [path for path in flat if path[1 : len(prefix) + 1] == prefix]
    if not inside or any(flat[path].shape[:1] != (depth,) for path in inside):
        raise ValueError(
            f"no variables of a Stack {'/'.join(stack)} of {depth} layers; its path and its depth "
            "are those of the network's Stack, whose layers must not share parameters"
        )
    return unflatten_dict(flat | {path: flat[path][jnp.asarray(order)] for path in inside})


def swapped(key: Key[Array, ""], depth: int, swaps: int) -> Int[Array, "d"]:
    """Return the order of `depth` layers after `swaps` swaps of random pairs of layers."""

    def swap(order, key):
        pair = jax.random.choice(key, depth, (2,), replace=False)
        return order.at[pair].set(order[pair[::-1]]), None

    return lax.scan(swap, jnp.arange(depth), jax.random.split(key, swaps))[0]


def kendall(order: Int[Array, "d"] | np.ndarray) -> float:
    """Return Kendall's tau of a permutation: 1 - 4 inversions / (d (d - 1)); 1 is the identity.

    Source: Kendall 1938, Biometrika 30; Veit et al. 2016, sec. 4, measure the disorder of blocks by
    tau. Raises: ValueError for fewer than two layers.
    """
    order = np.asarray(order)
    if len(order) < 2:
        raise ValueError(f"{len(order)} layers have no order; at least 2 have one")
    inversions = np.triu(order[:, None] > order[None], 1).sum()
    return float(1 - 4 * inversions / (len(order) * (len(order) - 1)))
