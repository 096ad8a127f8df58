"""The receptive field: the pixels of the image that a unit of the network depends on."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from resnet_jax.analysis.observe import blocks_of, observe
from resnet_jax.analysis.probe import OUTPUT


def receptive_field(
    apply: Callable,
    variables: Any,
    x: Float[Array, "b h w c"],
    block: int,
    pixel: tuple[int, int],
) -> Bool[Array, "h w"]:
    """Return which pixels have a gradient of a block's output at `pixel`, in any channel.

        field[i, j] = whether d y[n, pixel, d] / d x[n, i, j, c] is not 0 for any n, c, d

    The gradient is that of a sum over channels and examples with random weights, so that nothing
    cancels. The field is exact for linear networks. A ReLU may cut a pixel off in every example of
    a small batch; use more examples then. Blocks count from 0. Norms use the running statistics,
    because the statistics of a batch depend on all pixels. A convolution algorithm that transforms
    the image, such as Winograd's on a GPU, may turn zeros into rounding errors.
    Raises: ValueError if the block's output is no image, or has no such pixel.
    """
    blocks = blocks_of(apply, variables, x)
    shape = blocks.shape(block, OUTPUT).shape
    images = len(shape) == 4 and x.ndim == 4
    if not images or not (0 <= pixel[0] < shape[1] and 0 <= pixel[1] < shape[2]):
        raise ValueError(
            f"block {blocks.names[block]} gives {shape} for an input of {x.shape}, which has no "
            f"pixel {pixel}; images have the axes (b, h, w, c)"
        )

    def unit(x):
        seen = observe(apply, variables, x, {OUTPUT: lambda a: a[:, *pixel]})[1][OUTPUT]
        y = blocks.stack(seen, [block])[0]
        return (y * jax.random.uniform(jax.random.key(0), y.shape, y.dtype, 0.5, 1.5)).sum()

    return (jax.grad(unit)(x) != 0).any((0, 3))


def extent(field: Bool[Array, "h w"]) -> tuple[Any, Any]:
    """Return the height and the width of the smallest box around a receptive field."""
    reach = lambda line: jnp.where(
        line.any(), line.size - jnp.argmax(line) - jnp.argmax(line[::-1]), 0
    )
    return reach(field.any(1)), reach(field.any(0))
