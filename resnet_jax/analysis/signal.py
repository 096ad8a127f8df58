"""The signal and the gradient as sums over blocks: He et al. 2016, eq. 4 and 5.

    x_L     = x_l + sum_i F(x_i),   i = l .. L-1                                eq. 4
    dE/dx_l = dE/dx_L (1 + d/dx_l sum_i F(x_i))                                 eq. 5

The equations are tested in each run of neighbouring blocks that keep the shape and whose skip is
the identity (`Blocks.segments`). x_L is the output of the last block of a run. A block whose skip
is padded with zeros or projected stands between runs, and so does the first block of a
pre-activation stage, whose skip sees the activated x_l. A result for runs is a tuple with an array
for each run, which has a number for each block of the run.

The errors are those of rounding if the merge is the addition and no activation follows it. A ReLU
after the addition (He et al. 2015), gates, and a missing skip break both equations; the errors then
tell by how much.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.analysis.blocks import Blocks
from resnet_jax.analysis.gains import carried, gains
from resnet_jax.analysis.norms import Loss, gradient_norms, size
from resnet_jax.analysis.observe import blocks_of, gradients_at, observe
from resnet_jax.analysis.probe import BODY, INPUT, OUTPUT

Runs = tuple[Float[Array, "m"], ...]


def sum_errors(apply: Callable, variables: Any, x: Any, *, train: bool = False) -> Runs:
    """Return the error of eq. 4 for each l: max |x_L - x_l - sum F| / max |x_L|.

    Raises: ValueError if the network has no run of blocks, or if a body is a plain function.
    """
    blocks = _blocks(apply, variables, x, train)
    same = {point: lambda a: a for point in (INPUT, BODY, OUTPUT)}
    seen = observe(apply, variables, x, same, train=train)[1]

    def error(run):
        inputs, bodies = (blocks.stack(seen[point], run) for point in (INPUT, BODY))
        last = blocks.stack(seen[OUTPUT], run[-1:])
        return _largest(last - inputs - _sums(bodies)) / _largest(last)

    return tuple(map(error, blocks.segments()))


def gradient_errors(
    apply: Callable, variables: Any, x: Any, loss: Loss, *, train: bool = False
) -> Runs:
    """Return the error of eq. 5 for each l: max |whole - direct - rest| / max |whole|.

    `whole` is dE/dx_l, `direct` is dE/dx_L, and `rest` is dE/dx_L times the derivative of the sum
    of the bodies, which is computed by itself. E = loss(the network's output).
    Raises: as `sum_errors`.
    """
    blocks = _blocks(apply, variables, x, train)
    runs = blocks.segments()
    at = lambda point: gradients_at(apply, variables, x, loss, point, train=train, blocks=blocks)
    whole, ends = at(INPUT), at(OUTPUT)
    direct = [blocks.stack(ends, run[-1:]) for run in runs]

    def rests(which):
        """Return the gradient at every block of the sum of the bodies in run number `which`."""

        def total(taps):
            given = {**variables, "taps": taps}
            f = observe(apply, given, x, {BODY: lambda a: a}, train=train)[1][BODY]
            both = zip(direct, runs, strict=True)
            return jnp.stack([(g * blocks.stack(f, run)).sum() for g, run in both])[which]

        taps = jax.grad(total)(blocks.zeros(INPUT))
        return [blocks.stack(blocks.read(taps, INPUT), run) for run in runs]

    # Call i has the derivatives of run i. The loop compiles the network once for all runs.
    rest = [rows[i] for i, rows in enumerate(lax.map(rests, jnp.arange(len(runs))))]
    wholes = [blocks.stack(whole, run) for run in runs]
    return tuple(
        _largest(w - d - r) / _largest(w) for w, d, r in zip(wholes, direct, rest, strict=True)
    )


def skip_shares(
    apply: Callable, variables: Any, x: Any, loss: Loss, *, train: bool = False
) -> Float[Array, "n"]:
    """Return how much of the gradient arrives along the skips alone, for each of the n blocks.

        |dE/dx_l without the paths through any body| / |dE/dx_l|       l2 norms

    The skips are those of the whole network, padded and projected ones included, and so are the
    activations between blocks. What a merge's gate sees counts as skip. A share may exceed 1,
    because the two parts of a gradient can cancel. A plain network has shares of 0.
    """
    blocks = blocks_of(apply, variables, x, train=train)
    off, on = jnp.zeros(len(blocks)), jnp.ones(len(blocks))
    given = {**variables, "routes": blocks.collection(body=off, skip=on)}
    alone = gradient_norms(apply, given, x, loss, train=train)
    return alone / gradient_norms(apply, variables, x, loss, train=train)


def dilution(apply: Callable, variables: Any, x: Any, *, train: bool = False) -> Runs:
    """Return the share of x_l in x_L for each l.

        |c_l x_l| / |x_L|,   c_l = the product of the carry gains of the blocks l .. L-1

    The norms are l2; c_l = 1 if the merge is the addition, and 0 if the network is plain. A gate
    counts with its mean over units and examples, so that the share of a gated block is approximate.
    Raises: as `sum_errors`, and ValueError for a merge whose gains are not known (gains.py).
    """
    blocks = _blocks(apply, variables, x, train)
    measure = {point: lambda a: size(a, "l2") for point in (INPUT, OUTPUT)}
    seen = observe(apply, variables, x, measure, train=train)[1]
    carry = gains(apply, variables, x, train=train).carry

    def share(run):
        inputs, last = blocks.stack(seen[INPUT], run), blocks.stack(seen[OUTPUT], run[-1:])
        left = carried(carry[run.start : run.stop]).astype(inputs.dtype)
        return jnp.abs(left) * inputs / last

    return tuple(map(share, blocks.segments()))


def _blocks(apply: Callable, variables: Any, x: Any, train: bool) -> Blocks:
    blocks = blocks_of(apply, variables, x, train=train)
    if not blocks.segments():
        raise ValueError(
            "no block of the network keeps the shape and has an identity skip, so that there is no "
            "run of blocks in which x_L is x_l and a sum"
        )
    return blocks


def _sums(f):
    """Return the sums over the rows l .. m-1 for each l."""
    return jnp.cumsum(f[::-1], 0)[::-1]


def _largest(a):
    """Return the largest absolute number of each row."""
    return jnp.abs(a).max(tuple(range(1, a.ndim)))
