"""The clean training error of a finished run: without augmentation, with running statistics.

The training error of the records is that which the network had while it was trained: on augmented
images, with the statistics of the batch in the norms, and before the update that followed. The
clean error is that of the finished network on the training images, as in evaluation.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.plan import Run
from resnet_jax import evaluate, trained
from resnet_jax.run import directory
from resnet_jax.tasks import TASKS

FILE = "clean.json"  # in the run's directory: {"step": its last step, "seeds": [the means]}
Means = list[dict[str, Any]]


def clean(run: Run) -> Means:
    """Return the means of the task's measure over the training split, for each seed of a run.

    They are read from the run's directory if `measure` has been there. They are {} for a network
    whose loss is not finite in evaluation, which the statistics of its batches may hide in
    training.
    Raises: ValueError if the run has no checkpoint; OSError if its checkpoints are damaged.
    """
    kept = _read(run)
    return next(_measured([run])) if kept is None else kept


def measure(runs: Sequence[Run]) -> None:
    """Measure the runs that have no clean error yet, and keep it in their directories.

    Runs that differ in their seed alone share a compiled program.
    Raises: as `clean`.
    """
    alike: dict[str, list[Run]] = {}
    for run in runs:
        if _read(run) is None:
            alike.setdefault(run.model, []).append(run)
    for same in alike.values():
        for run, seeds in zip(same, _measured(same), strict=True):
            with contextlib.suppress(PermissionError):  # a run of another user
                kept = {"step": run.config.steps, "seeds": seeds}
                directory.write(run.workdir / FILE, json.dumps(kept) + "\n")


def _read(run: Run) -> Means | None:
    path = run.workdir / FILE
    kept = directory.read(path) if path.exists() else {}
    return kept["seeds"] if kept.get("step") == run.config.steps else None


def _measured(runs: Sequence[Run]) -> Iterator[Means]:
    """Yield what `clean` returns of each run; the runs differ in their seed alone."""
    means_of = None
    for run in runs:
        seeds = []
        for replica in range(len(run.seeds)):
            opened = trained.load(run.workdir, run.config.data.get("dir"), replica)
            if means_of is None:
                dataset = TASKS[run.config.task].build(opened.config)
                statistics = trained.statistics(opened)
                means_of = evaluate.compiled(opened, dataset, statistics, "train")
            means: dict[str, Any] = {}
            with contextlib.suppress(FloatingPointError):
                means = means_of(opened)
            seeds.append({name: mean for name, mean in means.items() if isinstance(mean, float)})
        yield seeds
