"""A network's loss and scores over a whole split, with every example counted exactly once."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from resnet_jax import distributed
from resnet_jax.tasks.task import Prepare
from resnet_jax.training import metrics, shard
from resnet_jax.training import step as steps
from resnet_jax.training.compile import program
from resnet_jax.training.feeds import Feed
from resnet_jax.training.state import TrainState


def evaluator(
    apply: Callable,
    prepare: Prepare,
    measure: steps.Measure,
    state: TrainState,
    feed: Feed,
    mesh: Mesh,
    deterministic: bool = False,
) -> Callable[[TrainState], list[dict[str, float]]]:
    """Return the function from a state to the means over the split, a dictionary for each replica.

    The program is compiled here, for states like `state`. The last batch of the split is padded
    and masked.
    """
    axis = shard.axis(mesh)
    step = functools.partial(steps.eval_step, apply=apply, prepare=prepare, measure=measure)
    on_device = functools.partial(steps.evaluate, step=step, fetch=feed.fetch, axis=axis)
    whole = shard.spread(on_device, mesh, (shard.EACH, feed.spec, shard.ROWS))
    run = program(whole, state, feed.source, feed.piece, deterministic=deterministic)

    def evaluate(state: TrainState) -> list[dict[str, float]]:
        pieces, running = [], None
        for inputs in feed.batches():
            # The last piece's sums are fetched while this piece runs.
            pieces += [] if running is None else [distributed.fetch(running)]
            running = run(state, feed.source, inputs)
        pieces.append(distributed.fetch(running))
        sums = jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=-1), *pieces)
        return metrics.means(sums, mesh.shape[shard.REPLICA])

    return evaluate
