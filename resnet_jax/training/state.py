"""All that changes during training."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct


@struct.dataclass
class TrainState:
    """All that changes during training; `key` is the run's root key and never does.

    `skipped` counts the steps that were not finite and taught nothing; -1: one was met that ends
    the run, and this is the state before it.
    """

    step: Any  # () int32
    params: Any
    batch_stats: Any
    opt_state: Any
    key: Any  # () typed key
    skipped: Any  # () int32


def create(
    seed: Any, net: Any, shape: tuple[int, ...], optimizer: optax.GradientTransformation
) -> TrainState:
    """The state at step 0: everything drawn from `seed`; `shape` (h, w, c) of one image."""
    key = jax.random.fold_in(jax.random.key(seed), 0)
    return begin(seed, net.init(key, jnp.zeros((1, *shape))), optimizer)


def begin(seed: Any, variables: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state at step 0 with the given parameters and statistics."""
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(params),
        key=jax.random.fold_in(jax.random.key(seed), 1),
        skipped=jnp.zeros((), jnp.int32),
    )
