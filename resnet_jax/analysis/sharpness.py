"""The Hessian of a loss: its largest eigenvalues, its trace and its spectrum.

Products with the Hessian are gradients of gradients, because the convolutions of the CPU have no
forward mode (models/conv.py): H v = d/dw (dE/dw . v). Lanczos' method and the estimators are those
of the library matfree, which has no dependency but JAX.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

Params = Any
Loss = Callable[[Params], Float[Array, ""]]


def hessian_product(loss: Loss, params: Params) -> Callable[[Params], Params]:
    """Return the function v -> H v, with H the Hessian of the loss at the parameters."""

    def product(v):
        slope = lambda w: _dot(jax.grad(loss)(w), v)
        return jax.grad(slope)(params)

    return product


def largest_eigenvalues(
    loss: Loss, params: Params, key: Key[Array, ""], count: int = 1, *, steps: int = 30
) -> Float[Array, "k"]:
    """Return approximations of the `count` largest eigenvalues of the Hessian, largest first.

    They are those of Lanczos' matrix after `steps` products, with full orthogonalisation, and never
    exceed the true ones. `steps` vectors of the size of the parameters are stored.
    Source: Ghorbani et al. 2019, arXiv:1901.10159, sec. 2.
    Raises: ValueError unless count <= steps <= the number of parameters.
    """
    diagonal, _ = _lanczos(loss, params, _normal(params, key), count, steps)
    return diagonal[::-1][:count]


def trace(loss: Loss, params: Params, key: Key[Array, ""], samples: int = 30) -> Float[Array, ""]:
    """Return Hutchinson's estimate of the Hessian's trace: the mean of v' H v over random signs v.

    The estimate is unbiased, and exact if the Hessian is diagonal.
    """
    from matfree import stochtrace

    sampler = stochtrace.sampler_signs(params, num=samples)
    estimate = stochtrace.estimator_monte_carlo(stochtrace.monte_carlo_trace(), sampler)
    return estimate(hessian_product(loss, params), key)


def spectrum(
    loss: Loss, params: Params, key: Key[Array, ""], *, steps: int = 30, samples: int = 4
) -> tuple[Float[Array, "s k"], Float[Array, "s k"]]:
    """Return points and weights that stand for the distribution of the Hessian's eigenvalues.

    Each of the `samples` random vectors gives `steps` points (Ritz values) with weights that sum to
    1: the squared first entries of the eigenvectors of Lanczos' matrix. The mean over the vectors
    of sum_k weight_k f(point_k) estimates the mean of f over all eigenvalues.
    Source: Ghorbani et al. 2019, arXiv:1901.10159, sec. 2 and app. A.
    Raises: ValueError unless steps <= the number of parameters.
    """
    one = lambda key: _lanczos(loss, params, _normal(params, key), 1, steps)
    return jax.lax.map(one, jax.random.split(key, samples))


def _lanczos(loss, params, start, count, steps):
    """Return the eigenvalues of Lanczos' matrix, smallest first, and their weights."""
    from matfree import decomp

    flat, unravel = ravel_pytree(params)
    if not 0 < count <= steps <= flat.size:
        raise ValueError(
            f"{count} eigenvalues after {steps} products, of a Hessian of {flat.size} parameters; "
            "use at most as many products as parameters, and as many eigenvalues as products"
        )
    product = hessian_product(loss, params)
    matvec = lambda v: ravel_pytree(product(unravel(v)))[0]
    tridiagonal = decomp.tridiag_sym(steps, reortho="full", custom_vjp=False)
    values, vectors = jnp.linalg.eigh(tridiagonal(matvec, start)[1])
    return values, jnp.square(vectors[0])


def _normal(params, key):
    flat, _ = ravel_pytree(params)
    return jax.random.normal(key, flat.shape, flat.dtype)


def _dot(a, b):
    products = jax.tree.map(lambda x, y: (x * y).sum(), a, b)
    return jax.tree.reduce(jnp.add, products)
