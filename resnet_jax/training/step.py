"""The training step and the evaluation step, pure and per device; and many steps in one dispatch.

Nothing here knows what the network learns: the task gives `prepare` and `measure` (tasks/task.py).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float

from resnet_jax.tasks.task import Batch, Prepare, Sums
from resnet_jax.training.state import TrainState, variables

# (the network's output, batch) -> sums over the examples of the mask.
Measure = Callable[[Any, Batch], Sums]


def gradients(
    state: TrainState,
    batch: Batch,
    *,
    apply: Callable,
    prepare: Prepare,
    measure: Measure,
    mutable: Sequence[str] = ("batch_stats",),
) -> tuple[Any, dict[str, Any], Sums]:
    """Return this device's gradients, the collections that the network changed, and the sums.

    The gradients are those of the summed loss over the device's number of rows: a constant, which
    keeps the backward pass at the size of a mean. `train_step` divides by the count.
    """
    key = jax.random.fold_in(state.key, state.step)
    batch = prepare(jax.random.fold_in(key, 0), batch)
    drop = jax.random.fold_in(key, 1)

    def objective(params):
        given = {"params": params, "batch_stats": state.batch_stats, "batch": {"row": batch.row}}
        output, changed = apply(given, batch.input, mutable=list(mutable), rngs={"drop": drop})
        sums = measure(output, batch)
        return sums["loss"] / batch.row.size, (changed, sums)

    grads, (changed, sums) = jax.grad(objective, has_aux=True)(state.params)
    return grads, changed, sums


def accumulated(
    state: TrainState, batch: Batch, parts: int, **of_step: Any
) -> tuple[Any, dict[str, Any], Sums]:
    """Return the same as `gradients`, computed part after part of a batch in `parts` equal parts.

    The gradients are those of the whole batch, except that a batch norm sees a part; its running
    statistics follow part after part. Memory is needed for the activations of a part.
    """
    if parts == 1:
        return gradients(state, batch, **of_step)

    def add(carry, part):
        batch_stats, totals = carry
        own = dataclasses.replace(state, batch_stats=batch_stats)
        grads, changed, sums = gradients(own, part, **of_step)
        totals = jax.tree.map(jnp.add, totals, (grads, sums))
        return (changed.get("batch_stats", {}), totals), None

    pieces = split(batch, parts)
    shapes = jax.eval_shape(lambda part: gradients(state, part, **of_step), _piece(pieces, 0))
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), (shapes[0], shapes[2]))
    (batch_stats, (grads, sums)), _ = lax.scan(add, (state.batch_stats, zeros), pieces)
    grads = jax.tree.map(lambda g: g / parts, grads)
    return grads, {"batch_stats": batch_stats}, sums


def split(batch: Batch, parts: int) -> Batch:
    """Return a batch's `parts` equal parts (parts, b / parts, ...): neighbouring rows each."""
    return jax.tree.map(lambda a: a.reshape(parts, a.shape[0] // parts, *a.shape[1:]), batch)


def _piece(pieces: Batch, index: int) -> Batch:
    return jax.tree.map(lambda a: a[index], pieces)


def train_step(
    state: TrainState,
    batch: Batch,
    axis: str | None,
    *,
    apply: Callable,
    prepare: Prepare,
    measure: Measure,
    optimizer: optax.GradientTransformation,
    skip: bool = False,
    parts: int = 1,
    ema_decay: float = 0.0,
) -> tuple[TrainState, Sums]:
    """Take one step of gradient descent on the mean loss of the batch's counted examples.

    Pure and per device. Gradients, statistics and sums are summed over the mesh axis `axis` in one
    message at the end; with None the batch is on one device. The objective is the summed loss over
    the summed count (`examples`), so that devices may hold different numbers of counted examples.

    If the loss, a gradient or a statistic is not finite, nothing is learned and the metrics count
    the step as `skipped`. With `skip` the run goes on: the step's examples count in no metric, and
    the optimizer with its schedule does not move. Without `skip` the state is the one from before
    the step, and stays so in all following steps, so that the caller can see what happened.

    The gradient is computed in `parts` (see `accumulated`). If the state has moving averages of
    parameters and statistics, they follow new = ema_decay * old + (1 - ema_decay) * current.
    """
    of_step = {"apply": apply, "prepare": prepare, "measure": measure}
    grads, changed, sums = accumulated(state, batch, parts, **of_step)
    batch_stats = changed.get("batch_stats", {})
    rows = batch.row.size
    if axis is not None:
        grads, batch_stats, sums = lax.psum((grads, batch_stats, sums), axis)
        batch_stats = jax.tree.map(lambda a: a / lax.axis_size(axis), batch_stats)
    # In units of a device's rows the count is a small whole number if every example counts.
    shares = jnp.maximum(sums["examples"], 1) / rows
    finite = jnp.isfinite(sums["loss"]) & all_finite((grads, batch_stats))
    learns = finite & (state.skipped >= 0)

    def learn() -> tuple[Any, Any, Any, Any]:
        # Divided in this branch, the division is fused with the update and not with the sums that
        # make the gradients.
        mean = jax.tree.map(lambda g: g / shares.astype(g.dtype), grads)
        updates, opt_state = optimizer.update(mean, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        current = {"params": params, "batch_stats": batch_stats} if state.ema else {}
        follow = lambda old, new: ema_decay * old + (1 - ema_decay) * new
        return params, batch_stats, opt_state, jax.tree.map(follow, state.ema, current)

    # A branch updates in place; a choice between the old and the new would hold both.
    keep = lambda: (state.params, state.batch_stats, state.opt_state, state.ema)
    params, batch_stats, opt_state, ema = lax.cond(learns, learn, keep)
    skipped = state.skipped + (~finite).astype(jnp.int32)
    state = dataclasses.replace(
        state,
        step=state.step + (1 if skip else learns.astype(jnp.int32)),
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        skipped=skipped if skip else jnp.where(learns, state.skipped, -1),
        ema=ema,
    )
    if skip:
        sums = jax.tree.map(lambda a: jnp.where(finite, a, jnp.zeros_like(a)), sums)
    return state, sums | {"skipped": (~learns).astype(sums["loss"].dtype)}


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Return whether every number of a tree is finite."""
    leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, leaves, jnp.bool_(True))


def eval_step(
    state: TrainState,
    batch: Batch,
    axis: str | None,
    *,
    apply: Callable,
    prepare: Prepare,
    measure: Measure,
) -> Sums:
    """Return the sums over the counted examples, with the running statistics."""
    batch = prepare(None, batch)
    sums = measure(apply(variables(state), batch.input), batch)
    return sums if axis is None else lax.psum(sums, axis)


# (source, a step's input, axis) -> this device's batch, with its rows of the global batch. The
# input is what travels to the device for a step (feeds.py).
Fetch = Callable[[Any, Any, str | None], Batch]


def chunk(
    state: TrainState, source: Any, inputs: Any, *, step: Callable, fetch: Fetch, axis: str | None
) -> tuple[TrainState, dict[str, Float[Array, "k"]]]:
    """Take a training step for each of the inputs (k, ...), in one dispatch; sums have k rows."""
    return lax.scan(lambda s, i: step(s, fetch(source, i, axis), axis), state, inputs)


def evaluate(
    state: TrainState, source: Any, inputs: Any, *, step: Callable, fetch: Fetch, axis: str | None
) -> dict[str, Float[Array, "m"]]:
    """Take an evaluation step for each of the inputs (m, ...), in one dispatch."""
    one_step = lambda _, i: (None, step(state, fetch(source, i, axis), axis))
    return lax.scan(one_step, None, inputs)[1]


def precise(
    state: TrainState,
    source: Any,
    inputs: Any,
    *,
    apply: Callable,
    prepare: Prepare,
    fetch: Fetch,
    axis: str | None,
) -> TrainState:
    """Return the state with its statistics recomputed from the batches i of `inputs` (m, ...).

        mean = E[mean_i],   var = E[var_i] + E[(mean_i - mean)^2]

    `apply` is that of the network with momentum 0 and groups of the whole batch, so that its
    running statistics are the batch's own moments. Nothing is dropped, as in evaluation.
    Source: Wu & Johnson 2021, arXiv:2105.07576, sec. 3 (PreciseBN).
    """

    def moments_of(index, input):
        batch = prepare(jax.random.fold_in(state.key, index), fetch(source, input, axis))
        _, changed = apply(variables(state), batch.input, mutable=["batch_stats"])
        return index + 1, changed["batch_stats"]

    moments = lax.scan(moments_of, jnp.zeros((), jnp.int32), inputs)[1]
    pooled = _pooled(moments)
    if state.ema:  # the averages are what is evaluated
        return dataclasses.replace(state, ema=state.ema | {"batch_stats": pooled})
    return dataclasses.replace(state, batch_stats=pooled)


def _pooled(moments):
    """Return the moments of all batches together, for every norm of the tree."""
    if "var" not in moments:
        return {name: _pooled(inner) for name, inner in moments.items()}
    mean = moments["mean"].mean(0)
    between = jnp.square(moments["mean"] - mean[None]).mean(0)
    return {"mean": mean, "var": moments["var"].mean(0) + between}
