"""Sizes of the signal, of the gradient and of the bodies' responses, block by block."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.analysis.observe import blocks_of, gradients_at, observe
from resnet_jax.analysis.order import Order
from resnet_jax.analysis.probe import BODY, INPUT, OUTPUT, flat, probed
from resnet_jax.models.dtypes import wide_type

Size = Literal["std", "rms", "l2"]
Loss = Callable[[Any], Float[Array, ""]]


def size(x: Float[Array, "..."], kind: Size) -> Float[Array, ""]:
    """Return the size of all numbers of an array, at least in float32.

    std = sqrt(mean (x - mean x)^2),   rms = sqrt(mean x^2),   l2 = sqrt(sum x^2)
    """
    x = x.astype(wide_type(x))
    if kind == "std":
        return x.std()
    square = jnp.square(x)
    return jnp.sqrt(square.sum() if kind == "l2" else square.mean())


def forward_norms(
    apply: Callable,
    variables: Any,
    x: Any,
    *,
    kind: Size = "rms",
    point: str = OUTPUT,
    train: bool = False,
) -> Float[Array, "n"]:
    """Return the size of each of the n blocks' values: INPUT x_l, BODY f or OUTPUT x_l+1.

    Raises: ValueError if the network has no blocks, or at BODY if a body is a plain function.
    """
    blocks = blocks_of(apply, variables, x, train=train)
    for block in range(len(blocks)):
        blocks.shape(block, point)
    see = {point: lambda a: size(a, kind)}
    return blocks.stack(observe(apply, variables, x, see, train=train)[1][point])


def responses(apply: Callable, variables: Any, x: Any, *, train: bool = False) -> Float[Array, "n"]:
    """Return the standard deviation of each body's output, before it meets the skip.

    Source: He et al. 2015, arXiv:1512.03385, Fig. 7. Differs: the figure has a point for every 3x3
    convolution, after its norm and before the ReLU or the addition; here each body has one number,
    that of its last layer.
    Raises: ValueError if a body is a plain function.
    """
    return forward_norms(apply, variables, x, kind="std", point=BODY, train=train)


def gradient_norms(
    apply: Callable,
    variables: Any,
    x: Any,
    loss: Loss,
    *,
    kind: Size = "l2",
    point: str = INPUT,
    train: bool = False,
) -> Float[Array, "n"]:
    """Return the size of dE/dx_l for the input x_l of each block, or for another point.

    E = loss(the network's output). A gradient is stored for no block, only its size.
    Raises: as `forward_norms`.
    """
    blocks = blocks_of(apply, variables, x, train=train)
    measure = lambda g: size(g, kind)
    return blocks.stack(
        gradients_at(apply, variables, x, loss, point, measure, train=train, blocks=blocks)
    )


def parameter_gradient_norms(
    apply: Callable, variables: Any, x: Any, loss: Loss, *, kind: Size = "l2", train: bool = False
) -> Float[Array, "m"]:
    """Return the size of dE/dW for each of the m kernels W, first to last (`layer_names`).

    The layers of a tied Stack share a kernel, which counts once.
    """
    order, mutable = Order(), ["batch_stats"] if train else []

    def objective(params):
        run = probed(apply, {}, order=order)
        return loss(run({**variables, "params": params}, x, mutable=mutable)[0])

    kernels = _kernels(jax.grad(objective)(variables["params"]))
    values = {}
    for path, gradient in kernels.items():
        measure = lambda g: size(g, kind)
        for _ in order.depths(path, params=True):
            measure = jax.vmap(measure)
        values[path] = measure(gradient)
    return order.rows(values, order.places(kernels, params=True))


def layer_names(apply: Callable, variables: Any, x: Any) -> tuple[str, ...]:
    """Return the names of the layers that have kernels, first to last: stage1[3]/body/conv2."""
    order = Order()
    jax.eval_shape(probed(apply, {}, order=order), variables, x)
    places = order.places(_kernels(variables["params"]), params=True)
    return tuple(order.name(*place, params=True) for place in places)


def _kernels(params):
    """Return the kernels of a tree of parameters by the paths of their modules."""
    return {path[:-1]: leaf for path, leaf in flat(params).items() if path[-1] == "kernel"}
