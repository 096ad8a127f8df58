"""The rank of tokens: how far the tokens of an example are from being all the same."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.analysis.blocks import blocks_of, observe
from resnet_jax.analysis.probe import OUTPUT
from resnet_jax.models.dtypes import wide_type


def rank_residual(x: Float[Array, "b t c"]) -> Float[Array, ""]:
    """Return the mean over examples of |X - 1 m'| / |X|, with m the mean token; Frobenius norms.

    0 means that all tokens are equal, so that the matrix of tokens has rank one.
    Source: Dong et al. 2021, arXiv:2103.03404, sec. 2. Differs: their m is the best in their norm,
    the root of the product of the 1-norm and the infinity-norm; the mean is best in Frobenius'.
    """
    x = x.astype(wide_type(x))
    residual = x - x.mean(1, keepdims=True)
    norm = lambda a: jnp.sqrt(jnp.square(a).sum((1, 2)))
    return (norm(residual) / norm(x)).mean()


def rank_residuals(
    apply: Callable, variables: Any, x: Any, *, train: bool = False
) -> Float[Array, "n"]:
    """Return the rank residual of the tokens after each of the n blocks.

    Raises: ValueError if a block's output is no batch of tokens (b, t, c).
    """
    blocks = blocks_of(apply, variables, x, train=train)
    for block, name in enumerate(blocks.names):
        shape = blocks.shape(block, OUTPUT).shape
        if len(shape) != 3:
            raise ValueError(f"block {name} gives {shape}, which are no tokens (b, t, c)")
    seen = observe(apply, variables, x, {OUTPUT: rank_residual}, train=train)[1]
    return blocks.stack(seen[OUTPUT])
