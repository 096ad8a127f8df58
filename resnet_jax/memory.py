"""The memory that a training step needs with each policy of `remat`, and what fits into a memory.

The bytes are those of the step on one device, as the compiler lays it out. Nothing is run, and no
array is made. The data set and what prepares a batch need memory on top.
"""

import bisect
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp

from resnet_jax import config as configs
from resnet_jax import families
from resnet_jax.config import changed
from resnet_jax.keys import Config
from resnet_jax.models import measure
from resnet_jax.models.residual import Remat
from resnet_jax.tasks import TASKS
from resnet_jax.tasks.task import Batch
from resnet_jax.training import shard
from resnet_jax.training import state as states
from resnet_jax.training import step as steps
from resnet_jax.training.compile import ONCE, program
from resnet_jax.training.optimizer import optimizer

POLICIES: tuple[str, ...] = get_args(Remat)
UNITS = {f"{p}{b}B": n**i for i, p in enumerate("KMGT", 1) for b, n in (("", 1000), ("i", 1024))}
# `depths` tries every depth below this one. If a family still has depths there, they go on in equal
# steps.
TRIED = 1300
# After so many tries `largest` halves the interval that is left.
GUESSES = 6
# `largest` ends if the smallest value that does not fit is at most so many times the largest that
# does.
NEAR = 1.01


def policy_of(config: Config) -> str | None:
    """Return the policy of the config's network.

    It is None for a network without a loop (a Stack or a recurrent layer), which needs the same
    memory with every policy.
    """
    modules = (module for module, _ in measure.modules(families.build(config)))
    return next((module.remat for module in modules if hasattr(module, "remat")), None)


def step_inputs(config: Config) -> tuple[states.TrainState, Batch]:
    """Return the shapes and types of the state and the batch that a training step takes."""
    net, example = families.build(config), TASKS[config.task].example(config)
    make = functools.partial(
        states.create,
        *(config.seed, net, example.shape, optimizer(config), config.optimizer.ema_decay > 0),
    )
    array = lambda dtype, *shape: jax.ShapeDtypeStruct((config.batch_size, *shape), dtype)
    target = jax.tree.map(lambda leaf: array(leaf.dtype, *leaf.shape), example.target)
    batch = Batch(array(jnp.float32, *example.shape), target, array(jnp.int32), array(jnp.bool_))
    return jax.eval_shape(make), batch


def activation_bytes(config: Config) -> int:
    """Return the bytes that a training step keeps from its forward for its backward pass."""
    net, task_measure = families.build(config), TASKS[config.task].measure
    state, batch = step_inputs(config)

    def loss(params, batch_stats, batch):
        variables = {"params": params, "batch_stats": batch_stats}
        rngs = {"drop": jax.random.key(0)}
        output, _ = net.apply(variables, batch.input, mutable=["batch_stats"], rngs=rngs)
        return task_measure(output, batch)["loss"] / config.batch_size

    rows = config.batch_size // config.accumulate
    part = jax.tree.map(lambda a: jax.ShapeDtypeStruct((rows, *a.shape[1:]), a.dtype), batch)
    return measure.held_bytes(loss, state.params, state.batch_stats, part)


def peak_bytes(config: Config) -> int | None:
    """Return the bytes in use at the peak of a training step: its state, batch and temporaries.

    They are None if the compiler does not tell, or if it refuses because the device has less.
    """
    step = functools.partial(
        steps.train_step,
        axis=None,
        apply=families.build(config).apply,
        prepare=lambda key, batch: batch,
        measure=TASKS[config.task].measure,
        optimizer=optimizer(config),
        parts=config.accumulate,
        ema_decay=config.optimizer.ema_decay,
    )
    # Memory is laid out before machine code is made, which never runs and need not be fast.
    try:
        compiled: Any = program(step, *step_inputs(config), donate=(0,), level=ONCE)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None
    used = compiled.memory_analysis()
    if used is None:
        return None
    # The new state is written over the old one, which is donated.
    new = used.output_size_in_bytes - used.alias_size_in_bytes
    return used.argument_size_in_bytes + new + used.temp_size_in_bytes


def recommended(config: Config, peaks: dict[str, int | None], limit: int) -> str | None:
    """Return the fastest policy whose peak is at most `limit` bytes, or None if none is.

    `peaks` holds the peak of every policy. The fastest policy is what remat=auto stands for on this
    backend; then come none, block and sqrt, by the number of forward passes.
    """
    auto = policy_of(changed(config, remat="auto"))
    order = sorted(POLICIES, key=lambda name: (name != auto, POLICIES.index(name)))
    return next((name for name in order if (peaks[name] or math.inf) <= limit), None)


