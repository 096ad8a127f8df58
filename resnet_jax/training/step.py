"""One training step and one evaluation step, pure and per device; and many of them in one call."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax
from jaxtyping import Array, Bool, Float

from resnet_jax.training import metrics
from resnet_jax.training.state import TrainState


@struct.dataclass
class Batch:
    """This device's share of a batch; `row` is each example's place in the global batch."""

    # Any: a tree's leaves are also shapes and shardings, and stacked, where jax maps over it.
    image: Any  # (b, h, w, c)
    label: Any  # (b,) int32
    row: Any  # (b,) int32
    mask: Any  # (b,) bool


# image -> input of the network; the key is the step's, and None in evaluation.
Prepare = Callable[[Any, Batch], Float[Array, "b h w c"]]


def gradients(
    state: TrainState,
    batch: Batch,
    *,
    apply: Callable,
    prepare: Prepare,
    mutable: Sequence[str] = ("batch_stats",),
) -> tuple[Any, dict[str, Any], metrics.Sums]:
    """This device's gradients of the mean cross-entropy, what the network changed, and metrics."""
    key = jax.random.fold_in(state.key, state.step)
    image = prepare(jax.random.fold_in(key, 0), batch)
    drop = jax.random.fold_in(key, 1)

    def objective(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        variables |= {"batch": {"row": batch.row}}
        logits, changed = apply(variables, image, mutable=list(mutable), rngs={"drop": drop})
        sums = metrics.sums(logits, batch.label, batch.mask)
        return sums["loss"] / batch.label.size, (changed, sums)

    grads, (changed, sums) = jax.grad(objective, has_aux=True)(state.params)
    return grads, changed, sums


def train_step(
    state: TrainState,
    batch: Batch,
    axis: str | None,
    *,
    apply: Callable,
    prepare: Prepare,
    optimizer: optax.GradientTransformation,
    skip: bool = False,
) -> tuple[TrainState, metrics.Sums]:
    """One step of gradient descent on the mean cross-entropy of the batch.

    Pure and per device: gradients, statistics and metrics are averaged (summed) over `axis` once,
    at the end, in one message; None is one device. Each device's share of the batch is equal, and
    whole: the mask is for evaluation.

    Where the loss, a gradient or a statistic is not finite nothing is learned, and the metrics
    count the step as `skipped`. With `skip` that is all: its examples count in no metric, and the
    optimizer, with its schedule, does not move. Without, the state is that from before this step
    and stays so in all steps that follow, for the caller to see what happened.
    """
    grads, changed, sums = gradients(state, batch, apply=apply, prepare=prepare)
    batch_stats = changed.get("batch_stats", {})
    if axis is not None:
        shared, sums = lax.psum(((grads, batch_stats), sums), axis)
        grads, batch_stats = jax.tree.map(lambda a: a / lax.axis_size(axis), shared)
    finite = jnp.isfinite(sums["loss"]) & all_finite((grads, batch_stats))
    learns = finite & (state.skipped >= 0)

    def learn() -> tuple[Any, Any, Any]:
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return optax.apply_updates(state.params, updates), batch_stats, opt_state

    # A branch updates in place; a choice between the old and the new holds both.
    keep = lambda: (state.params, state.batch_stats, state.opt_state)
    params, batch_stats, opt_state = lax.cond(learns, learn, keep)
    skipped = state.skipped + (~finite).astype(jnp.int32)
    state = dataclasses.replace(
        state,
        step=state.step + (1 if skip else learns.astype(jnp.int32)),
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        skipped=skipped if skip else jnp.where(learns, state.skipped, -1),
    )
    if skip:
        sums = jax.tree.map(lambda a: jnp.where(finite, a, jnp.zeros_like(a)), sums)
    return state, sums | {"skipped": (~learns).astype(sums["loss"].dtype)}


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Whether every number of a tree is finite."""
    leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_and, leaves, jnp.bool_(True))


def eval_step(
    state: TrainState,
    batch: Batch,
    axis: str | None,
    *,
    apply: Callable,
    prepare: Prepare,
    measure: Callable[..., metrics.Sums] = metrics.sums,
) -> metrics.Sums:
    """What `measure` sums over the masked examples, by the running statistics."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    sums = measure(apply(variables, prepare(None, batch)), batch.label, batch.mask)
    return sums if axis is None else lax.psum(sums, axis)


@struct.dataclass
class Resident:
    """A split that lives on the device."""

    image: Any  # (n, h, w, c) uint8
    label: Any  # (n,) int32


# (source, one step's input, axis) -> the batch: of this device, with its rows of the global batch.
Fetch = Callable[[Any, Any, str | None], Batch]


def gather(source: Resident, input: tuple[Any, Any], axis: str | None) -> Batch:
    """The examples of a split on the device; the input holds their indices (b,) and mask (b,)."""
    index, mask = input
    return Batch(source.image[index], source.label[index], _rows(index.size, axis), mask)


def streamed(source: None, input: tuple[Any, Any, Any], axis: str | None) -> Batch:
    """A batch that came from the host: image, label and mask."""
    image, label, mask = input
    return Batch(image, label, _rows(label.size, axis), mask)


def _rows(share: int, axis: str | None):
    first = 0 if axis is None else lax.axis_index(axis) * share
    return first + jnp.arange(share, dtype=jnp.int32)


def chunk(
    state: TrainState, source: Any, inputs: Any, *, step: Callable, fetch: Fetch, axis: str | None
) -> tuple[TrainState, dict[str, Float[Array, "k"]]]:
    """A training step for each of the inputs (k, ...), in one dispatch; metrics a row a step."""
    return lax.scan(lambda s, i: step(s, fetch(source, i, axis), axis), state, inputs)


def evaluate(
    state: TrainState, source: Any, inputs: Any, *, step: Callable, fetch: Fetch, axis: str | None
) -> dict[str, Float[Array, "m"]]:
    """An evaluation step for each of the inputs (m, ...), in one dispatch; metrics a row a step."""
    one = lambda _, i: (None, step(state, fetch(source, i, axis), axis))
    return lax.scan(one, None, inputs)[1]


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
    """The state with its statistics recomputed from the batches i of `inputs` (m, ...).

        mean = E[mean_i],   var = E[var_i] + E[(mean_i - mean)^2]

    `apply` is that of the network with momentum 0 and groups of the whole batch: what it leaves
    behind are the batch's own moments. Nothing is dropped, as in evaluation.
    Source: Wu & Johnson 2021, arXiv:2105.07576, sec. 3 (PreciseBN).
    """
    variables = {"params": state.params, "batch_stats": state.batch_stats}

    def one(index, input):
        batch = fetch(source, input, axis)
        key = jax.random.fold_in(state.key, index)
        _, changed = apply(variables, prepare(key, batch), mutable=["batch_stats"])
        return index + 1, changed["batch_stats"]

    moments = lax.scan(one, jnp.zeros((), jnp.int32), inputs)[1]
    return dataclasses.replace(state, batch_stats=_pooled(moments))


def _pooled(moments):
    """The moments of all batches together, in every norm of the tree."""
    if "var" not in moments:
        return {name: _pooled(inner) for name, inner in moments.items()}
    mean = moments["mean"].mean(0)
    between = jnp.square(moments["mean"] - mean[None]).mean(0)
    return {"mean": mean, "var": moments["var"].mean(0) + between}
