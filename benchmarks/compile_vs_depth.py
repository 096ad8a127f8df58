"""Seconds to trace, lower and compile one training step, against depth.

    python -m benchmarks.compile_vs_depth [--depths=20,56,...] [--json=FILE]

CIFAR ResNets of basic blocks with option A, and where a depth is 9n+2 alone pre-activation
bottlenecks; batch 8. The peer is the same net written out block by block in plain flax.linen.
"""

import gc
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from absl import flags

from benchmarks import common, peers
from resnet_jax.config import Config, build
from resnet_jax.models.resnet import default_block, resnet_stages

BATCH = 8
# An unrolled net that took longer than this, in seconds, is the last one tried.
TIME_BOX = 120.0
PHASES = ("trace", "lower", "compile")


def once(config: Config, net: Any) -> tuple[dict[str, float], int]:
    """Seconds of each phase from cold caches, and the lowered module's lines."""
    jax.clear_caches()
    gc.collect()
    state = jax.eval_shape(lambda: common.create_state(config, net))
    batch = common.make_batch(config)
    step = common.train_step(config, net)
    clock = [time.perf_counter()]
    traced = jax.jit(lambda state, batch: step(state, batch, None)).trace(state, batch)
    clock.append(time.perf_counter())
    lowered = traced.lower()
    clock.append(time.perf_counter())
    lowered.compile()
    clock.append(time.perf_counter())
    seconds = {name: b - a for name, a, b in zip(PHASES, clock, clock[1:], strict=False)}
    return seconds, lowered.as_text().count("\n")


def measure(
    depths: Sequence[int], peer_depths: Sequence[int], rounds: int
) -> tuple[list[common.Row], common.Ratios]:
    """Every depth once a round, then the peers once each, the shallowest first."""
    configs = {depth: _config(depth) for depth in depths}
    peer_configs = {depth: _config(depth) for depth in sorted(peer_depths)}
    # What only the first compilation of a process pays for.
    once(next(iter(configs.values())), build(next(iter(configs.values()))))
    samples: dict[int, list[dict[str, float]]] = {depth: [] for depth in depths}
    lines = {}
    for _ in range(rounds):
        for depth, config in configs.items():
            seconds, lines[depth] = once(config, build(config))
            samples[depth].append(seconds)
    rows = [_row("ours", configs[d], samples[d], lines[d]) for d in depths]
    rows += _peers(peer_configs)
    totals = {depth: [sum(s.values()) for s in samples[depth]] for depth in depths}
    both = {20, 1202} <= totals.keys()
    return rows, {"compile_1202_over_20": common.ratio(totals[1202], totals[20]) if both else None}


def _config(depth: int) -> Config:
    block = default_block("resnet", depth, image=32)
    return common.cifar(depth, BATCH, f"preact_{block}" if block == "bottleneck" else block)


def _peers(configs: dict[int, Config]) -> Iterable[common.Row]:
    spent = 0.0
    for depth, config in configs.items():
        if config.model.block != "basic" or spent > TIME_BOX:
            yield _row("unrolled linen, not tried", config, [], None)
            continue
        stages = resnet_stages(depth, config.model.block, image=32)
        seconds, lines = once(config, peers.Plain(stages, pre=False))
        spent = sum(seconds.values())
        yield _row("unrolled linen", config, [seconds], lines)


def _row(
    net: str, config: Config, samples: Sequence[dict[str, float]], lines: int | None
) -> common.Row:
    median = lambda values: statistics.median(values) if samples else None
    return {
        "net": net,
        "depth": config.model.depth,
        "block": config.model.block,
        "samples": len(samples),
        **{f"{phase}_s": median(s[phase] for s in samples) for phase in PHASES},
        "total_s": median(sum(s.values()) for s in samples),
        "lines": lines,
    }


if __name__ == "__main__":
    _DEPTHS = flags.DEFINE_list("depths", "20,56,110,218,434,1001,1202", "layers of our nets")
    _PEER_DEPTHS = flags.DEFINE_list("peer_depths", "20,56,110", "layers of the unrolled nets")
    _ROUNDS = flags.DEFINE_integer("rounds", 5, "times that each depth is compiled", lower_bound=1)
    common.run(
        "compile_vs_depth",
        lambda: measure(common.integers(_DEPTHS), common.integers(_PEER_DEPTHS), _ROUNDS.value),
    )