def largest_batch(config: Config, limit: int, peak: int | None) -> int | None:
    """Return the largest batch whose step takes at most `limit` bytes, or None if none does.

    It is a multiple of norm.group_size and of accumulate. `peak` are the bytes of the config's own
    batch.
    """
    task_unit = TASKS[config.task].unit(config)
    unit = math.lcm(max(1, shard.group_size(config)), task_unit) * config.accumulate
    used = lambda size: (
        peak if size == config.batch_size else peak_bytes(changed(config, batch_size=size))
    )
    try:
        configs.check(changed(config, batch_size=unit))
        first = unit
    except ValueError:  # a single example cannot be normalised
        first = 2 * unit
    return largest(range(first, 2**31, unit), config.batch_size, used, limit)


def largest_depth(config: Config, limit: int, peak: int | None) -> int | None:
    """Return the largest depth, all else equal, whose step takes at most `limit` bytes.

    `peak` are the bytes at the config's own depth. The result is None if no depth fits, and for a
    network without a Stack, whose program grows with its depth.
    """
    if policy_of(config) is None:
        return None
    own = config.model.depth
    used = lambda depth: peak if depth == own else peak_bytes(changed(config, model__depth=depth))
    return largest(depths(config), own, used, limit)


def depths(config: Config) -> list[int]:
    """Return every depth at which the config's network exists, all else equal."""
    other = changed(config)

    def exists(depth: int) -> bool:
        other.model.depth = depth
        try:
            families.build(other)
        except ValueError:
            return False
        return True

    existing = list(filter(exists, range(1, TRIED)))
    if len(existing) > 1:
        step = existing[-1] - existing[-2]
        if existing[-1] + step >= TRIED:
            existing += range(existing[-1] + step, families.deepest(config)[0] + 1, step)
    return existing


def largest(
    values: Sequence[int], first: int, used: Callable[[int], int | None], limit: int
) -> int | None:
    """Return the largest of the rising `values` that uses at most `limit` bytes, or None.

    `used(value)` are its bytes, or None if they are too many to be known. They grow almost linearly
    with the value, so that each try is at the point where a line meets the limit; but a compiler's
    layout may also shrink by a tenth, and therefore the interval is halved after GUESSES tries. The
    returned value was tried and fits, and the next value, or a value at most 1 % larger, was tried
    and does not fit.
    """
    fits, too_large = 0, values[-1] + 1
    tries: dict[int, float | int] = {}
    value = first
    while True:
        tries[value] = used(value) or math.inf
        if tries[value] <= limit:
            fits = max(fits, value)
        else:
            too_large = min(too_large, value)
        low, high = bisect.bisect_right(values, fits), bisect.bisect_left(values, too_large)
        if low == high or (too_large in tries and fits and too_large <= NEAR * fits):
            return fits or None
        beyond = max(low, bisect.bisect_right(values, NEAR * fits) - 1)
        guess = bisect.bisect_right(values, _aim(tries, fits, too_large, limit)) - 1
        value = values[min(max(guess, beyond), high - 1)]


def _aim(tries: dict[int, float | int], fits: int, too_large: int, limit: int) -> float | int:
    """Return the value to try next, between `fits` and `too_large`."""
    if too_large not in tries:
        # Draw the line through the two largest tries, or through zero and a single try. Between two
        # values that are near to each other it may fall.
        x0, x = sorted((0, *tries))[-2:]
        slope = (tries[x] - tries.get(x0, 0)) / (x - x0)
        return x + (limit - tries[x]) / slope if slope > 0 and len(tries) <= GUESSES else 2 * x
    # A compiler that refused left no number to draw a line to.
    if tries[too_large] == math.inf or len(tries) > GUESSES:
        return (fits + too_large) / 2
    below = tries.get(fits, 0)
    return fits + (too_large - fits) * (limit - below) / (tries[too_large] - below)


def parse(text: str) -> int:
    """Return the bytes of a size: '16GB' is 16,000,000,000 and '16GiB' is 17,179,869,184.

    Raises: ValueError for a text that is no number with a unit.
    """
    known = {unit.lower(): size for unit, size in UNITS.items()}
    match = re.fullmatch(r"(\d+\.?\d*)\s*([a-z]+)", text.strip().lower())
    if not match or match[2] not in known or not (size := int(float(match[1]) * known[match[2]])):
        raise ValueError(
            f"--memory={text} is no size; give a positive number and one of {', '.join(UNITS)}"
        )
    return size
