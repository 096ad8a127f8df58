"""The programs of a run beside its training step: the first state, statistics, a diagnosis."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from resnet_jax import distributed, families
from resnet_jax.keys import Config
from resnet_jax.run import best, checkpoint
from resnet_jax.run.log import Log
from resnet_jax.run.start import Run
from resnet_jax.tasks.task import Prepare
from resnet_jax.training import diagnosis, feeds, shard
from resnet_jax.training import state as states
from resnet_jax.training import step as steps
from resnet_jax.training.compile import ONCE, program
from resnet_jax.training.evaluation import evaluator
from resnet_jax.training.optimizer import optimizer


def first_state(run: Run, net: Any, saved: int | None) -> states.TrainState:
    """Return the state to go on from, on the mesh: that of step `saved`, or one from the seeds."""
    config, optim = run.config, optimizer(run.config)
    shape = run.task.example(config).shape
    ema = config.optimizer.ema_decay > 0
    make = shard.spread(
        lambda seed: states.create(seed, net, shape, optim, ema), run.mesh, (shard.EACH,)
    )
    seeds = np.array(run.seeds if len(run.seeds) > 1 else config.seed, np.uint32)
    seeds = shard.place(run.mesh, shard.EACH, seeds)
    if saved is None:
        return program(make, seeds, level=ONCE, deterministic=config.deterministic)(seeds)
    like = shard.like(run.mesh, shard.EACH, jax.eval_shape(make, seeds))
    return checkpoint.restore(run.workdir, saved, like)


def chunk_lengths(config: Config, first: int) -> list[int]:
    """Return the lengths of the chunks that are left; their ends are multiples of chunk_steps."""
    size = config.chunk_steps
    marks = [first, *range(first - first % size + size, config.steps, size), config.steps]
    return [b - a for a, b in zip(marks, marks[1:], strict=False)]


def statistics_refresher(run: Run, state: states.TrainState, feed: feeds.Feed) -> Callable:
    """Return the function that recomputes the running statistics of batch norm in a state.

    The statistics are those of the run's first norm.precise batches. If norm.precise is 0, the
    function returns the state as it is.
    """
    config, axis = run.config.copy_and_resolve_references(), shard.axis(run.mesh)
    batches = config.norm.precise if config.norm.kind == "batch" else 0
    if not batches:
        return lambda state: state
    config.norm.group_size, config.norm.momentum = 0, 0.0
    on_device = functools.partial(
        steps.precise,
        apply=families.build(config, axis).apply,
        prepare=run.task.prepare(config, run.statistics),
        fetch=feed.fetch,
        axis=axis,
    )
    whole = shard.spread(on_device, run.mesh, (shard.EACH, feed.spec, shard.EACH_ROWS))
    inputs, deterministic = feed.drawn(batches), config.deterministic
    recompute = program(whole, state, feed.source, inputs, donate=(0,), deterministic=deterministic)
    return lambda state: recompute(state, feed.source, feed.draw(0, batches))


def validator(
    run: Run, apply: Callable, prepare: Prepare, state: states.TrainState, first: int, log: Log
) -> contextlib.AbstractContextManager[Callable[[int, states.TrainState], bool]]:
    """Return a context that gives the function to validate the state of a step.

    The function measures the validation split, records its means, keeps the best step's checkpoint,
    and returns whether this step is the best. Without such a split it does nothing.
    """

    @contextlib.contextmanager
    def validating() -> Iterator[Callable[[int, states.TrainState], bool]]:
        if run.dataset.validation is None:
            yield lambda step, state: False
            return
        config, score = run.config, run.task.score
        feed = feeds.feed(run.mesh, run.dataset, best.SPLIT, config)
        with feed, best.Best(run.workdir, score, first) as kept:
            measure = evaluator(
                *(apply, prepare, run.task.measure, state, feed, run.mesh, config.deterministic)
            )

            def validate(step: int, state: states.TrainState) -> bool:
                means = measure(state)
                log.write(step, best.SPLIT, means)
                return kept.note(step, means[0], state)

            yield validate

    return validating()


def finite(state: states.TrainState):
    """Return whether every parameter and statistic is a number."""
    return steps.all_finite((state.params, state.batch_stats))


def diagnose(
    run: Run, net: Any, feed: feeds.Feed, state: states.TrainState, step: int, replica: int
) -> str:
    """Say what was not finite first in this step; `state` is the state before the step."""
    order, axis = diagnosis.Order(), shard.axis(run.mesh)
    look = functools.partial(
        diagnosis.look,
        apply=net.apply,
        prepare=run.task.prepare(run.config, run.statistics),
        measure=run.task.measure,
        fetch=feed.fetch,
        axis=axis,
        order=order,
        parts=run.config.accumulate,
    )
    inputs = feed.draw(step - 1, 1)
    whole = shard.spread(look, run.mesh, (shard.EACH, feed.spec, shard.EACH_ROWS))
    looked = program(whole, state, feed.source, inputs)(state, feed.source, inputs)
    flags = distributed.fetch(looked)
    if len(run.seeds) > 1:
        flags = jax.tree.map(lambda flag: flag[replica], flags)
    return diagnosis.first(flags, order) or "looked at again, everything in the step is finite"
