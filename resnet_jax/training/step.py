"""One training step and one evaluation step, pure and per device; and many of them in one call."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax
from jaxtyping import Array, Bool, Float, Int

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


def train_step(
    state: TrainState,
    batch: Batch,
    axis: str | None,
    *,
    apply: Callable,
    prepare: Prepare,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, metrics.Sums]:
    """One step of gradient descent on the mean cross-entropy of the batch.

    Pure and per device: gradients, statistics and metrics are averaged (summed) over `axis` once,
    at the end; None is one device. Each device's share of the batch is equal, and whole: the mask
    is for evaluation.
    """
    key = jax.random.fold_in(state.key, state.step)
    image = prepare(jax.random.fold_in(key, 0), batch)
    drop = jax.random.fold_in(key, 1)

    def objective(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        variables |= {"batch": {"row": batch.row}}
        logits, changed = apply(variables, image, mutable=["batch_stats"], rngs={"drop": drop})
        sums = metrics.sums(logits, batch.label, batch.mask)
        return sums["loss"] / batch.label.size, (sums, changed.get("batch_stats", {}))

    grads, (sums, batch_stats) = jax.grad(objective, has_aux=True)(state.params)
    if axis is not None:
        grads, batch_stats = lax.pmean((grads, batch_stats), axis)
        sums = lax.psum(sums, axis)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    state = dataclasses.replace(
        state,
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return state, sums


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


def gather(source: Resident, index: Int[Array, "b"], mask: Bool[Array, "b"]) -> Batch:
    """The batch of these examples."""
    row = jnp.arange(index.size, dtype=jnp.int32)
    return Batch(source.image[index], source.label[index], row, mask)


def chunk(
    state: TrainState, source: Resident, indices: Int[Array, "k b"], *, step: Callable
) -> tuple[TrainState, dict[str, Float[Array, "k"]]]:
    """`k` training steps in one dispatch; metrics come back a row a step."""
    whole = jnp.ones(indices.shape[1:], bool)
    return lax.scan(lambda s, i: step(s, gather(source, i, whole), None), state, indices)


def evaluate(
    state: TrainState,
    source: Resident,
    indices: Int[Array, "m b"],
    masks: Bool[Array, "m b"],
    *,
    step: Callable,
) -> dict[str, Float[Array, "m"]]:
    """A whole split in one dispatch, every example once; metrics come back a row a batch."""
    one = lambda _, batch: (None, step(state, gather(source, *batch), None))
    return lax.scan(one, None, (indices, masks))[1]
