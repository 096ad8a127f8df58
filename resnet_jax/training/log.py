"""What a run records of its chunks, and how it ends where a step is not finite."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from resnet_jax import config as configs
from resnet_jax import distributed
from resnet_jax.config import Config
from resnet_jax.training import metrics
from resnet_jax.training.directory import AnyPath
from resnet_jax.training.optimizer import schedule
from resnet_jax.training.state import TrainState

# Steps in a row that nonfinite=skip may skip.
HOPELESS = 10

# What a run that diverged says last.
ADVICE = (
    "earlier checkpoints are kept. A lower optimizer.learning_rate or a longer "
    "schedule.warmup_steps may help"
)


@dataclasses.dataclass
class Log:
    """A run's metrics.jsonl, and the same in TensorBoard where there is a `board`.

    `diagnose(state, step, replica)` says what was not finite in a step.
    """

    path: AnyPath
    config: Config
    board: Any
    diagnose: Callable[[TrainState, int, int], str]
    pending: list[tuple[int, Mapping[str, Any]]] = dataclasses.field(default_factory=list)
    in_a_row: Any = 0  # skipped steps, up to now, of each seed

    @property
    def seeds(self) -> range:
        """One a replica."""
        return configs.seeds(self.config)

    def add(self, at: int, sums: Mapping[str, Any]) -> None:
        """A chunk that was dispatched, and ends at step `at`."""
        self.pending.append((at, sums))

    def flush(self, state: TrainState) -> None:
        """Fetch and write what was added.

        Raises: FloatingPointError where a step was not finite, and where too many were skipped.
            Then `state`, the newest, is still that from before the step.
        """
        while self.pending:
            at, sums = self.pending.pop(0)
            sums = dict(distributed.fetch(sums))
            each = {name: found.reshape(len(self.seeds), -1) for name, found in sums.items()}
            if self.config.nonfinite == "stop":
                self._stop(state, at, each)
                sums.pop("skipped")
            self._count(at, each["skipped"] > 0)
            self.write(at, "train", metrics.means(sums, len(self.seeds)))

    def _stop(self, state: TrainState, at: int, each: dict[str, np.ndarray]) -> None:
        bad = np.argwhere(each["skipped"].T > 0)
        if not bad.size:
            return
        index, replica = bad[0].tolist()
        loss, step = each["loss"][replica, index], at - each["loss"].shape[1] + index + 1
        whose = f" of seed {self.seeds[replica]}" if len(self.seeds) > 1 else ""
        what = f"the training loss{whose} is {loss} at step {step}"
        if np.isfinite(loss):
            what = f"step {step}{whose} is not finite"
        raise FloatingPointError(
            f"{what}; {self.diagnose(state, step, replica)}; {ADVICE}, or nonfinite=skip where "
            "such steps are few"
        )

    def _count(self, at: int, skipped: np.ndarray) -> None:
        for column in skipped.T:
            self.in_a_row = np.where(column, self.in_a_row + 1, 0)
            if np.max(self.in_a_row) >= HOPELESS:
                raise FloatingPointError(
                    f"{HOPELESS} steps in a row were not finite and were skipped, before step "
                    f"{at}; {ADVICE}"
                )

    def write(self, at: int, split: str, means: list[dict[str, Any]]) -> None:
        """The records of a split at step `at`, one a seed.

        Raises: FloatingPointError where a loss is not finite.
        """
        for seed, found in zip(self.seeds, means, strict=True):
            if not math.isfinite(found.get("loss", 0)):
                raise FloatingPointError(
                    f"the {split} loss of seed {seed} is {found['loss']} after step {at}; {ADVICE}"
                )
        records = [
            {"step": at, "split": split, "seed": seed, **found}
            for seed, found in zip(self.seeds, means, strict=True)
        ]
        metrics.append(self.path, records)
        if not self.board:
            return
        for record in records:
            place = f"{split}/seed{record['seed']}" if len(records) > 1 else split
            for name in record.keys() & {"loss", "error"}:
                self.board.add_scalar(f"{place}/{name}", record[name], at)
        if split == "train":
            rate = float(np.asarray(schedule(self.config)(at - 1)))
            self.board.add_scalar("learning_rate", rate, at)
