"""The Jacobian of a part of a network, and what is left of the gradient if bodies are small.

All products with a Jacobian are made by reverse mode, because the convolutions of the CPU have no
forward mode (models/conv.py): J' u is a vector-Jacobian product, and J v is the one of u -> J' u.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from resnet_jax.analysis.norms import Loss, size
from resnet_jax.analysis.observe import blocks_of, gradients_at, observe
from resnet_jax.analysis.probe import INPUT, OUTPUT


def part(
    apply: Callable, variables: Any, x: Any, first: int, last: int, *, train: bool = False
) -> tuple[Callable[[Any], Any], Any]:
    """Return the function of the blocks first .. last, and its argument on the network's input.

    The function maps the input of block `first` to the output of block `last`; blocks count from 0.
    What stands between the blocks, such as poolings, is part of it. In a call the whole network
    runs, and everything behind block `last` is without effect.
    Raises: ValueError unless 0 <= first <= last < the number of blocks.
    """
    blocks = blocks_of(apply, variables, x, train=train)
    if not 0 <= first <= last < len(blocks):
        raise ValueError(
            f"blocks {first} to {last} of a network of {len(blocks)}; choose two of 0 to "
            f"{len(blocks) - 1}, the first one first"
        )
    same = {INPUT: lambda a: a}
    start = blocks.stack(observe(apply, variables, x, same, train=train)[1][INPUT], [first])[0]

    def function(z):
        given = {**variables, "taps": blocks.tap(first, INPUT, z - start)}
        seen = observe(apply, given, x, {OUTPUT: lambda a: a}, train=train)[1][OUTPUT]
        return blocks.stack(seen, [last])[0]

    return function, start


def singular_values(function: Callable[[Any], Any], x: Float[Array, "..."]) -> Float[Array, "k"]:
    """Return all singular values of the Jacobian of `function` at x, the largest first.

    The Jacobian has a row for each number of the output and a column for each of x, and is stored:
    this is for small networks. k is the smaller of the two numbers.
    """
    jacobian = jax.jacrev(lambda flat: function(flat.reshape(x.shape)).ravel())(x.ravel())
    return jnp.linalg.svd(jacobian, compute_uv=False)


def spectral_norm(
    function: Callable[[Any], Any], x: Float[Array, "..."], key: Key[Array, ""], steps: int = 100
) -> Float[Array, ""]:
    """Return the largest singular value of the Jacobian of `function` at x, by power iteration.

    v <- J'J v / |J'J v| for `steps` steps from a random v, then |J v|, which is never too large.
    """
    y, pull = jax.vjp(function, x)
    push = jax.vjp(lambda u: pull(u)[0], jnp.zeros_like(y))[1]
    unit = lambda v: v / jnp.linalg.norm(v.ravel())
    start = unit(jax.random.normal(key, x.shape, x.dtype))
    v = lax.fori_loop(0, steps, lambda _, v: unit(pull(push(v)[0])[0]), start)
    return jnp.linalg.norm(push(v)[0].ravel())


def scaled_gradients(
    apply: Callable,
    variables: Any,
    x: Any,
    loss: Loss,
    scales: Float[Array, "k"] | Sequence[float],
    *,
    train: bool = False,
) -> Float[Array, "k r"]:
    """Return |dE/dx_l| / |dE/dx_L| over each run of blocks, with all bodies times each of `scales`.

    x_l is the input of the first block of a run, and x_L the output of its last block
    (`Blocks.segments`). As the scale falls to 0, a residual network's ratio tends to 1, because the
    gradient along the skips stays; a plain network's falls to 0 like scale^m for m blocks.
    Source: He et al. 2016, arXiv:1603.05027, sec. 2: the gradient of a layer does not vanish even
    if the weights are arbitrarily small.
    Raises: ValueError if the network has no run of blocks.
    """
    blocks = blocks_of(apply, variables, x, train=train)
    runs = blocks.segments()
    if not runs:
        raise ValueError("no block of the network keeps the shape and has an identity skip")
    norm = lambda g: size(g, "l2")

    def ratios(scale):
        given = {**variables, "scales": blocks.collection(body=jnp.repeat(scale, len(blocks)))}
        at = lambda point: blocks.stack(
            gradients_at(apply, given, x, loss, point, norm, train=train, blocks=blocks)
        )
        starts, ends = at(INPUT), at(OUTPUT)
        return jnp.stack([starts[run.start] / ends[run.stop - 1] for run in runs])

    return lax.map(ratios, jnp.asarray(scales))
