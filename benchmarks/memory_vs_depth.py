"""Bytes of a training step by depth and by what it keeps for its gradient, and what that costs.

    python -m benchmarks.memory_vs_depth [--depths=20,110,1202] [--rounds=7] [--json=FILE]

CIFAR ResNets (v1, option A), batch 16, float32, SGD with momentum and decay, as the training loop
compiles a step. `temp_mb` is what XLA allocates beside arguments and results: exact, at any load.
Beside our policies (`remat`) stands `plain`: `none` with a norm that is written out and left to
autodiff. Step times are of ResNet-110 (or the last depth below 200), in turn; a ratio is the median
over the rounds of a policy's time over `none`'s.
"""

import statistics
from collections.abc import Sequence
from typing import Any, get_args
from unittest import mock

import jax
import jax.numpy as jnp
from absl import flags

from benchmarks import common
from resnet_jax.config import Config
from resnet_jax.families import build
from resnet_jax.models import norm
from resnet_jax.models.residual import Remat
from resnet_jax.training.compile import program

BATCH = 16
POLICIES = get_args(Remat)


def plain_normalise(x, scale, bias, epsilon, relu, span=None):
    """What `norm.normalise` computes, without a gradient of its own."""
    axes = tuple(range(1, x.ndim - 1))
    mean = x.mean(axes)
    variance = jnp.square(x - jnp.expand_dims(mean, axes)).mean(axes)
    y = (x - jnp.expand_dims(mean, axes)) * jax.lax.rsqrt(jnp.expand_dims(variance, axes) + epsilon)
    across = lambda a: a.reshape((1,) * (x.ndim - 1) + (-1,))
    y = y * across(scale) + across(bias)
    return (jax.nn.relu(y) if relu else y), mean, variance


def compiled(config: Config) -> Any:
    """The compiled training step, (state, batch) -> (state, sums)."""
    net = build(config)
    step = common.train_step(config, net)
    state: Any = jax.eval_shape(lambda: common.create_state(config, net))
    one = lambda state, batch: step(state, batch, None)
    return program(one, state, common.make_batch(config), donate=(0,))


def measure(depths: Sequence[int], rounds: int) -> tuple[list[common.Row], common.Ratios]:
    """Bytes of every depth and policy, then step times of one depth."""
    shallow = [depth for depth in depths if depth < 200]
    timed = max(shallow) if shallow else None
    rows: list[common.Row] = []
    steps = {}
    for depth in depths:
        for remat in ("plain", *POLICIES):
            config = common.cifar(depth, BATCH, "basic", "A")
            config.remat = "none" if remat == "plain" else remat
            with (
                mock.patch.object(norm, "normalise", plain_normalise)
                if remat == "plain"
                else (mock.patch.object(norm, "normalise", norm.normalise))
            ):
                step = compiled(config)
            temp = step.memory_analysis().temp_size_in_bytes
            rows.append({"depth": depth, "remat": remat, "temp_mb": temp / 1e6})
            if depth == timed and remat in POLICIES:
                steps[remat] = _running(step, config)
            print(f"{depth} {remat}: {temp / 1e6:.0f} MB", flush=True)
    seconds = common.alternate(steps, rounds) if rounds else {}
    for row in rows:
        if row["depth"] == timed and row["remat"] in seconds:
            row["step_ms"] = 1e3 * statistics.median(seconds[row["remat"]])
    return rows, _ratios(rows, seconds, depths, timed)


def _running(step: Any, config: Config):
    state, batch = common.create_state(config, build(config)), common.make_batch(config)

    def run() -> None:
        nonlocal state
        state, sums = step(state, batch)
        jax.block_until_ready(sums)

    run()
    return run


def _ratios(rows, seconds, depths: Sequence[int], timed: int | None) -> common.Ratios:
    temp = {(row["depth"], row["remat"]): row["temp_mb"] for row in rows}
    deep = max(depths)
    found: common.Ratios = {f"temp_mb_{deep}_{r}": temp[deep, r] for r in ("plain", *POLICIES)}
    if timed is not None and timed != deep:
        found |= {f"temp_{r}_{deep}_over_{timed}": temp[deep, r] / temp[timed, r] for r in POLICIES}
    for remat in POLICIES[1:] if seconds else ():
        name = f"step_{remat}_over_{POLICIES[0]}_{timed}"
        found[name] = common.ratio(seconds[remat], seconds[POLICIES[0]])
    return found


if __name__ == "__main__":
    _DEPTHS = flags.DEFINE_list("depths", "20,110,1202", "layers, 6n+2")
    _ROUNDS = flags.DEFINE_integer("rounds", 7, "times that each step is measured", lower_bound=0)
    common.run("memory_vs_depth", lambda: measure(common.integers(_DEPTHS), _ROUNDS.value))
