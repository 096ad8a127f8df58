"""The paths of a residual network, and the gradient that each of them carries.

Of n blocks a path passes through the bodies of some, and through the skips of the others: there are
2^n paths, C(n, k) of them of length k. The gradient is the sum over all paths.
Source: Veit et al. 2016, arXiv:1605.06431, sec. 3 and 5.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Key
from scipy import stats

from resnet_jax.analysis.norms import Loss
from resnet_jax.analysis.observe import blocks_of, gradients_at
from resnet_jax.analysis.probe import INPUT


def path_gradients(
    apply: Callable,
    variables: Any,
    x: Any,
    loss: Loss,
    paths: Bool[Array, "k n"],
    function: Callable[[Any], Any] = lambda g: jnp.linalg.norm(g.ravel()),
    *,
    train: bool = False,
) -> Float[Array, "k ..."]:
    """Return function(dE/dx_0 along each path), x_0 the input of the first block.

    A row of `paths` is True for the blocks whose bodies the path passes through. The forward pass
    is the whole network's. In the backward pass, a block of the path passes the gradient through
    its body alone, and any other block through everything but its body. The function is the l2
    norm if none is given.

    Exact for every merge: the gradients of all 2^n paths add up to dE/dx_0. What a gate sees counts
    as skip. In a plain network only the path through all bodies carries a gradient.
    Raises: ValueError unless `paths` has a column for each block.
    """
    blocks = blocks_of(apply, variables, x, train=train)
    if paths.ndim != 2 or paths.shape[1] != len(blocks):
        raise ValueError(f"paths are {paths.shape}; they need {len(blocks)} columns, one a block")

    def one(path):
        body = path.astype(jnp.float32)
        given = {**variables, "routes": blocks.collection(body=body, skip=1 - body)}
        of_path = gradients_at(apply, given, x, loss, INPUT, function, train=train, blocks=blocks)
        return blocks.stack(of_path, [0])[0]

    return lax.map(one, paths)


def random_paths(key: Key[Array, ""], blocks: int, length: int, count: int) -> Bool[Array, "k n"]:
    """Return `count` random paths through `length` of `blocks` bodies, all equally probable.

    Raises: ValueError unless 0 <= length <= blocks.
    """
    if not 0 <= length <= blocks:
        raise ValueError(f"a path of length {length} through {blocks} blocks; use 0 to {blocks}")
    first = jnp.arange(blocks) < length
    return jax.vmap(lambda key: jax.random.permutation(key, first))(jax.random.split(key, count))


def path_lengths(blocks: int) -> np.ndarray:
    """Return the share of paths of each length k = 0 .. n: C(n, k) / 2^n, in float64."""
    return stats.binom.pmf(np.arange(blocks + 1), blocks, 0.5)


def contributions(norms: np.ndarray) -> np.ndarray:
    """Return the share of each length 0 .. n in the gradient, from the mean norms of its paths.

    share_k = C(n, k) norm_k / sum_j C(n, j) norm_j. Source: Veit et al. 2016, Fig. 6 (c).
    """
    norms = np.asarray(norms, np.float64)
    share = path_lengths(len(norms) - 1) * norms
    return share / share.sum()
