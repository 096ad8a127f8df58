"""Runs that are killed at random moments, over and over, against one that never was.

    python -m benchmarks.soak [--kills=100 --scenarios=resident,streamed,two,asked --json=FILE]

A scenario's run is a small ResNet on scikit-learn's digits, saved and evaluated every ten steps. It
is started again in its directory after every kill until it ends, and then the next one begins, till
there have been so many kills; every one that ended is compared with the unbroken run, bit for bit:
parameters, statistics, optimiser state, and the text of metrics.jsonl. Half of the kills come
before the first step (imports, data, restoring, compilation, into an empty cache in every new run)
and half after it (training, evaluation, saving).

    resident   SIGKILL; the data is on the device
    streamed   SIGKILL; it is read as it is needed
    two        SIGKILL to one of two processes, or to both; each streams its own rows
    asked      SIGTERM, which saves and ends with status 143

`lost`: a start that went on from less than the last step that was saved. `different`: runs that did
not end as the unbroken one. `cut_saves`: kills that left a save unfinished.
"""

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
from absl import flags

from benchmarks import common
from resnet_jax import command, trained
from resnet_jax.training import metrics

LONGEST = 600.0  # seconds that any one process may take
CHANGES = (
    "model.width=4 steps=100 chunk_steps=5 eval_every=10 checkpoint_every=10 batch_size=16 "
    "schedule.boundaries=(50,75) data.pad=1 data.flip=True"
)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """How runs are started, and what becomes of them."""

    words: tuple[str, ...] = ()
    processes: int = 1
    kind: signal.Signals = signal.SIGKILL


STREAM = ("--config.data.stream=always",)
SCENARIOS = {
    "resident": Scenario(),
    "streamed": Scenario(STREAM),
    # Where one is killed before they have met, the other gives up after so many seconds.
    "two": Scenario((*STREAM, "--initialization_timeout=20"), processes=2),
    "asked": Scenario(kind=signal.SIGTERM),
}


