"""The clean training error of a finished run: without augmentation, with running statistics.

The training error of the records is that which the network had while it was trained: on augmented
images, with the statistics of the batch in the norms, and before the update that followed. The
clean error is that of the finished network on the training images, as in evaluation.
"""

import contextlib
import json
from typing import Any

from experiments.plan import Run
from resnet_jax import evaluate, trained
from resnet_jax.run import directory
from resnet_jax.tasks import TASKS

FILE = "clean.json"  # in the run's directory: {"step": its last step, "seeds": [the means]}


def clean(run: Run) -> list[dict[str, Any]]:
    """Return the means of the task's measure over the training split, for each seed of a run.

    They are measured once, and then read from the run's directory. They are {} for a network whose
    loss is not finite in evaluation, which the statistics of its batches may hide in training.
    Raises: ValueError if the run has no checkpoint; OSError if its checkpoints are damaged.
    """
    path = run.workdir / FILE
    kept = directory.read(path) if path.exists() else {}
    if kept.get("step") != run.config.steps:
        kept = {
            "step": run.config.steps,
            "seeds": [_measured(run, i) for i in range(len(run.seeds))],
        }
        with contextlib.suppress(PermissionError):  # a run of another user
            directory.write(path, json.dumps(kept) + "\n")
    return kept["seeds"]


def _measured(run: Run, replica: int) -> dict[str, Any]:
    opened = trained.load(run.workdir, run.config.data.get("dir"), replica)
    dataset = TASKS[run.config.task].build(opened.config)
    try:
        means = evaluate.evaluate(opened, dataset, trained.statistics(opened), "train")
    except FloatingPointError:
        return {}
    return {name: value for name, value in means.items() if isinstance(value, float)}
