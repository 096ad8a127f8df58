"""What happens in a run's directory when a run starts: it is claimed, and the start is recorded."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import jax
from jax.sharding import Mesh

from resnet_jax import config as configs
from resnet_jax import distributed, provenance
from resnet_jax.keys import Config
from resnet_jax.run import checkpoint, directory, records
from resnet_jax.run.directory import AnyPath
from resnet_jax.tasks import TASKS
from resnet_jax.tasks.task import Dataset, Task
from resnet_jax.training import shard


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that has been checked and may start.

    `statistics` are what the task computed from the training split, such as the mean image.
    """

    config: Config
    workdir: directory.AnyPath
    mesh: Mesh
    dataset: Dataset
    statistics: dict[str, Any]

    @property
    def seeds(self) -> list[int]:
        """The seed of each replica."""
        return list(configs.seeds(self.config))

    @property
    def task(self) -> Task:
        """What the network is trained to do."""
        return TASKS[self.config.task]


def claim(workdir: AnyPath, config: Config, stack: contextlib.ExitStack) -> None:
    """Make the directory this run's, for as long as `stack` is open.

    A run calls this first: if it is killed later, its directory already says which run it is.
    Raises: OSError if another process holds the directory or has made it another run's.
    """
    if distributed.first():
        workdir.mkdir(parents=True, exist_ok=True)
        stack.enter_context(directory.locked(workdir))
        try:  # the process that held it a moment ago may have made it another run's
            directory.refuse_another(workdir, config)
        except ValueError as error:
            raise OSError(str(error)) from error
        directory.claim(workdir, config)
    distributed.wait("claimed")
    if not _appears(workdir / "config.json"):
        raise FileNotFoundError(
            f"process {jax.process_index()} does not see what process 0 writes to {workdir}; "
            "all processes need one shared --workdir"
        )


def _appears(path: AnyPath, seconds: float = 60.0) -> bool:
    """Wait until this process sees a file of another process; a shared folder may be late."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(1)
    return True


def find_checkpoint(workdir: AnyPath) -> checkpoint.Found:
    """Return on every process what process 0 finds in the directory."""
    nothing = checkpoint.Found(None, {}, [])
    found = checkpoint.find(workdir) if distributed.first() else nothing
    return found._replace(step=distributed.agree(found.step))


def record(
    workdir: AnyPath,
    dataset: Dataset,
    statistics: dict[str, Any],
    score: str,
    step: int,
    facts: Mapping[str, Any],
) -> None:
    """Add this start and `facts` to run.json, save the statistics, cut the records after `step`."""
    if distributed.first():
        directory.add_start(workdir, _entry(dataset, score, step) | dict(facts))
    directory.write(workdir / "normalisation.json", json.dumps(statistics))
    _cut(workdir / "metrics.jsonl", step)


def _entry(dataset: Dataset, score: str, step: int) -> dict[str, Any]:
    """Return what run.json records of this start."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "command": provenance.command_line(),
        "devices": [f"{d.platform}:{d.device_kind}" for d in jax.devices()],
        "versions": provenance.versions(),
        "data_fingerprint": dataset.fingerprint,
        f"chance_{score}": dataset.chance(),
    }


@distributed.by_first
def _cut(log: AnyPath, step: int) -> None:
    """Keep the records up to `step`, and warn if the records of that step are missing."""
    records.cut(log, step)
    if step and step not in {record["step"] for record in records.read(log)}:
        say(f"warning: {log} has no records of step {step}, which is saved: some are lost")


def refuse_different_processes(facts: dict[str, Any]) -> None:
    """Refuse to go on if this process knows other facts than process 0: it is not the same run.

    data.dir may differ. Raises: ValueError with the facts that differ and both values.
    """
    of_first = json.loads(distributed.of_first(json.dumps(facts)))
    own = json.loads(json.dumps(facts))
    lines = [
        f"{key}: {str(of_first.get(key))[:80]} there, {str(own[key])[:80]} here"
        for key in own
        if own[key] != of_first.get(key) and key != "data.dir"
    ]
    if lines:
        raise ValueError(
            f"process {jax.process_index()} is not of the run of process 0 ({'; '.join(lines)}); "
            "give all processes the same command and the same data"
        )


def resolved(config: Config, workdir: AnyPath, mesh: Mesh) -> Config:
    """Return the config with a number in the place of norm.group_size=-1.

    The number is a device's share of the batch at the run's first start. It fixes the mathematics,
    whatever devices the run is resumed on.
    Raises: ValueError if a network cannot be normalised by so few examples.
    """
    if shard.group_size(config) != -1:
        return config
    config = config.copy_and_resolve_references()
    config.norm.group_size = config.batch_size // config.accumulate // mesh.shape[shard.DATA]
    saved = workdir / "config.json"
    if saved.exists():
        number = configs.flatten(directory.read(saved))["norm.group_size"]
        config.norm.group_size = number if number > 0 else config.norm.group_size
    configs.check(config)
    return config.lock()


@distributed.by_first
def say(line: str) -> None:
    """Tell the user a line."""
    print(line, flush=True)
