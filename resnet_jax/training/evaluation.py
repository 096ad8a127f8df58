"""A network's loss and error over a whole split, every example exactly once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from resnet_jax.data import normalise, order, sources
from resnet_jax.training import metrics
from resnet_jax.training import step as steps
from resnet_jax.training.compile import program
from resnet_jax.training.state import TrainState


def evaluator(
    net: Any,
    normalisation: normalise.Normalisation,
    state: TrainState,
    split: sources.Split,
    batch_size: int,
    measure: Callable[..., metrics.Sums] = metrics.sums,
) -> Callable[[TrainState], dict[str, float]]:
    """state -> means over `split` of what `measure` sums; compiled here, for states like `state`.

    The split is put on the device; its last batch is padded and masked.
    """
    batches = order.eval_indices(len(split), batch_size)
    source = jax.device_put(steps.Resident(jnp.asarray(split.images), jnp.asarray(split.labels)))
    step = functools.partial(
        steps.eval_step,
        apply=net.apply,
        prepare=lambda _, batch: normalise.apply(normalisation, batch.image),
        measure=measure,
    )
    run = program(functools.partial(steps.evaluate, step=step), state, source, *batches)
    return lambda state: metrics.mean(run(state, source, *batches))
