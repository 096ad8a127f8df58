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
    """Return the best score in a run's records: infinity and None without a validation record."""
    scores = [(line[score], line["step"]) for line in lines if line["split"] == SPLIT]
    return Score(*min(scores, default=(math.inf, None)))


def _of_step(lines: list[dict[str, Any]], score: str, step: int | None) -> Score:
    """Return the score of one step: infinity and None if it has no validation record."""
    return of_records([line for line in lines if line["step"] == step], score)


class Best:
    """The best score of a run until now. Use it as a context: leaving it waits for the last save.

    `step` is the step at which the run begins or goes on. Checkpoints of later steps are removed,
    because the run will come to these steps again. A best epoch whose checkpoint is lost is
    forgotten, so that the next one is saved.
    """

    def __init__(self, workdir: AnyPath, score: str, step: int):
        self._folder, self._score = workdir / "best", score
        checkpoint.cut(self._folder, step)
        found = Found(None, {}, [])
        if distributed.first():
            try:
                found = checkpoint.find(self._folder)
            except OSError as error:  # the run itself can go on
                say(f"warning: {error}: no best epoch until step {step} is left")
        kept = distributed.agree(found.step)
        self.best = _of_step(records.read(workdir / "metrics.jsonl"), score, kept)
        self._checkpoints = Checkpoints(self._folder, found)

    def __enter__(self) -> "Best":
        self._checkpoints.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._checkpoints.__exit__(*error)

    def note(self, step: int, means: dict[str, float], state: Any) -> bool:
        """Save `state` if its score in `means` is lower than every earlier one; return whether.

        The caller then saves the run's own checkpoint at this step, too. Without it a run might go
        on from a step before the best one, and `best/`, which keeps two checkpoints, might no
        longer have the best one of that time.
        """
        if means[self._score] >= self.best.score:
            return False
        self.best = Score(means[self._score], step)
        self._checkpoints.save(step, state)
        return True


def find(workdir: AnyPath, score: str) -> Found:
    """Return the checkpoints of the best steps, with a warning if a better one is lost.

    Raises: ValueError if the run has none; OSError if none of them is good.
    """
    config = directory.read(workdir / "config.json")
    if not config.get("data", {}).get("validation"):
        raise ValueError(
            f"{workdir} has no best epoch: only a validation split can choose one, and its config "
            "has none (data.validation)"
        )
    found = checkpoint.find(workdir / "best")
    if found.step is None:
        raise ValueError(f"{workdir} has no checkpoint of a best epoch; train it further")
    if lost := better_than(workdir, score, found.step):
        say(f"warning: {lost}; step {found.step} is used")
    return found


def better_than(workdir: AnyPath, score: str, step: int) -> str:
    """Return a sentence about a better step than `step` whose checkpoint is lost, or ""."""
    lines = records.read(workdir / "metrics.jsonl")
    lowest = of_records(lines, score)
    if lowest.step is None or lowest.score >= _of_step(lines, score, step).score:
        return ""
    return f"step {lowest.step} had a lower validation {score}, and its checkpoint is lost"
