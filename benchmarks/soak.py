"""Runs that are killed at random moments, again and again, against a run that was never killed.

    python -m benchmarks.soak [--kills=100 --scenarios=resident,streamed,two,asked --json=FILE]

The run of a scenario is a small ResNet on scikit-learn's digits, saved and evaluated every ten
steps. After every kill it is started again in its directory, until it ends; then the next run
begins, until there were so many kills. Every run that ends is compared with the unbroken run, bit
for bit: parameters, statistics, optimizer state, and the text of metrics.jsonl. Half of the kills
come before the first step (imports, data, restoring, and compilation with an empty cache in every
new run) and half after it (training, evaluation, saving).

    resident   SIGKILL; the data is on the device
    streamed   SIGKILL; the data is read as it is needed
    two        SIGKILL to one of two processes or to both; each process streams its own rows
    asked      SIGTERM, upon which the run saves and ends with status 143

`lost` counts the starts that went on from an earlier step than the last saved step, `different` the
runs that did not end as the unbroken run, and `cut_saves` the kills that left a save unfinished.
"""

import argparse
import contextlib
import dataclasses
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks import common
from resnet_jax import command, trained
from resnet_jax.run import records

LONGEST = 600.0  # seconds that a process may take
CONFIG = "configs/digits.py:depth=8"
CHANGES = (
    "model.width=4 steps=100 chunk_steps=5 eval_every=10 checkpoint_every=10 batch_size=16 "
    "schedule.boundaries=(50,75) data.pad=1 data.flip=True"
)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """How the runs of a scenario are started, and which signal they get."""

    words: tuple[str, ...] = ()
    processes: int = 1
    kind: signal.Signals = signal.SIGKILL


STREAM = ("--config.data.stream=always",)
SCENARIOS = {
    "resident": Scenario(),
    "streamed": Scenario(STREAM),
    # If a process is killed before the two have met, the other gives up after so many seconds.
    "two": Scenario((*STREAM, "--initialization_timeout=20"), processes=2),
    "asked": Scenario(kind=signal.SIGTERM),
}


class Start:
    """A start of a run, in all of its processes; the output of process 0 goes to a file.

    `cache` is the folder for compiled programs, if it is not the usual folder.
    """

    def __init__(self, scenario: Scenario, workdir: Path, cache: Path | None = None):
        self.words = [
            *(sys.executable, "-m", "resnet_jax.train", f"--config={CONFIG}"),
            *(f"--config.{change}" for change in CHANGES.split()),
            *(f"--workdir={workdir}", *scenario.words),
        ]
        self._log = workdir.with_suffix(".log")
        environment = os.environ | {"TQDM_DISABLE": "1"}
        if cache is not None:
            environment |= {"JAX_COMPILATION_CACHE_DIR": str(cache)}
        port = free_port() if scenario.processes > 1 else 0
        self.processes = []
        for index in range(scenario.processes):
            address = f"--coordinator_address=127.0.0.1:{port}"
            cluster = (address, f"--num_processes={scenario.processes}", f"--process_id={index}")
            log = self._log if index == 0 else Path(os.devnull)
            with log.open("w", encoding="utf-8") as output:
                process = subprocess.Popen(
                    [*self.words, *(cluster if scenario.processes > 1 else ())],
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    process_group=0,
                )
            self.processes.append(process)

    def output(self) -> str:
        """Return what process 0 has printed."""
        return self._log.read_text("utf-8")

    def lives(self) -> bool:
        """Return whether process 0 has not ended."""
        return self.processes[0].poll() is None

    def wait(self, happens: Callable[[], object]) -> bool:
        """Wait until it happens; return False if process 0 ended before."""
        end = time.monotonic() + LONGEST
        while self.lives() and time.monotonic() < end:
            if happens():
                return True
            time.sleep(0.02)
        return bool(happens())

    def ready(self) -> bool:
        """Wait until the run trains; return False if process 0 ended before."""
        return self.wait(lambda: "ready after" in self.output())

    def finish(self) -> list[int]:
        """Wait until all processes have ended, and return their statuses."""
        try:
            return [process.wait(LONGEST) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()


@dataclasses.dataclass
class Counts:
    """The counts over the kills of a scenario."""

    kills: int = 0
    before_training: int = 0
    cut_saves: int = 0
    runs: int = 0
    lost: int = 0
    different: int = 0


def soak(name: str, kills: int, folder: Path, seed: int, cold: bool = True) -> Counts:
    """Kill a scenario's runs so many times, in directories within `folder`, and count.

    With `cold` every run compiles anew; else it uses the programs of the unbroken run.
    Raises: RuntimeError with the output, if a start ends with a status that it must not have.
    """
    scenario, draw, counts = SCENARIOS[name], random.Random(seed), Counts()
    unbroken, cache = folder / f"{name}-unbroken", folder / f"{name}-cache"
    began = time.monotonic()
    start = Start(scenario, unbroken, cache)
    start.ready()
    before = time.monotonic() - began
    statuses = start.finish()
    _check(start, statuses, set(statuses) == {0})
    after = time.monotonic() - began - before
    while counts.kills < kills:
        workdir, ended = folder / f"{name}-{counts.runs}", False
        if cold:
            shutil.rmtree(cache, ignore_errors=True)
        while not ended:
            saved_step = _saved_step(workdir)
            start = Start(scenario, workdir, cache)
            if counts.kills < kills:
                killed = _kill(start, scenario, draw, before, after)
                counts.kills += killed
                counts.before_training += killed and "ready after" not in start.output()
            statuses = start.finish()
            ended = set(statuses) == {0}
            _check(start, statuses, ended or _expected(statuses, scenario))
            first_step = re.search(r"(?:resumes|starts) at step (\d+)", start.output())
            counts.lost += first_step is not None and int(first_step[1]) < saved_step
            counts.cut_saves += not ended and _save_is_cut(workdir)
        counts.runs += 1
        counts.different += not same(workdir, unbroken)
        shutil.rmtree(workdir)
    return counts


def _kill(
    start: Start, scenario: Scenario, draw: random.Random, before: float, after: float
) -> bool:
    """Kill the run at a random moment; return False if it had ended already.

    `before` and `after` are the seconds that it takes before and after its first step.
    """
    if draw.random() < 0.5:
        time.sleep(draw.uniform(0, before))
    elif start.ready():
        time.sleep(draw.uniform(0, after))
    victims = draw.sample(start.processes, draw.randint(1, len(start.processes)))
    alive = [process for process in victims if process.poll() is None]
    for process in alive:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(scenario.kind)
    return bool(alive)


def _expected(statuses: list[int], scenario: Scenario) -> bool:
    """Return whether processes may end so after the scenario's signal to some of them."""
    stopped = {-signal.SIGTERM, 128 + signal.SIGTERM}  # ended by Python, and saved by the run
    allowed = {0, -signal.SIGKILL} if scenario.kind == signal.SIGKILL else {0, *stopped}
    if scenario.processes > 1:  # a peer that lost or did not meet the other, or JAX's own abort
        allowed |= {1, 2, -signal.SIGABRT}
    return allowed.issuperset(statuses)


def _check(start: Start, statuses: list[int], allowed: bool) -> None:
    if not allowed:
        raise RuntimeError(f"a start ended with {statuses}, which it must not: {start.output()}")


def _saved_step(workdir: Path) -> int:
    steps = (line["step"] for line in records.read(workdir / "saved.jsonl"))
    return max(steps, default=0)


def _save_is_cut(workdir: Path) -> bool:
    """Return whether a save was under way."""
    folders = (workdir / "checkpoints").glob("*")
    return any(not (folder / "manifest.json").exists() for folder in folders)


def same(workdir: Path, other: Path) -> bool:
    """Return whether two runs ended with the same bits."""
    logs = [(run / "metrics.jsonl").read_text("utf-8") for run in (workdir, other)]
    states = [jax.tree.leaves(trained.load(run).state) for run in (workdir, other)]
    numbers = lambda a: np.asarray(jax.random.key_data(a) if _is_key(a) else a)
    equal = (np.array_equal(numbers(a), numbers(b)) for a, b in zip(*states, strict=True))
    return logs[0] == logs[1] and all(equal)


def _is_key(array: jax.Array) -> bool:
    return jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)


