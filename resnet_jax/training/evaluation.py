"""A network's loss and error over a whole split, every example exactly once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from resnet_jax import distributed
from resnet_jax.data import normalise
from resnet_jax.training import metrics, shard
from resnet_jax.training import step as steps
from resnet_jax.training.compile import program
from resnet_jax.training.inputs import Feed
from resnet_jax.training.state import TrainState


def evaluator(
    net: Any,
    normalisation: normalise.Normalisation,
    state: TrainState,
    feed: Feed,
    mesh: Mesh,
    measure: Callable[..., metrics.Sums] = metrics.sums,
    deterministic: bool = False,
) -> Callable[[TrainState], list[dict[str, float]]]:
    """state -> a replica's means over the split of what `measure` sums, in a list of replicas.

    Compiled here, for states like `state`. The split's last batch is padded and masked.
    """
    axis = shard.axis(mesh)
    step = functools.partial(
        steps.eval_step,
        apply=net.apply,
        prepare=lambda _, batch: normalise.apply(normalisation, batch.image),
        measure=measure,
    )
    one = functools.partial(steps.evaluate, step=step, fetch=feed.fetch, axis=axis)
    whole = shard.spread(one, mesh, (shard.EACH, shard.WHOLE, shard.ROWS))
    run = program(whole, state, feed.source, feed.piece, deterministic=deterministic)

    def evaluate(state: TrainState) -> list[dict[str, float]]:
        found, running = [], None
        for inputs in feed.batches():
            # The last piece's sums are fetched while this one runs.
            found += [] if running is None else [distributed.fetch(running)]
            running = run(state, feed.source, inputs)
        found.append(distributed.fetch(running))
        sums = jax.tree.map(lambda *pieces: np.concatenate(pieces, axis=-1), *found)
        return metrics.means(sums, mesh.shape[shard.REPLICA])

    return evaluate
