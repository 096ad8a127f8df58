"""Seconds to trace, lower and compile one training step, against depth.

    python -m benchmarks.compile_vs_depth [--depths=20,56,...] [--family=vgg ...] [--json=FILE]

CIFAR ResNets of basic blocks with option A, and where a depth is 9n+2 alone pre-activation
bottlenecks; batch 8, no compilation cache. Ours is compiled as training does it; the peer, the
same net written out block by block in plain flax.linen, by `jax.jit`. trace_s and lower_s are
staged apart; total_s is the whole, and compile_s the rest of it. Of every other family that can be
scanned a deep net is compared with a shallow one (FAMILIES).
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
from absl import flags

from benchmarks import common, peers
from resnet_jax.config import Config
from resnet_jax.families import build
from resnet_jax.models.resnet import default_block, resnet_stages
from resnet_jax.training.compile import program

BATCH = 8
# Family -> the config's argument but for the depth, a shallow depth and a deep one.
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
# An unrolled net that took longer than this, in seconds, is the last one tried.
TIME_BOX = 120.0


def once(config: Config, net: Any, compile: Callable) -> common.Row:
    """Seconds of each phase and of the whole, from cold caches, and the lowered module's lines."""
    state = jax.eval_shape(lambda: common.create_state(config, net))
    batch, step = common.make_batch(config), common.train_step(config, net)
    one = lambda state, batch: step(state, batch, None)
    _forget()
    clock = [time.perf_counter()]
    traced = jax.jit(one).trace(state, batch)
    clock.append(time.perf_counter())
    lowered = traced.lower()
    clock.append(time.perf_counter())
    lines = lowered.as_text().count("\n")
    del traced, lowered
    _forget()
    began = time.perf_counter()
    compile(one, state, batch)
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
    """Every depth once a round, then the peers once each, the shallowest first, then families."""
    configs = {depth: _config(depth) for depth in depths}
    peer_configs = {depth: _config(depth) for depth in sorted(peer_depths)}
    # What only the first compilation of a process pays for.
    warm = configs[min(depths)]
    once(warm, build(warm), program)
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
    block = default_block("resnet", depth, image=32)
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
        "block": config.model.block,
        "samples": len(samples),
        **{key: statistics.median(s[key] for s in samples) if samples else None for key in keys},
    }


if __name__ == "__main__":
    _DEPTHS = flags.DEFINE_list("depths", "20,56,110,218,434,1001,1202", "layers of our nets")
    _PEER_DEPTHS = flags.DEFINE_list("peer_depths", "20,56,110", "layers of the unrolled nets")
    _FAMILY = flags.DEFINE_multi_enum("family", [], list(FAMILIES), "another one too")
    _ROUNDS = flags.DEFINE_integer("rounds", 5, "times that each depth is compiled", lower_bound=1)
    common.run(
        "compile_vs_depth",
        lambda: measure(
            common.integers(_DEPTHS),
            common.integers(_PEER_DEPTHS),
            _FAMILY.value,
            _ROUNDS.value,
        ),
    )
