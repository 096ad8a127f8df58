"""Seconds to trace, lower and compile a training step, by depth.

    python -m benchmarks.compile_vs_depth [--depths=20,56,...] [--family=vgg ...] [--json=FILE]

The networks are CIFAR ResNets of basic blocks with option A, or of pre-activation bottlenecks if a
depth is 9n+2 but not 6n+2. The batch is 8, and nothing is cached. Ours is compiled as training
does it. The peer, the same network written block by block in plain flax.linen, is compiled by
`jax.jit`. trace_s and lower_s are measured on their own, total_s is the whole, and compile_s is
the rest of it. --family also compares a deep network of another family with a shallow one
(FAMILIES).
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from benchmarks import common, peers
from resnet_jax.command import whole
from resnet_jax.families import build
from resnet_jax.keys import Config
from resnet_jax.models.stages import default_block, resnet_stages
from resnet_jax.training.compile import program

BATCH = 8
# The config's argument without the depth, a shallow depth and a deep depth.
FAMILIES = {
    "single": ("block=single,skip=A", 20, 1202),
    "fixup": ("block=fixup_basic,skip=A", 20, 1202),
    "wide": ("family=wide", 16, 604),
    "resnext": ("family=resnext", 20, 605),
    "highway": ("family=highway", 19, 900),
    "dense_highway": ("family=highway,block=dense", 10, 900),
    "vgg": ("family=vgg", 16, 319),
    "vit": ("family=vit", 12, 1000),
}
# Seconds: an unrolled network that took longer is the last that is tried.
TIME_BOX = 120.0


def once(config: Config, net: Any, compile: Callable) -> common.Row:
    """Return the seconds of each phase and of the whole, and the lines of the lowered module.

    JAX's caches are emptied before.
    """
    state = jax.eval_shape(lambda: common.create_state(config, net))
    batch, train_step = common.make_batch(config), common.train_step(config, net)
    step = lambda state, batch: train_step(state, batch, None)
    _forget()
    clock = [time.perf_counter()]
    traced = jax.jit(step).trace(state, batch)
    clock.append(time.perf_counter())
    lowered = traced.lower()
    clock.append(time.perf_counter())
    lines = lowered.as_text().count("\n")
    del traced, lowered
    _forget()
    began = time.perf_counter()
    compile(step, state, batch)
    total = time.perf_counter() - began
    trace, lower = (b - a for a, b in zip(clock, clock[1:], strict=False))
    return {
        "trace_s": trace,
        "lower_s": lower,
        "compile_s": total - trace - lower,
        "total_s": total,
        "lines": lines,
    }


def _forget() -> None:
    jax.clear_caches()
    gc.collect()


def measure(
    depths: Sequence[int], peer_depths: Sequence[int], families: Sequence[str], rounds: int
) -> tuple[list[common.Row], common.Ratios]:
    """Measure every depth once a round, then each peer once, then the other families.

    The shallowest peer comes first.
    """
    configs = {depth: _config(depth) for depth in depths}
    peer_configs = {depth: _config(depth) for depth in sorted(peer_depths)}
    # The first compilation of a process takes longer, and is not measured.
    shallowest = configs[min(depths)]
    once(shallowest, build(shallowest), program)
    samples: dict[int, list[common.Row]] = {depth: [] for depth in depths}
    for _ in range(rounds):
        for depth, config in configs.items():
            samples[depth].append(once(config, build(config), program))
    rows = [_row("ours", configs[depth], samples[depth]) for depth in depths]
    rows += _peers(peer_configs)
    totals = {depth: [s["total_s"] for s in samples[depth]] for depth in depths}
    both = {20, 1202} <= totals.keys()
    ratios = {"compile_1202_over_20": common.ratio(totals[1202], totals[20]) if both else None}
    for family in families:
        argument, *ends = FAMILIES[family]
        pair = {d: common.recipe(f"{argument},depth={d}", BATCH) for d in ends}
        taken: dict[int, list[common.Row]] = {depth: [] for depth in ends}
        for _ in range(rounds):
            for depth, config in pair.items():
                taken[depth].append(once(config, build(config), program))
        rows += [_row(family, pair[depth], taken[depth]) for depth in ends]
        shallow, deep = ([s["total_s"] for s in taken[depth]] for depth in ends)
        ratios[f"compile_{family}_{ends[1]}_over_{ends[0]}"] = common.ratio(deep, shallow)
    return rows, ratios


def _config(depth: int) -> Config:
    block = default_block(depth, image=32)
    return common.cifar(depth, BATCH, f"preact_{block}" if block == "bottleneck" else block)


def _peers(configs: dict[int, Config]) -> Iterable[common.Row]:
    spent = 0.0
    for depth, config in configs.items():
        if config.model.block != "basic" or spent > TIME_BOX:
            yield _row("unrolled, not tried", config, [])
            continue
        stages = resnet_stages(depth, config.model.block, image=32)
        sample = once(config, peers.Plain(stages, pre=False), common.plain_program)
        spent = sample["total_s"]
        yield _row("unrolled", config, [sample])


def _row(net: str, config: Config, samples: Sequence[common.Row]) -> common.Row:
    keys = ("trace_s", "lower_s", "compile_s", "total_s", "lines")
    return {
        "net": net,
        "depth": config.model.depth,
        "block": config.model.get("block", ""),
        "samples": len(samples),
        **{key: statistics.median(s[key] for s in samples) if samples else None for key in keys},
    }


def main(words: list[str] | None = None) -> None:
    """Read the command line, measure and report."""
    parser = common.parser("compile_vs_depth", __doc__, "--depths=20,56 --family=vgg")
    flag = parser.add_argument
    flag(
        "--depths",
        type=common.integers,
        default="20,56,110,218,434,1001,1202",
        help="layers of our networks (default: %(default)s)",
    )
    flag(
        "--peer_depths",
        type=common.integers,
        default="20,56,110",
        help="layers of the unrolled networks (default: %(default)s)",
    )
    flag("--family", action="append", default=[], choices=FAMILIES, help="also measure a family")
    flag("--rounds", type=whole(1), default=5, help="measurements of each (default: %(default)s)")
    arguments = parser.read(words)
    common.run(
        "compile_vs_depth",
        arguments,
        lambda: measure(
            arguments.depths, arguments.peer_depths, arguments.family, arguments.rounds
        ),
    )


if __name__ == "__main__":
    common.start(main)
