"""Shattered gradients: how alike the gradients of neighbouring inputs are.

Source: Balduzzi et al. 2017, arXiv:1702.08591.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def line(start: Float[Array, "*s"], end: Float[Array, "*s"], points: int) -> Float[Array, "p *s"]:
    """Return `points` inputs at equal distances from `start` to `end`."""
    return jnp.linspace(start, end, points)


def input_gradients(
    apply: Callable,
    variables: Any,
    x: Float[Array, "p ..."],
    output: Callable[[Any], Float[Array, "p"]] = lambda y: y.reshape(len(y), -1).sum(1),
    *,
    train: bool = False,
) -> Float[Array, "p d"]:
    """Return the gradient of output(network) with respect to each of the inputs, one a row.

    `output` gives a number for each input: the sum of the network's outputs if it is left out. With
    `train`, the network normalises by the batch of all inputs, and a row is the gradient of the sum
    over the batch with respect to one input.
    """

    def total(x):
        mutable = ["batch_stats"] if train else False
        y = apply(variables, x, mutable=mutable)
        return output(y[0] if train else y).sum()

    return jax.grad(total)(x).reshape(len(x), -1)


def correlations(gradients: Float[Array, "p d"]) -> Float[Array, "p p"]:
    """Return the cosine between the gradients of each two inputs.

    Nothing is subtracted, because gradients of random networks have the mean 0. A gradient of 0
    has cosines of 0. Source: Balduzzi et al. 2017, sec. 3 (covariances over random networks).
    """
    norms = jnp.linalg.norm(gradients, axis=1, keepdims=True)
    unit = gradients / jnp.where(norms > 0, norms, 1)
    return unit @ unit.T


def autocorrelation(gradients: Float[Array, "p d"], lags: int) -> Float[Array, "l"]:
    """Return the autocorrelation of the gradient along a line of inputs, at lags 0 .. lags - 1.

        R_k = sum_i g_i . g_i+k / sum_i g_i . g_i,   with g less its mean over the inputs

    This is the biased estimate, so that |R_k| <= 1. Source: Balduzzi et al. 2017, sec. 2.
    Raises: ValueError unless there are more inputs than lags.
    """
    if not 0 < lags < len(gradients):
        raise ValueError(f"{lags} lags of {len(gradients)} inputs; use fewer lags than inputs")
    g = gradients - gradients.mean(0, keepdims=True)
    # Products of all pairs, because lags have different numbers of pairs.
    products = g @ g.T
    return jnp.stack([jnp.trace(products, k) for k in range(lags)]) / jnp.trace(products)


def expected_correlation(kind: Literal["plain", "residual", "normalised"], depth: int) -> float:
    """Return the correlation of gradients of two inputs far apart, over random ReLU networks.

    Layers are x' = W relu(x) ('plain'), x' = x + W relu(x) ('residual') or x' = x + W relu(norm(x))
    ('normalised': the norm divides x_l by its deviation, sqrt(l)), with W ~ N(0, 2 / width).
    A ReLU is taken to be open for one input with probability 1/2, and for both with 1/4. A layer
    then multiplies

                    E g(a) g(b)             E g(a)^2
        plain       1/2                     1
        residual    1 + 1/2                 1 + 1
        normalised  1 + 1/(2 l)             1 + 1/l

    and the correlations are 2^-L, (3/4)^L and about 2 / sqrt(pi L).
    Source: Balduzzi et al. 2017, theorems 1 to 3, whose rates these are; the exact product of
    'normalised' is ours.
    """
    skip = 0.0 if kind == "plain" else 1.0
    gain = 1 / np.arange(1, depth + 1) if kind == "normalised" else np.ones(depth)
    return float(np.prod((skip + gain / 2) / (skip + gain)))
