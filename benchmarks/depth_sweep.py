"""What depth costs on one GPU: seconds to compile, milliseconds a step and bytes of deep ResNets.

    python -m benchmarks.depth_sweep [--json=benchmarks/results/depth_sweep_CARD.json]
        [--seconds=540] [--depths=110,1202,...] [--batch=128] [--dtype=float32]
        [--xla_option=NAME=VALUE ...]

CIFAR ResNets of basic blocks with option A, and where a depth is 9n+2 alone pre-activation
bottlenecks; noise on the device, augmented there, bfloat16 beside float32 parameters. `scan` is one
loop a stage; `unroll2` and `unroll4` have two and four blocks a turn, `unrolled` has no loop;
`block` computes each block again for its gradient; `torch` is PyTorch on the same card, eager under
autocast, channels_last, and `torch_graph` the same captured as a CUDA graph. The scan of every
depth comes first, then the variants of the shallowest and of the deepest, then the rest; at last
the unrolled nets by depth, each where the square of its growth in seconds is left. --xla_option
holds for all programs of ours. Ratios are of step times, medians over the rounds:

    scan_over_unrolled_DEPTH, ..._unroll2_..., ..._unroll4_..., ..._block_...
    step_over_torch_DEPTH, step_over_torch_graph_DEPTH         ours (scan) over theirs
    step_1202_over_110, compile_1202_over_110, peak_1202_over_110      10.96 in bytes that move
    roof_share_DEPTH                                                   see throughput

What --seconds leave no time for is null, and its row says why.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import common, speed, timed
from benchmarks.torch_worker import Worker
from configs import cifar10
from resnet_jax import command
from resnet_jax.config import Config, check
from resnet_jax.models.resnet import default_block

# Name -> what it changes in the config; the last leaves no loop at any depth.
VARIANTS: dict[str, dict[str, Any]] = {
    "unroll4": {"unroll": 4},
    "unroll2": {"unroll": 2},
    "block": {"remat": "block"},
    "unrolled": {"unroll": 10_000},
}
TORCH = ("torch", "torch_graph")
EXAMPLES, TURN = 8, 10  # batches on the device; steps a call


def recipe(depth: int, batch: int, dtype: str) -> Config:
    """The net of this depth, scanned and without remat; a wrong depth is one clear line."""
    with command.refusals():
        block = default_block("resnet", depth, image=32)
        block = f"preact_{block}" if block == "bottleneck" else block
        config = cifar10.get_config(f"depth={depth},block={block}")
        config = speed.recipe(config, batch, dtype)
        config.remat = "none"
        check(config)
    return config


def plan(configs: Mapping[int, Config]) -> timed.Sheet:
    """Every row and ratio."""
    rows = [
        speed.row(depth=depth, block=config.model.block, program=program)
        for depth, config in configs.items()
        for program in ("scan", *VARIANTS, *TORCH)
    ]
    shallow, deep = _ends(configs)
    names = [f"{what}_{deep}_over_{shallow}" for what in ("step", "compile", "peak")]
    for depth in configs:
        names += [f"scan_over_{variant}_{depth}" for variant in VARIANTS]
        names += [f"step_over_{mode}_{depth}" for mode in TORCH] + [f"roof_share_{depth}"]
    return timed.Sheet(rows, dict.fromkeys(names))


def _ends(configs: Mapping[int, Config]) -> tuple[int, int]:
    """The shallowest and the deepest of the nets that differ in depth alone."""
    block = next(iter(configs.values())).model.block
    depths = [depth for depth, config in configs.items() if config.model.block == block]
    return min(depths), max(depths)


def measure(
    sheet: timed.Sheet,
    clock: timed.Clock,
    configs: Mapping[int, Config],
    options: Mapping[str, Any],
    worker: Worker | None,
    rounds: int,
) -> None:
    """The scans and eager PyTorch, then the variants, the ends first."""
    dtype = next(iter(configs.values())).dtype
    limits = speed.device_roofs(dtype)
    sheet.rows.insert(0, speed.device_row(dtype, limits, options))
    ends = _ends(configs)
    contests = {}
    for depth in sorted(configs, key=lambda d: (d not in ends, d)):
        config = configs[depth]
        contests[depth] = contest = speed.Contest(
            sheet,
            clock,
            limits,
            config,
            {"depth": depth, "block": config.model.block},
            EXAMPLES * config.batch_size,
            TURN,
            rounds,
            f"roof_share_{depth}",
        )
        contest.begin("scan", options)
        _torch(contest, depth, "torch", worker)
        _compare(sheet, *ends)
    variant = functools.partial(_variant, options=options)
    last, spent = ends[0], variant(contests[ends[0]], ends[0], "unrolled")
    for depth, contest in contests.items():
        for name in list(VARIANTS)[:-1]:
            variant(contest, depth, name)
        _torch(contest, depth, "torch_graph", worker)
    for depth in sorted(set(configs) - {ends[0]}):
        # A compiler's time grows faster than its program.
        expected = spent and spent * (depth / last) ** 2
        last, spent = depth, variant(contests[depth], depth, "unrolled", expected=expected)


def _variant(
    contest: speed.Contest,
    depth: int,
    name: str,
    options: Mapping[str, Any],
    expected: float | None = None,
) -> float | None:
    config = contest.config.copy_and_resolve_references()
    config.update(VARIANTS[name])
    return contest.again(name, config, options, f"scan_over_{name}_{depth}", expected)


def _torch(contest: speed.Contest, depth: int, name: str, worker: Worker | None) -> None:
    contest.torch(name, worker, speed.MODES[name], ours_over=f"step_over_{name}_{depth}")


def _compare(sheet: timed.Sheet, shallow: int, deep: int) -> None:
    """The deepest net over the shallowest, where both are measured."""
    a, b = (sheet.row(depth=depth, program="scan") for depth in (shallow, deep))
    for what, key in (("step", "step_ms"), ("compile", "compile_s"), ("peak", "peak_mb")):
        if a[key] and b[key]:
            sheet.ratios[f"{what}_{deep}_over_{shallow}"] = b[key] / a[key]


def begin(
    depths: Sequence[int], batch: int, dtype: str, option: Sequence[str], rounds: int
) -> timed.Plan:
    """What the flags ask for."""
    configs = {depth: recipe(depth, batch, dtype) for depth in depths}
    options, worker = speed.options(option), speed.worker()
    fill = functools.partial(
        measure, configs=configs, options=options, worker=worker, rounds=rounds
    )
    return timed.Plan(plan(configs), fill, worker.close if worker else lambda: None)


if __name__ == "__main__":
    _DEPTHS = flags.DEFINE_list("depths", "110,218,434,866,1202,1001", "layers, the kind first")
    _BATCH = flags.DEFINE_integer("batch", 128, "images a step", lower_bound=1)
    _DTYPE, _ROUNDS, _OPTION = speed.define_flags()
    timed.run(
        "depth_sweep",
        lambda: begin(
            common.integers(_DEPTHS),
            _BATCH.value,
            _DTYPE.value,
            _OPTION.value,
            _ROUNDS.value,
        ),
    )
