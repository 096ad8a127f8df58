"""The best epoch by the validation split: it is known by its score, and its checkpoint is kept.

    best/checkpoints/STEP/    a checkpoint, as in the run's own directory
    best/saved.jsonl          {"step": STEP}, the best steps until now

The newest of these steps is the best. The directory has the form of a run's, so that the same code
saves, finds and restores its checkpoints.
"""

import math
from typing import Any, NamedTuple

from resnet_jax import distributed
from resnet_jax.run import checkpoint, directory, records
from resnet_jax.run.checkpoint import Checkpoints, Found
from resnet_jax.run.directory import AnyPath
from resnet_jax.run.start import say

SPLIT = "validation"


class Score(NamedTuple):
    """The lowest score of the validation split, and the first step that had it."""

    score: float
    step: int | None


def of_records(lines: list[dict[str, Any]], score: str) -> Score:
    """Return the best of a run's records; without records of the split, infinity and None."""
    scores = [(line[score], line["step"]) for line in lines if line["split"] == SPLIT]
    return Score(*min(scores, default=(math.inf, None)))


class Best:
    """The best score of a run until now. Use it as a context: leaving it waits for the last save.

    `step` is the step at which the run begins or goes on. Checkpoints of later steps are removed,
    because the run will come to these steps again.
    """

    def __init__(self, workdir: AnyPath, score: str, step: int):
        self._folder, self._score = workdir / "best", score
        lines = [line for line in records.read(workdir / "metrics.jsonl") if line["step"] <= step]
        self.best = of_records(lines, score)
        checkpoint.cut(self._folder, step)
        found = Found(None, {}, [])
        if distributed.first():
            try:
                found = checkpoint.find(self._folder)
            except OSError as error:  # the run itself can go on
                say(f"warning: {error}: the best epoch until step {step} is lost")
        self._checkpoints = Checkpoints(self._folder, found)

    def __enter__(self) -> "Best":
        self._checkpoints.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._checkpoints.__exit__(*error)

    def note(self, step: int, means: dict[str, float], state: Any) -> None:
        """Save `state` if its score in `means` is lower than every earlier one."""
        if means[self._score] < self.best.score:
            self.best = Score(means[self._score], step)
            self._checkpoints.save(step, state)


def find(workdir: AnyPath) -> Found:
    """Return the checkpoints of the best steps.

    Raises: ValueError if the run has none; OSError if none of them is good.
    """
    if not directory.read(workdir / "config.json").get("data", {}).get("validation"):
        raise ValueError(
            f"{workdir} has no best epoch: its config has data.validation=0, and only a validation "
            "split can choose one"
        )
    found = checkpoint.find(workdir / "best")
    if found.step is None:
        raise ValueError(f"{workdir} has no best epoch yet: it has not been evaluated")
    return found
