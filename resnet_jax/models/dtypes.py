"""The number types in which a network keeps its parameters and statistics."""

from typing import Any

import jax.numpy as jnp


def wide_type(x: Any) -> Any:
    """Return the type of parameters and statistics beside `x`: float32, or float64 if `x` is."""
    return x.dtype if x.dtype.itemsize > 4 else jnp.float32
