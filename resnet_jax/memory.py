"""The memory of a training step by what it keeps for its gradient, and what fits into how much.

Bytes are those of one device's step as its compiler lays it out; nothing runs and no array is made.
The data set and its augmentation come on top.
"""

import bisect
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp

from resnet_jax import families
from resnet_jax.config import Config
from resnet_jax.models import measure
from resnet_jax.models.residual import Remat, Stack
from resnet_jax.training import metrics
from resnet_jax.training import state as states
from resnet_jax.training import step as steps
from resnet_jax.training.compile import ONCE, program
from resnet_jax.training.optimizer import optimizer

POLICIES: tuple[str, ...] = get_args(Remat)
UNITS = {f"{p}{b}B": n**i for i, p in enumerate("KMGT", 1) for b, n in (("", 1000), ("i", 1024))}
# Depths are tried one by one up to here; a family that still has some goes on in equal steps.
TRIED = 1300
GUESSES = 6
# Of the smaller number, between what fits and what does not: the search ends.
NEAR = 1.01


def policy_of(config: Config) -> str | None:
    """The policy of the config's network; None where it has no Stack and every policy is alike."""
    stacks = (m for m, _ in measure.modules(families.build(config)) if isinstance(m, Stack))
    return next((stack.remat for stack in stacks), None)


def changed(config: Config, **values: Any) -> Config:
    """The config with these values; `model__depth` is model.depth."""
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict({k.replace("__", "."): v for k, v in values.items()})
    return other


def activation_bytes(config: Config) -> int:
    """Bytes that a training step keeps from its forward for its backward pass."""
    net = families.build(config)
    state, batch = _inputs(config)

    def loss(params, batch_stats, image, label):
        variables = {"params": params, "batch_stats": batch_stats}
        rngs = {"drop": jax.random.key(0)}
        logits, _ = net.apply(variables, image, mutable=["batch_stats"], rngs=rngs)
        return metrics.sums(logits, label, jnp.ones_like(label, bool))["loss"] / label.size

    return measure.held_bytes(loss, state.params, state.batch_stats, batch.image, batch.label)


def peak_bytes(config: Config) -> int | None:
    """Bytes in use at the peak of a training step: its state, batch and temporaries.

    None where the compiler does not tell, or refuses because the device has not as much.
    """
    step = functools.partial(
        steps.train_step,
        axis=None,
        apply=families.build(config).apply,
        prepare=lambda _, batch: batch.image,
        optimizer=optimizer(config),
    )
    # Memory is laid out before machine code is made, which never runs and need not be fast.
    try:
        compiled: Any = program(step, *_inputs(config), donate=(0,), level=ONCE)
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


def _inputs(config: Config) -> tuple[states.TrainState, steps.Batch]:
    """Shapes and types of a training step's state and batch."""
    net, optim, shape = families.build(config), optimizer(config), tuple(config.data.shape)
    state = jax.eval_shape(functools.partial(states.create, config.seed, net, shape, optim))
    array = lambda dtype, *shape: jax.ShapeDtypeStruct((config.batch_size, *shape), dtype)
    image, row = array(jnp.float32, *shape), array(jnp.int32)
    return state, steps.Batch(image=image, label=row, row=row, mask=array(jnp.bool_))


def recommended(config: Config, peaks: dict[str, int | None], limit: int) -> str | None:
    """The fastest policy whose peak is within `limit`; None where none is.

    Fastest is what remat=auto stands for on this backend, then the one of fewest forward passes:
    none, block, sqrt.
    """
    auto = policy_of(changed(config, remat="auto"))
    order = sorted(POLICIES, key=lambda name: (name != auto, POLICIES.index(name)))
    return next((name for name in order if (peaks[name] or math.inf) <= limit), None)


def largest_batch(config: Config, limit: int, peak: int | None) -> int | None:
    """The largest batch that fits, a multiple of norm.group_size; `peak` is the config's own."""
    unit = config.norm.group_size or 1
    used = lambda size: (
        peak if size == config.batch_size else peak_bytes(changed(config, batch_size=size))
    )
    return largest(range(unit, 2**31, unit), config.batch_size, used, limit)


def largest_depth(config: Config, limit: int, peak: int | None) -> int | None:
    """The largest depth of the family, all else equal, that fits; `peak` is the config's own.

    None also where the network has no Stack: there a deeper one is a longer program.
    """
    if policy_of(config) is None:
        return None
    own = config.model.depth
    used = lambda depth: peak if depth == own else peak_bytes(changed(config, model__depth=depth))
    return largest(depths(config), own, used, limit)


def depths(config: Config) -> list[int]:
    """Every depth at which the config's network exists, all else equal."""
    other = changed(config)

    def exists(depth: int) -> bool:
        other.model.depth = depth
        try:
            families.build(other)
        except ValueError:
            return False
        return True

    found = list(filter(exists, range(1, TRIED)))
    if len(found) > 1:
        step = found[-1] - found[-2]
        if found[-1] + step >= TRIED:
            found += range(found[-1] + step, families.deepest(config)[0] + 1, step)
    return found


def largest(
    values: Sequence[int], first: int, used: Callable[[int], int | None], limit: int
) -> int | None:
    """The largest of the rising `values` that uses at most `limit` bytes; None where none does.

    Bytes grow almost along a line, and each try is where that line meets the limit; what a compiler
    lays out may also step back by a tenth, so that after GUESSES tries the rest is halved. The
    answer was tried and fits, and the next value, or one at most 1 % larger, was tried and does
    not.
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
    """Where to try next, between what fits and what does not."""
    if too_large not in tries:
        # The line through the two largest, or from zero; a short one may fall.
        x0, x = sorted((0, *tries))[-2:]
        slope = (tries[x] - tries.get(x0, 0)) / (x - x0)
        return x + (limit - tries[x]) / slope if slope > 0 and len(tries) <= GUESSES else 2 * x
    # A compiler that gave up, having less memory, left no number to draw a line to.
    if tries[too_large] == math.inf or len(tries) > GUESSES:
        return (fits + too_large) / 2
    below = tries.get(fits, 0)
    return fits + (too_large - fits) * (limit - below) / (tries[too_large] - below)


def parse(text: str) -> int:
    """'16GB' -> 16_000_000_000 bytes, '16GiB' -> 17_179_869_184.

    Raises: ValueError for anything else.
    """
    known = {unit.lower(): size for unit, size in UNITS.items()}
    match = re.fullmatch(r"(\d+\.?\d*)\s*([a-z]+)", text.strip().lower())
    if not match or match[2] not in known or not (size := int(float(match[1]) * known[match[2]])):
        raise ValueError(f"--memory={text} is no size, a number and one of {', '.join(UNITS)}")
    return size
