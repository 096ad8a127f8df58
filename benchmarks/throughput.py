"""Training throughput on one GPU against PyTorch on the same card, and against its memory's roof.

    python -m benchmarks.throughput [--json=benchmarks/results/throughput_CARD.json]
        [--seconds=540] [--case=resnet50:256 ...] [--dtype=float32] [--xla_option=NAME=VALUE ...]

A case is a net and its batch. 18, 34, 50, 101, 152 and 200 layers are ImageNet's, 224x224, a
bottleneck's stride on its 3x3 convolution, as in torchvision; other depths are CIFAR's with option
A, 50,000 images. Data are noise in uint8 that lives on the device, normalised, cropped and flipped
there; a call trains many steps of the package's own. bfloat16 beside float32 parameters, one norm a
batch, SGD with momentum and decay. PyTorch does the same in a process of its own, channels_last:
`torch` eager under autocast, `torch_graph` the same step captured as a CUDA graph, `torch_compile`
torch.compile (ImageNet's; of CIFAR's its mode reduce-overhead, which captures graphs too).

With --xla_option our programs are compiled twice, without and with it (`ours_options`): one command
measures a flag. A ratio is the median over the rounds of images/s over images/s:

    throughput_over_torch_NET_BATCH, ..._over_torch_graph_..., ..._over_torch_compile_...
    throughput_options_NET_BATCH     with the options over without
    roof_share_NET_BATCH             of the copy's bandwidth, by the bytes a step moves (roofs.py)

What --seconds leave no time for is null, and its row says why. On a CPU, for a try:
--case=resnet20:32 --dtype=float32.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import speed, timed
from benchmarks.torch_worker import Worker
from configs import cifar10, imagenet_torchvision
from resnet_jax import command
from resnet_jax.config import Config, check
from resnet_jax.models.resnet import IMAGENET

# The ones that matter most first.
CASES = ("resnet50:256", "resnet110:128", "resnet56:128", "resnet20:128")
CASES += ("resnet110:1024", "resnet56:1024", "resnet20:1024", "resnet50:512")


@dataclasses.dataclass(frozen=True)
class Case:
    """One network and batch, with what is measured of it."""

    net: str
    config: Config
    examples: int
    turn: int  # steps in one call

    @property
    def batch(self) -> int:
        """Images a step."""
        return self.config.batch_size

    @property
    def name(self) -> str:
        """As in the ratios."""
        return f"{self.net}_{self.batch}"


def case(word: str, dtype: str) -> Case:
    """'resnet50:256'; another word is one clear line."""
    if not re.fullmatch(r"resnet\d+:\d+", word):
        command.fail(f"--case={word}: it is NET:BATCH, as resnet50:256")
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
    """Every row and ratio."""
    ours = ("ours", "ours_options") if options else ("ours",)
    rows = [
        speed.row(net=one.net, batch=one.batch, program=program)
        for one in cases
        for program in (*ours, *speed.MODES)
    ]
    names = [f"throughput_over_{mode}" for mode in speed.MODES]
    names += ["throughput_options"] * bool(options) + ["roof_share"]
    return timed.Sheet(rows, {f"{name}_{one.name}": None for one in cases for name in names})


def measure(
    sheet: timed.Sheet,
    clock: timed.Clock,
    cases: Sequence[Case],
    dtype: str,
    options: Mapping[str, Any],
    worker: Worker | None,
    rounds: int,
) -> None:
    """Ours against eager PyTorch of every case first; then its graphs, then what it compiles."""
    limits = speed.device_roofs(dtype)
    sheet.rows.insert(0, speed.device_row(dtype, limits, options))
    contests = []
    for one in cases:
        contest = speed.Contest(
            sheet,
            clock,
            limits,
            one.config,
            {"net": one.net, "batch": one.batch},
            one.examples,
            one.turn,
            rounds,
            f"roof_share_{one.name}",
        )
        contests.append(contest)
        contest.begin("ours")
        if options:
            contest.again("ours_options", one.config, options, f"throughput_options_{one.name}")
        _torch(contest, one, "torch", worker)
    for name in list(speed.MODES)[1:]:
        for one, contest in zip(cases, contests, strict=True):
            _torch(contest, one, name, worker)


def _torch(contest: speed.Contest, one: Case, name: str, worker: Worker | None) -> None:
    mode = speed.MODES[name]
    if mode == "compile" and one.config.model.stem == "3x3":
        mode = "reduce-overhead"
    contest.torch(name, worker, mode, over_ours=f"throughput_over_{name}_{one.name}")


def begin(words: Sequence[str], dtype: str, option: Sequence[str], rounds: int) -> timed.Plan:
    """What the flags ask for."""
    cases, options = [case(word, dtype) for word in words], speed.options(option)
    worker = speed.worker()
    fill = functools.partial(
        measure, cases=cases, dtype=dtype, options=options, worker=worker, rounds=rounds
    )
    return timed.Plan(plan(cases, options), fill, worker.close if worker else lambda: None)


if __name__ == "__main__":
    _CASES = flags.DEFINE_multi_string("case", list(CASES), "NET:BATCH, as resnet50:256")
    _DTYPE, _ROUNDS, _OPTION = speed.define_flags()
    timed.run("throughput", lambda: begin(_CASES.value, _DTYPE.value, _OPTION.value, _ROUNDS.value))
