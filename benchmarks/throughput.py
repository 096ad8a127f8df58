"""Training throughput on a GPU, against PyTorch on the same card and against the memory's roof.

    python -m benchmarks.throughput [--json=benchmarks/results/throughput_CARD.json]
        [--seconds=540] [--case=resnet50:256 ...] [--dtype=float32] [--xla_option=NAME=VALUE ...]

A case is a network and its batch. Networks of 18, 34, 50, 101, 152 and 200 layers are ImageNet's,
with images of 224x224 and a bottleneck's stride on its 3x3 convolution, as in torchvision. Other
depths are CIFAR's with option A and 50,000 images. The data are noise in uint8. They are on the
device, and are normalised, cropped and flipped there. A call trains many steps, as the package
does: bfloat16 with float32 parameters, a norm over the whole batch, SGD with momentum and decay.
PyTorch does the same in a process of its own, channels_last:

    torch            eager, under autocast
    torch_graph      the same step captured as a CUDA graph
    torch_compile    torch.compile; for CIFAR's networks in the mode reduce-overhead, which also
                     captures graphs

With --xla_option our programs are compiled twice, without and with the option (`ours_options`), so
that a single command measures a flag. A ratio is the median over the rounds of images/s:

    throughput_over_MODE_NET_BATCH   MODE is torch, torch_graph or torch_compile
    throughput_options_NET_BATCH     with the options over without
    roof_share_NET_BATCH             share of the bandwidth of a copy, by the moved bytes (roofs.py)

If --seconds do not suffice for a program, its numbers are null and its row says why. `peak_mb` is
the compiler's figure for state, data and temporaries together. To try it on a CPU, use
--case=resnet20:32 --dtype=float32.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import speed, timed
from benchmarks.torch_worker import Worker
from configs import cifar10, imagenet_torchvision
from resnet_jax import command
from resnet_jax.config import check
from resnet_jax.keys import Config
from resnet_jax.models.stages import IMAGENET

# The cases that matter most come first.
CASES = ("resnet50:256", "resnet110:128", "resnet56:128", "resnet20:128")
CASES += ("resnet110:1024", "resnet56:1024", "resnet20:1024", "resnet50:512")


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and a batch; `examples` are on the device, and a call takes `turn` steps."""

    net: str
    config: Config
    examples: int
    turn: int

    @property
    def batch(self) -> int:
        """The images of a step."""
        return self.config.batch_size

    @property
    def name(self) -> str:
        """The name in the ratios."""
        return f"{self.net}_{self.batch}"


def case(word: str, dtype: str) -> Case:
    """Return the case 'resnet50:256'. Another word is one line and status 2."""
    if not re.fullmatch(r"resnet\d+:\d+", word):
        command.fail(f"--case={word} is not NET:BATCH, such as resnet50:256")
    depth, batch = map(int, re.findall(r"\d+", word))
    with command.refusals():
        if any(depth in table for table in IMAGENET.values()):
            config = speed.recipe(imagenet_torchvision.get_config(f"depth={depth}"), batch, dtype)
            examples, turn = 4 * batch, 10
        else:
            config = speed.recipe(cifar10.get_config(f"depth={depth}"), batch, dtype)
            examples, turn = max(50_000, batch), 50
        check(config)
    return Case(f"resnet{depth}", config, examples, turn)


def plan(cases: Sequence[Case], options: Mapping[str, Any]) -> timed.Sheet:
    """Return the sheet with every row and ratio."""
    ours = ("ours", "ours_options") if options else ("ours",)
    rows = [
        speed.row(net=case.net, batch=case.batch, program=program)
        for case in cases
        for program in (*ours, *speed.MODES)
    ]
    names = [f"throughput_over_{mode}" for mode in speed.MODES]
    names += ["throughput_options"] * bool(options) + ["roof_share"]
    return timed.Sheet(rows, {f"{name}_{case.name}": None for case in cases for name in names})


def measure(
    sheet: timed.Sheet,
    clock: timed.Clock,
    cases: Sequence[Case],
    dtype: str,
    options: Mapping[str, Any],
    worker: Worker | None,
    rounds: int,
) -> None:
    """Measure ours and eager PyTorch in every case, then the graphs, then torch.compile."""
    limits = speed.device_roofs(dtype)
    sheet.rows.insert(0, speed.device_row(dtype, limits, options))
    contests = []
    for case in cases:
        contest = speed.Contest(
            sheet,
            clock,
            limits,
            case.config,
            {"net": case.net, "batch": case.batch},
            case.examples,
            case.turn,
            rounds,
            f"roof_share_{case.name}",
        )
        contests.append(contest)
        contest.begin("ours")
        if options:
            ratio = f"throughput_options_{case.name}"
            contest.again("ours_options", case.config, options, "ours", ratio)
        _torch(contest, case, "torch", worker)
    for name in list(speed.MODES)[1:]:
        for case, contest in zip(cases, contests, strict=True):
            _torch(contest, case, name, worker)


def _torch(contest: speed.Contest, case: Case, name: str, worker: Worker | None) -> None:
    mode = speed.MODES[name]
    if mode == "compile" and case.config.model.stem == "3x3":
        mode = "reduce-overhead"
    contest.torch(name, worker, mode, over_ours=f"throughput_over_{name}_{case.name}")


def begin(words: Sequence[str], dtype: str, option: Sequence[str], rounds: int) -> timed.Plan:
    """Return the plan that the flags ask for."""
    cases, options = [case(word, dtype) for word in words], timed.options(option)
    worker = speed.worker()
    fill = functools.partial(
        measure, cases=cases, dtype=dtype, options=options, worker=worker, rounds=rounds
    )
    return timed.Plan(plan(cases, options), fill, worker.close if worker else lambda: None)


def main(words: list[str] | None = None) -> None:
    """Read the command line, measure and report."""
    parser = timed.parser("throughput", __doc__, "--case=resnet50:256")
    parser.add_argument(
        "--case",
        action="append",
        metavar="NET:BATCH",
        help=f"what to measure (default: {', '.join(CASES)})",
    )
    arguments = parser.read(words)
    timed.run(
        "throughput",
        arguments,
        lambda: begin(
            arguments.case or CASES, arguments.dtype, arguments.xla_option, arguments.rounds
        ),
    )


if __name__ == "__main__":
    timed.start(main)
