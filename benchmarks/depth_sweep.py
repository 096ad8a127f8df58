"""What depth costs on a GPU: seconds to compile, milliseconds a step and bytes of deep ResNets.

    python -m benchmarks.depth_sweep [--json=benchmarks/results/depth_sweep_CARD.json]
        [--seconds=540] [--depths=110,1202,...] [--batch=128] [--dtype=float32]
        [--xla_option=NAME=VALUE ...]

The networks are CIFAR ResNets of basic blocks with option A, or of pre-activation bottlenecks if a
depth is 9n+2 but not 6n+2. They train on noise that is on the device and augmented there, in
bfloat16 with float32 parameters. The programs:

    scan                 one loop for each stage
    unroll2, unroll4     two and four blocks in each turn of the loop
    unrolled             no loop
    block                each block is computed again for its gradient (remat)
    torch                PyTorch on the same card, eager under autocast, channels_last
    torch_graph          the same, captured as a CUDA graph

First come the scans of all depths, then the variants of the shallowest and of the deepest network,
then those of the other networks, and at last the unrolled networks by depth. An unrolled network is
tried if the time that is left suffices for the time of the previous unrolled network, multiplied by
the square of the growth in depth. --xla_option holds for all programs of ours. The ratios are of
step times, medians over the rounds:

    scan_over_VARIANT_DEPTH                         VARIANT is unroll2, unroll4, unrolled or block
    step_over_torch_DEPTH, step_over_torch_graph_DEPTH      ours (scan) over PyTorch's
    step_1202_over_110, compile_1202_over_110, peak_1202_over_110       10.96 in moved bytes
    roof_share_DEPTH                                see throughput.py

If --seconds do not suffice for a program, its numbers are null and its row says why.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import common, speed, timed
from benchmarks.torch_worker import Worker
from configs import cifar10
from resnet_jax import command
from resnet_jax.config import check
from resnet_jax.keys import Config
from resnet_jax.models.stages import default_block

# The values that a variant changes in the config. `unrolled` leaves no loop at any depth.
LOOPS: dict[str, dict[str, Any]] = {
    "unroll4": {"unroll": 4},
    "unroll2": {"unroll": 2},
    "block": {"remat": "block"},
}
VARIANTS = LOOPS | {"unrolled": {"unroll": 10_000}}
TORCH = ("torch", "torch_graph")
EXAMPLES, TURN = 8, 10  # batches on the device, and steps in a call


def recipe(depth: int, batch: int, dtype: str) -> Config:
    """Return the config of the network of this depth, scanned and without remat.

    A depth that does not exist is one line and status 2.
    """
    with command.refusals():
        block = default_block(depth, image=32)
        block = f"preact_{block}" if block == "bottleneck" else block
        config = cifar10.get_config(f"depth={depth},block={block}")
        config = speed.recipe(config, batch, dtype)
        config.remat = "none"
        check(config)
    return config


def plan(configs: Mapping[int, Config]) -> timed.Sheet:
    """Return the sheet with every row and ratio."""
    rows = [
        speed.row(depth=depth, block=config.model.block, program=program)
        for depth, config in configs.items()
        for program in ("scan", *VARIANTS, *TORCH)
    ]
    shallow, deep = _ends(configs)
    names = [f"{name}_{deep}_over_{shallow}" for name in ("step", "compile", "peak")]
    for depth in configs:
        names += [f"scan_over_{variant}_{depth}" for variant in VARIANTS]
        names += [f"step_over_{mode}_{depth}" for mode in TORCH] + [f"roof_share_{depth}"]
    return timed.Sheet(rows, dict.fromkeys(names))


def _ends(configs: Mapping[int, Config]) -> tuple[int, int]:
    """Return the shallowest and the deepest of the networks that differ in depth alone."""
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
    """Measure the scans and eager PyTorch, then the variants, the ends first."""
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
        for name in LOOPS:
            variant(contest, depth, name)
        _torch(contest, depth, "torch_graph", worker)
    for depth in sorted(set(configs) - {ends[0]}):
        # A compiler's time grows faster than its program.
        expected = spent * (depth / last) ** 2 if spent else float("inf")
        if taken := variant(contests[depth], depth, "unrolled", expected=expected):
            last, spent = depth, taken


def _variant(
    contest: speed.Contest,
    depth: int,
    name: str,
    options: Mapping[str, Any],
    expected: float | None = None,
) -> float | None:
    config = contest.config.copy_and_resolve_references()
    config.update(VARIANTS[name])
    # A program without a loop takes longer to compile, and tells nothing about those with a loop.
    kind = "ours" if name in LOOPS else name
    return contest.again(name, config, options, kind, f"scan_over_{name}_{depth}", expected)


def _torch(contest: speed.Contest, depth: int, name: str, worker: Worker | None) -> None:
    contest.torch(name, worker, speed.MODES[name], ours_over=f"step_over_{name}_{depth}")


def _compare(sheet: timed.Sheet, shallow: int, deep: int) -> None:
    """Compare the deepest network with the shallowest, if both are measured."""
    a, b = (sheet.row(depth=depth, program="scan") for depth in (shallow, deep))
    for name, key in (("step", "step_ms"), ("compile", "compile_s"), ("peak", "peak_mb")):
        if a[key] and b[key]:
            sheet.ratios[f"{name}_{deep}_over_{shallow}"] = b[key] / a[key]


def begin(
    depths: Sequence[int], batch: int, dtype: str, option: Sequence[str], rounds: int
) -> timed.Plan:
    """Return the plan that the flags ask for."""
    configs = {depth: recipe(depth, batch, dtype) for depth in depths}
    options, worker = timed.options(option), speed.worker()
    fill = functools.partial(
        measure, configs=configs, options=options, worker=worker, rounds=rounds
    )
    return timed.Plan(plan(configs), fill, worker.close if worker else lambda: None)


def main(words: list[str] | None = None) -> None:
    """Read the command line, measure and report."""
    parser = timed.parser("depth_sweep", __doc__, "--depths=110,1202")
    parser.add_argument(
        "--depths",
        type=common.integers,
        default="110,218,434,866,1202,1001",
        help="layers; those of the first block's kind are compared (default: %(default)s)",
    )
    parser.add_argument(
        "--batch", type=command.whole(1), default=128, help="images a step (default: %(default)s)"
    )
    arguments = parser.read(words)
    timed.run(
        "depth_sweep",
        arguments,
        lambda: begin(
            arguments.depths,
            arguments.batch,
            arguments.dtype,
            arguments.xla_option,
            arguments.rounds,
        ),
    )


if __name__ == "__main__":
    timed.start(main)