def free_port() -> int:
    """Return the first of two neighbouring ports that are free on the loopback."""
    draw = random.SystemRandom()
    for _ in range(100):
        first = draw.randrange(20000, 60000)
        with contextlib.suppress(OSError):
            for port in (first, first + 1):
                socket.create_server(("127.0.0.1", port)).close()
            return first
    raise OSError("no two neighbouring ports of the loopback are free")


def names(text: str) -> list[str]:
    """Return the scenarios of --scenarios. Raises: argparse.ArgumentTypeError for others."""
    words = text.split(",")
    for word in words:
        if word not in SCENARIOS:
            raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(SCENARIOS)}")
    return words


def measure(scenarios: list[str], kills: int, seed: int) -> tuple[list[common.Row], common.Ratios]:
    """Count in each scenario; the ratios are the counts of all scenarios together."""
    rows: list[common.Row] = []
    for name in scenarios:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            counts = dataclasses.asdict(soak(name, kills, Path(folder), seed))
        rows.append({"scenario": name, **counts, "minutes": (time.monotonic() - began) / 60})
        print(common.table(rows[-1:]), flush=True)
    total = lambda key: float(sum(row[key] for row in rows))
    return rows, {key: total(key) for key in ("kills", "lost", "different")}


def main(words: list[str] | None = None) -> None:
    """Read the command line, measure and report."""
    parser = common.parser("soak", __doc__, "--kills=100 --scenarios=resident,asked")
    flag = parser.add_argument
    whole = command.whole
    flag("--kills", type=whole(1), default=100, help="of each scenario (default: %(default)s)")
    flag(
        "--seed",
        type=whole(0),
        default=0,
        help="from which the moments of the kills are drawn (default: %(default)s)",
    )
    flag(
        "--scenarios",
        type=names,
        default=",".join(SCENARIOS),
        help="with commas between them (default: %(default)s)",
    )
    arguments = parser.read(words)
    common.run(
        "soak",
        arguments,
        lambda: measure(arguments.scenarios, arguments.kills, arguments.seed),
    )


if __name__ == "__main__":
    common.start(main)
