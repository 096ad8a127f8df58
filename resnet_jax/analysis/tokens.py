"""The rank of tokens: how far the tokens of an example are from being all the same."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.analysis.observe import blocks_of, observe
from resnet_jax.analysis.probe import OUTPUT
from resnet_jax.models.dtypes import wide_type

Norm = Literal["frobenius", "1-inf"]


def rank_residual(x: Float[Array, "b t c"], norm: Norm = "frobenius") -> Float[Array, ""]:
    """Return the mean over examples of |X - 1 m'| / |X|, with m the mean token.

    0 means that all tokens are equal, so that the matrix of tokens has rank one. The norm is
    Frobenius', or the paper's: |X|_{1,inf} = sqrt(|X|_1 |X|_inf), with the largest sum of absolute
    numbers of a column and of a row.
    Source: Dong et al. 2021, arXiv:2103.03404, sec. 2. Differs: the paper's m is the vector with
    the smallest residual; the mean has the smallest residual in Frobenius' norm.
    """
    x = x.astype(wide_type(x))

    def length(a):
        if norm == "frobenius":
            return jnp.sqrt(jnp.square(a).sum((1, 2)))
        return jnp.sqrt(jnp.abs(a).sum(1).max(1) * jnp.abs(a).sum(2).max(1))

    return (length(x - x.mean(1, keepdims=True)) / length(x)).mean()


def rank_residuals(
    apply: Callable, variables: Any, x: Any, *, norm: Norm = "frobenius", train: bool = False
) -> Float[Array, "n"]:
    """Return the rank residual of the tokens after each of the n blocks.

    Raises: ValueError if a block's output is no batch of tokens (b, t, c).
    """
    blocks = blocks_of(apply, variables, x, train=train)
    for block, name in enumerate(blocks.names):
        shape = blocks.shape(block, OUTPUT).shape
        if len(shape) != 3:
            raise ValueError(f"block {name} gives {shape}, which are no tokens (b, t, c)")
    seen = observe(
        apply, variables, x, {OUTPUT: functools.partial(rank_residual, norm=norm)}, train=train
    )[1]
    return blocks.stack(seen[OUTPUT])
