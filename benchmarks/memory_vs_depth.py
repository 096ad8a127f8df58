"""Bytes of a training step, by depth and by the activations that it keeps; and its time.

    python -m benchmarks.memory_vs_depth [--depths=20,110,1202] [--rounds=7] [--json=FILE]

The networks are CIFAR ResNets (v1, option A), the batch is 16, and a step is compiled as the
training loop compiles it: float32, SGD with momentum and decay. `temp_mb` is what XLA allocates
beside arguments and results. It does not depend on the load. Beside the policies of this package
(`remat`) stands `plain`: `none` with a norm whose gradient is left to autodiff. The step times are
of the deepest network below 200 layers, measured in turn. A ratio is the median over the rounds of
a policy's time over that of `none`.
"""

import statistics
from collections.abc import Sequence
from typing import Any, get_args
from unittest import mock

import jax

from benchmarks import common
from resnet_jax.command import whole
from resnet_jax.families import build
from resnet_jax.keys import Config
from resnet_jax.models import batch_norm
from resnet_jax.models.residual import Remat
from resnet_jax.training.compile import program

BATCH = 16
POLICIES = get_args(Remat)


def compiled(config: Config) -> Any:
    """Return the compiled training step, (state, batch) -> (state, sums)."""
    net = build(config)
    train_step = common.train_step(config, net)
    state: Any = jax.eval_shape(lambda: common.create_state(config, net))
    step = lambda state, batch: train_step(state, batch, None)
    return program(step, state, common.make_batch(config), donate=(0,))


def measure(depths: Sequence[int], rounds: int) -> tuple[list[common.Row], common.Ratios]:
    """Measure the bytes of every depth and policy, then the step times of a single depth."""
    shallow = [depth for depth in depths if depth < 200]
    timed = max(shallow) if shallow else None
    rows: list[common.Row] = []
    steps = {}
    for depth in depths:
        for remat in ("plain", *POLICIES):
            config = common.cifar(depth, BATCH, "basic", "A")
            config.remat = "none" if remat == "plain" else remat
            plain = remat == "plain"
            normalise = batch_norm.reference_normalise if plain else batch_norm.normalise
            with mock.patch.object(batch_norm, "normalise", normalise):
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
    ratios: common.Ratios = {f"temp_mb_{deep}_{r}": temp[deep, r] for r in ("plain", *POLICIES)}
    if timed is not None and timed != deep:
        for remat in POLICIES:
            ratios[f"temp_{remat}_{deep}_over_{timed}"] = temp[deep, remat] / temp[timed, remat]
    for remat in POLICIES[1:] if seconds else ():
        name = f"step_{remat}_over_{POLICIES[0]}_{timed}"
        ratios[name] = common.ratio(seconds[remat], seconds[POLICIES[0]])
    return ratios


def main(words: list[str] | None = None) -> None:
    """Read the command line, measure and report."""
    parser = common.parser("memory_vs_depth", __doc__, "--depths=20,110")
    parser.add_argument(
        "--depths",
        type=common.integers,
        default="20,110,1202",
        help="layers, 6n+2 (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds", type=whole(0), default=7, help="measurements of a step (default: %(default)s)"
    )
    arguments = parser.read(words)
    common.run("memory_vs_depth", arguments, lambda: measure(arguments.depths, arguments.rounds))


if __name__ == "__main__":
    common.start(main)
