"""All that changes during training."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct


@struct.dataclass
class TrainState:
    """What a checkpoint holds: all that changes during training, and the run's random key.

    `key` does not change: the key of a step is folded from it and from the step. `skipped` counts
    the steps whose numbers were not finite and which taught nothing. It is -1 if such a step ends
    the run; the state is then the state before that step. `ema` has the moving averages of the
    parameters and statistics, {"params": ..., "batch_stats": ...}; it is empty if a run has none.
    A field that a saved checkpoint lacks starts at zero: zero must reproduce what was computed
    before the field existed.
    """

    step: Any  # () int32
    params: Any
    batch_stats: Any
    opt_state: Any
    key: Any  # () typed key
    skipped: Any  # () int32
    ema: Any = struct.field(default_factory=dict)


def create(
    seed: Any,
    net: Any,
    shape: tuple[int, ...],
    optimizer: optax.GradientTransformation,
    ema: bool = False,
) -> TrainState:
    """Return the state at step 0, drawn from `seed`; `shape` is the shape of an example's input.

    If `ema`, the state has moving averages.
    """
    return begin(seed, net.init(initial_key(seed), jnp.zeros((1, *shape))), optimizer, ema)


# The random generator is named, so that JAX_DEFAULT_PRNG_IMPL in the environment changes no run.
IMPL = "threefry2x32"


def root_key(seed: Any) -> Any:
    """Return the random key from which all keys of a run follow."""
    return jax.random.key(seed, impl=IMPL)


def initial_key(seed: Any) -> Any:
    """Return the random key from which a run of this seed draws its parameters."""
    return jax.random.fold_in(root_key(seed), 0)


def begin(
    seed: Any, variables: Any, optimizer: optax.GradientTransformation, ema: bool = False
) -> TrainState:
    """Return the state at step 0 with the given parameters and statistics.

    If `ema`, the moving averages start as these, too.
    """
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        key=jax.random.fold_in(root_key(seed), 1),
        skipped=jnp.zeros((), jnp.int32),
        # Copies, because a step writes over its state, and no array of it may be there twice.
        ema=jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats}) if ema else {},
    )


def variables(state: TrainState) -> dict[str, Any]:
    """Return the variables that are evaluated, as the network's `apply` takes them.

    They are the moving averages if the state has them.
    """
    return state.ema or {"params": state.params, "batch_stats": state.batch_stats}
