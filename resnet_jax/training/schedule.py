"""The learning rate as a function of the step. `SCHEDULES` is the table of these functions.

A warm-up may come before each of them. Boundaries are absolute steps, with or without a warm-up.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
import optax

from resnet_jax.keys import (
    FLOAT32,
    LARGEST_STEP,
    NOT_NEGATIVE,
    PROBABILITY,
    STEPS,
    Config,
    Key,
    Part,
    Rule,
    choice,
)

_BOUNDARIES = Rule(
    lambda value: all(type(step) is int and 0 < step <= LARGEST_STEP for step in value),
    f"must hold positive whole numbers, and each must be at most {LARGEST_STEP}: the schedule "
    "counts in float32",
)
_WARMUP = {
    "schedule.warmup_steps": Key(
        0,
        Rule(
            lambda value: 0 <= value <= LARGEST_STEP,
            f"must not be negative and must be at most {LARGEST_STEP}: the schedule counts in "
            "float32",
        ),
        "steps of the warm-up; 0 is none",
    ),
    "schedule.warmup": Key(
        "constant",
        choice("constant", "linear"),
        "the warm-up's form: constant at warmup_factor, or linear from warmup_factor to 1",
    ),
    "schedule.warmup_factor": Key(
        0.1,
        NOT_NEGATIVE,
        "share of the rate at which a warm-up starts; a constant warm-up stays there",
    ),
}


def schedule(config: Config) -> optax.Schedule:
    """Return the config's learning rate, a pure function of the step.

    During a warm-up of `warmup_steps` the rate is the peak times warmup_factor (constant; He et al.
    2016, sec. 5.1), or rises linearly from that product to the peak (Goyal et al. 2017,
    arXiv:1706.02677, sec. 2.2).
    """
    keys, peak = config.schedule, config.optimizer.learning_rate
    after = SCHEDULES[keys.kind].build(config)

    def rate(step):
        step = jnp.asarray(step, jnp.float32)
        value = after(step)
        if keys.warmup_steps:
            done = step / keys.warmup_steps if keys.warmup == "linear" else 0.0
            start = peak * (keys.warmup_factor + (1 - keys.warmup_factor) * done)
            value = jnp.where(step < keys.warmup_steps, start, value)
        return jnp.asarray(value)

    return rate


def piecewise(config: Config) -> Callable:
    """Return the rate peak * factor^(number of boundaries <= step)."""
    peak, factor = config.optimizer.learning_rate, config.schedule.factor
    boundaries = tuple(config.schedule.boundaries)
    return lambda step: peak * factor ** sum(jnp.where(step >= b, 1.0, 0.0) for b in boundaries)


def cosine(config: Config) -> Callable:
    """Return the rate peak / 2 * (1 + cos(pi (step - warmup_steps) / (end - warmup_steps)))."""
    peak, end = config.optimizer.learning_rate, config.schedule.end
    warmup = config.schedule.warmup_steps

    def rate(step):
        part = (step - warmup) / max(1, end - warmup)
        return 0.5 * peak * (1 + jnp.cos(jnp.pi * jnp.clip(part, 0, 1)))

    return rate


def exponential(config: Config) -> Callable:
    """Return the rate peak * factor^(step / every), which falls at every step."""
    peak, keys = config.optimizer.learning_rate, config.schedule
    return lambda step: peak * jnp.float32(keys.factor) ** (step / keys.every)


def constant(config: Config) -> Callable:
    """Return the peak at every step."""
    peak = config.optimizer.learning_rate
    return lambda step: jnp.full((), peak)


def _check_warmup(config: Config, rises: float = 0.0) -> None:
    """Refuse a warm-up as long as the run, and rates that float32 cannot hold.

    `rises` is the logarithm of the largest factor by which the schedule itself raises the rate.
    """
    keys = config.schedule
    if keys.warmup_steps >= config.steps:
        raise ValueError(
            f"schedule.warmup_steps={keys.warmup_steps} is not shorter than the run of "
            f"steps={config.steps}; at most {config.steps - 1}"
        )
    for name in ("warmup", "warmup_factor"):
        if not keys.warmup_steps and keys[name] != _WARMUP[f"schedule.{name}"].default:
            raise ValueError(
                f"schedule.{name}={keys[name]} changes nothing, because schedule.warmup_steps=0; "
                "leave it out or set schedule.warmup_steps"
            )
    if keys.warmup_steps:
        rises = max(rises, math.log(max(keys.warmup_factor, 1)))
    # By logarithms, because the largest rates are more than a float holds.
    if math.log(config.optimizer.learning_rate) + rises > math.log(FLOAT32[1]):
        raise ValueError(
            f"optimizer.learning_rate={config.optimizer.learning_rate} grows beyond float32's "
            f"{FLOAT32[1]:.3g} by schedule.factor or "
            f"schedule.warmup_factor={keys.warmup_factor}; leave them at most 1"
        )


def _check_piecewise(config: Config) -> None:
    keys = config.schedule
    if list(keys.boundaries) != sorted(set(keys.boundaries)):
        raise ValueError(f"schedule.boundaries={keys.boundaries} must rise")
    default = SCHEDULES["piecewise"].keys["schedule.factor"].default
    if not keys.boundaries and keys.factor != default:
        raise ValueError(
            f"schedule.factor={keys.factor} changes nothing, because schedule.boundaries is empty; "
            "leave it out or set schedule.boundaries"
        )
    _check_warmup(config, math.log(max(keys.factor, 1)) * len(keys.boundaries))


SCHEDULES: dict[str, Part] = {
    "piecewise": Part(
        "the rate falls by a factor at each boundary",
        build=piecewise,
        keys=_WARMUP
        | {
            "schedule.boundaries": Key((32_000, 48_000), _BOUNDARIES, "steps at which it falls"),
            "schedule.factor": Key(0.1, NOT_NEGATIVE, "of the rate, at each boundary"),
        },
        check=_check_piecewise,
    ),
    "cosine": Part(
        "the rate falls to 0 along a cosine",
        build=cosine,
        keys=_WARMUP | {"schedule.end": Key(64_000, STEPS, "step at which the rate is 0")},
        check=_check_warmup,
    ),
    "exponential": Part(
        "the rate falls by a factor every so many steps, smoothly",
        build=exponential,
        keys=_WARMUP
        | {
            "schedule.factor": Key(0.95, PROBABILITY, "of the rate, after `every` steps"),
            "schedule.every": Key(1_000, STEPS, "steps in which the rate falls by the factor"),
        },
        check=_check_warmup,
    ),
    "constant": Part("the rate stays", build=constant, keys=_WARMUP, check=_check_warmup),
}
