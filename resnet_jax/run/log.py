"""The log of a run: it records the means of every chunk, and ends a run that is not finite."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from resnet_jax import config as configs
from resnet_jax import distributed
from resnet_jax.config import Config
from resnet_jax.run import records
from resnet_jax.run.directory import AnyPath
from resnet_jax.training import metrics
from resnet_jax.training.optimizer import schedule

# With nonfinite=skip a run ends after so many skipped steps in a row.
MOST_SKIPPED_IN_A_ROW = 10

# The last words of a run that diverged.
ADVICE = (
    "earlier checkpoints are kept. A lower optimizer.learning_rate or a longer "
    "schedule.warmup_steps may help"
)


@dataclasses.dataclass
class Log:
    """The records of a run in metrics.jsonl, and its loss, score and learning rate in TensorBoard.

    Attributes:
        path: the file metrics.jsonl.
        config: the config of the run.
        board: where TensorBoard's scalars go; None on processes that write nothing.
        diagnose: (state, step, replica) -> what in the step was not finite. `state` is the state
            before the step.
        score: the column of the task's score, such as "error".
        pending: (last step, sums) of each chunk that was dispatched and is not recorded.
        skipped_in_a_row: the number of skipped steps up to now, for each replica.
    """

    path: AnyPath
    config: Config
    board: Any
    diagnose: Callable[[Any, int, int], str]
    score: str
    pending: list[tuple[int, Mapping[str, Any]]] = dataclasses.field(default_factory=list)
    skipped_in_a_row: Any = 0

    @property
    def seeds(self) -> range:
        """The seed of each replica."""
        return configs.seeds(self.config)

    def add(self, at: int, sums: Mapping[str, Any]) -> None:
        """Add the sums of a chunk that was dispatched and ends at step `at`."""
        self.pending.append((at, sums))

    def flush(self, state: Any) -> None:
        """Wait for the chunks that were added, and record their means.

        `state` is the newest state. If a step of these chunks is not finite and nonfinite=stop,
        `state` still is the state before that step.

        Raises: FloatingPointError if a step is not finite and nonfinite=stop, or if too many steps
            in a row were skipped.
        """
        while self.pending:
            at, device_sums = self.pending.pop(0)
            sums = dict(distributed.fetch(device_sums))
            by_replica = {name: a.reshape(len(self.seeds), -1) for name, a in sums.items()}
            if self.config.nonfinite == "stop":
                self._raise_if_not_finite(state, at, by_replica)
                sums.pop("skipped")
            self._count_skipped(at, by_replica["skipped"] > 0)
            self.write(at, "train", metrics.means(sums, len(self.seeds)))

    def _raise_if_not_finite(self, state: Any, at: int, sums: dict[str, np.ndarray]) -> None:
        bad_steps = np.argwhere(sums["skipped"].T > 0)
        if not bad_steps.size:
            return
        index, replica = bad_steps[0].tolist()
        loss, step = sums["loss"][replica, index], at - sums["loss"].shape[1] + index + 1
        of_seed = f" of seed {self.seeds[replica]}" if len(self.seeds) > 1 else ""
        problem = f"the training loss{of_seed} is {loss} at step {step}"
        if np.isfinite(loss):
            problem = f"step {step}{of_seed} is not finite"
        raise FloatingPointError(
            f"{problem}; {self.diagnose(state, step, replica)}; {ADVICE}, or nonfinite=skip if "
            "such steps are few"
        )

    def _count_skipped(self, at: int, skipped: np.ndarray) -> None:
        for of_replicas in skipped.T:
            self.skipped_in_a_row = np.where(of_replicas, self.skipped_in_a_row + 1, 0)
            if np.max(self.skipped_in_a_row) >= MOST_SKIPPED_IN_A_ROW:
                raise FloatingPointError(
                    f"{MOST_SKIPPED_IN_A_ROW} steps in a row were not finite and were skipped, "
                    f"before step {at}; {ADVICE}"
                )

    def write(self, at: int, split: str, means: list[dict[str, Any]]) -> None:
        """Record the means of a split at step `at`; `means` has an entry for each seed.

        Raises: FloatingPointError if a loss is not finite.
        """
        for seed, seed_means in zip(self.seeds, means, strict=True):
            loss = seed_means.get("loss", 0)
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the {split} loss of seed {seed} is {loss} after step {at}; {ADVICE}"
                )
        rows = [
            {"step": at, "split": split, "seed": seed, **seed_means}
            for seed, seed_means in zip(self.seeds, means, strict=True)
        ]
        records.append(self.path, rows)
        if not self.board:
            return
        for row in rows:
            prefix = f"{split}/seed{row['seed']}" if len(rows) > 1 else split
            for name in dict.fromkeys(("loss", self.score)):
                if name in row:
                    self.board.add_scalar(f"{prefix}/{name}", row[name], at)
        if split == "train":
            rate = float(np.asarray(schedule(self.config)(at - 1)))
            self.board.add_scalar("learning_rate", rate, at)