class Start:
    """One start of a run, in its processes; process 0's words go to a file."""

    def __init__(self, scenario: Scenario, workdir: Path, cache: Path | None = None):
        """`cache`: where compiled programs are kept, if not where they always are."""
        self.words = [
            *(sys.executable, "-m", "resnet_jax.train", "--config=configs/digits.py:depth=8"),
            *(f"--config.{change}" for change in CHANGES.split()),
            *(f"--workdir={workdir}", *scenario.words),
        ]
        self._log = workdir.with_suffix(".log")
        own = {"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {}
        port = free_port() if scenario.processes > 1 else 0
        self.processes = []
        for index in range(scenario.processes):
            address = f"--coordinator_address=127.0.0.1:{port}"
            among = (address, f"--num_processes={scenario.processes}", f"--process_id={index}")
            with self._log.open("w") if index == 0 else open(os.devnull, "w") as said:
                process = subprocess.Popen(
                    [*self.words, *(among if scenario.processes > 1 else ())],
                    env=os.environ | own | {"TQDM_DISABLE": "1"},
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    process_group=0,
                )
            self.processes.append(process)

    def said(self) -> str:
        """What process 0 has said."""
        return self._log.read_text()

    def lives(self) -> bool:
        """Whether process 0 has not ended."""
        return self.processes[0].poll() is None

    def wait(self, happens: Callable[[], object]) -> bool:
        """Wait until it happens; False where process 0 ended and it had not."""
        end = time.monotonic() + LONGEST
        while self.lives() and time.monotonic() < end:
            if happens():
                return True
            time.sleep(0.02)
        return bool(happens())

    def ready(self) -> bool:
        """Wait until it trains; False where it ended before."""
        return self.wait(lambda: "ready after" in self.said())

    def finish(self) -> list[int]:
        """The status of each process, once all have ended."""
        try:
            return [process.wait(LONGEST) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()


@dataclasses.dataclass
class Counts:
    """What is counted over the kills of a scenario."""

    kills: int = 0
    before_training: int = 0
    cut_saves: int = 0
    runs: int = 0
    lost: int = 0
    different: int = 0


def soak(name: str, kills: int, folder: Path, seed: int, cold: bool = True) -> Counts:
    """Kill a scenario's runs so many times; `folder` is for what they write.

    `cold`: every run compiles anew. Else they find what the unbroken one has compiled.
    Raises: RuntimeError with its words where a start ends as none may.
    """
    scenario, draw, counts = SCENARIOS[name], random.Random(seed), Counts()
    whole, cache = folder / f"{name}-unbroken", folder / f"{name}-cache"
    began = time.monotonic()
    start = Start(scenario, whole, cache)
    start.ready()
    before = time.monotonic() - began
    statuses = start.finish()
    _must(start, statuses, set(statuses) == {0})
    after = time.monotonic() - began - before
    while counts.kills < kills:
        workdir, ended = folder / f"{name}-{counts.runs}", False
        if cold:
            shutil.rmtree(cache, ignore_errors=True)
        while not ended:
            saved = _saved(workdir)
            start = Start(scenario, workdir, cache)
            if counts.kills < kills:
                killed = _kill(start, scenario, draw, before, after)
                counts.kills += killed
                counts.before_training += killed and "ready after" not in start.said()
            statuses = start.finish()
            ended = set(statuses) == {0}
            _must(start, statuses, ended or _expected(statuses, scenario))
            went_on = re.search(r"(?:resumes|starts) at step (\d+)", start.said())
            counts.lost += went_on is not None and int(went_on[1]) < saved
            counts.cut_saves += not ended and _cut(workdir)
        counts.runs += 1
        counts.different += not same(workdir, whole)
        shutil.rmtree(workdir)
    return counts


def _kill(
    start: Start, scenario: Scenario, draw: random.Random, before: float, after: float
) -> bool:
    """Kill it at a random moment; False where it had ended already."""
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
    """Whether processes may end so after the scenario's signal, to them or to their peer."""
    asked = {-signal.SIGTERM, 128 + signal.SIGTERM}  # Python's own end, and ours
    known = {0, -signal.SIGKILL} if scenario.kind == signal.SIGKILL else {0, *asked}
    if scenario.processes > 1:  # the peer: lost it, did not meet it, or JAX's own abort at the end
        known |= {1, 2, -signal.SIGABRT}
    return known.issuperset(statuses)


def _must(start: Start, statuses: list[int], true: bool) -> None:
    if not true:
        raise RuntimeError(f"a start ended with {statuses}, as none may: {start.said()}")


def _saved(workdir: Path) -> int:
    steps = (line["step"] for line in metrics.read(workdir / "saved.jsonl"))
    return max(steps, default=0)


def _cut(workdir: Path) -> bool:
    """Whether a save was under way."""
    folders = list((workdir / "checkpoints").glob("*"))
    whole = {folder.name for folder in folders if (folder / "manifest.json").exists()}
    return any(folder.name not in whole for folder in folders)


def same(workdir: Path, other: Path) -> bool:
    """Whether two runs ended alike, bit for bit."""
    logs = [(run / "metrics.jsonl").read_text() for run in (workdir, other)]
    states = [jax.tree.leaves(trained.load(run).state) for run in (workdir, other)]
    numbers = lambda a: np.asarray(jax.random.key_data(a) if _is_key(a) else a)
    equal = (np.array_equal(numbers(a), numbers(b)) for a, b in zip(*states, strict=True))
    return logs[0] == logs[1] and all(equal)


def _is_key(array: jax.Array) -> bool:
    return jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)


def free_port() -> int:
    """The first of two ports that are free on the loopback."""
    draw = random.SystemRandom()
    for _ in range(100):
        port = draw.randrange(20000, 60000)
        with contextlib.suppress(OSError):
            for one in (port, port + 1):
                socket.create_server(("127.0.0.1", one)).close()
            return port
    raise OSError("no two neighbouring ports of the loopback are free")


def measure(names: list[str], kills: int, seed: int) -> tuple[list[common.Row], common.Ratios]:
    """The counts of each scenario, and of all of them together."""
    for name in names:
        if name not in SCENARIOS:
            command.fail(f"--scenarios: {name!r} is not one of {', '.join(SCENARIOS)}")
    rows: list[common.Row] = []
    for name in names:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            counts = dataclasses.asdict(soak(name, kills, Path(folder), seed))
        rows.append({"scenario": name, **counts, "minutes": (time.monotonic() - began) / 60})
        print(common.table(rows[-1:]), flush=True)
    total = lambda key: float(sum(row[key] for row in rows))
    return rows, {key: total(key) for key in ("kills", "lost", "different")}


if __name__ == "__main__":
    _KILLS = flags.DEFINE_integer("kills", 100, "of each scenario", lower_bound=1)
    _SEED = flags.DEFINE_integer("seed", 0, "of the moments at which they come")
    _SCENARIOS = flags.DEFINE_list("scenarios", list(SCENARIOS), "which, by name")
    common.run("soak", lambda: measure(_SCENARIOS.value, _KILLS.value, _SEED.value))
