"""Other learning rules: what carries the error back through a layer, in the place of its weights.

Back-propagation sends the error g of a layer y = W x back as W' g, so that the way back must know
the weights of the way forward. With feedback B it sends B' g instead, while the gradient of W stays
g x':

    weights   B = W                        back-propagation
    signs     B = rms(W) sign(W)           sign-symmetry
    random    B drawn once, and kept       feedback alignment

Sign-symmetry needs the signs of the weights alone, and feedback alignment nothing of them
(Lillicrap et al. 2016, Nature Communications 7; Liao et al. 2016, arXiv:1510.05067). As in Xiao et
al. 2018 (arXiv:1811.03567), the classifier and the norms learn by back-propagation.

Differs: the signs are scaled to the root mean square of W, so that the error keeps its size. B is
drawn as W starts, and stands with what a network keeps beside its parameters (`batch_stats`).
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.keys import Key, choice

Feedback = Literal["weights", "signs", "random"]

KEYS = {
    "model.feedback": Key(
        "weights",
        choice(*get_args(Feedback)),
        "what carries the error back through a layer of a body: its weights (back-propagation), "
        "their signs (sign-symmetry), or random numbers (feedback alignment)",
    )
}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def with_feedback(
    product: Callable[[Any, Any], Array],
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    feedback: Float[Array, "..."],
) -> Float[Array, "..."]:
    """Return product(x, kernel), whose gradient to x passes through `feedback`, not the kernel.

    `product` must be linear in both, as a convolution is. The gradient of such a product to its
    kernel does not depend on the kernel, so that both gradients are those of product(x, feedback):
    with feedback = kernel they are back-propagation's. `feedback` has no gradient, and forward-mode
    differentiation is not defined.
    """
    return product(x, kernel)


def _forward(product, x, kernel, feedback):
    return product(x, kernel), (x, feedback)


def _backward(product, saved, g):
    _, pull = jax.vjp(product, *saved)
    return *pull(g), jnp.zeros_like(saved[1])


with_feedback.defvjp(_forward, _backward)


def multiply(
    module: nn.Module,
    kind: Feedback,
    product: Callable[[Any, Any], Array],
    x: Float[Array, "..."],
    kernel: Float[Array, "..."],
    start: Callable[..., Array],
) -> Float[Array, "..."]:
    """Return product(x, kernel), whose error goes back as `kind` says (see the top of the file).

    `start` is the initializer of random feedback, which `module` keeps as the variable
    `batch_stats/feedback` of the kernel's shape. Call this from a compact method of `module`.
    """
    if kind == "weights":
        return product(x, kernel)
    if kind == "signs":
        feedback = jnp.sign(kernel) * jnp.sqrt(jnp.square(kernel).mean())
    else:
        draw = lambda: start(module.make_rng("params"), kernel.shape, jnp.float32)
        feedback = module.variable("batch_stats", "feedback", draw).value.astype(kernel.dtype)
    return with_feedback(product, x, kernel, jax.lax.stop_gradient(feedback))
