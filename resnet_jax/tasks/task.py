"""What a task is: its examples, its data, what happens to a batch, and what is measured.

The training code (training/) works with the types of this file and knows no image, label or class.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from flax import struct

from resnet_jax.keys import Config, Part

# Sums over the counted examples of a batch: `loss`, `examples` (the count that all are divided by)
# and the scores.
Sums = dict[str, Any]
# JSON of what was computed from the training split, for example its mean image.
Statistics = dict[str, Any]


class Example(NamedTuple):
    """What a network sees of an example, what it returns, and what that is measured by.

    `shape` is the shape of the prepared input, `num_outputs` the size of the output, and `target`
    has the shapes and types of the target, an array or a tree of arrays.
    """

    shape: tuple[int, ...]
    num_outputs: int
    target: Any


@struct.dataclass
class Batch:
    """A device's share of a batch; every field is an array, or a tree of arrays, of b rows.

    `row` is each example's place in the global batch: what is drawn at random for an example
    depends on it, and not on how a batch is shared out over devices. `mask` is False for rows that
    do not count.
    """

    # Any: the leaves may also be shapes and shardings, and stacked, if jax maps over the tree.
    input: Any
    target: Any
    row: Any  # (b,) int32
    mask: Any  # (b,) bool


@dataclass(frozen=True, eq=False)
class Arrays:
    """A split in memory: trees of NumPy arrays whose first axis is the examples."""

    input: Any
    target: Any

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.target)[0])


@dataclass(frozen=True, eq=False)
class Generated:
    """A split without a data set: `generate(key)` makes an example (input, target) on the device.

    `examples` is the length of an epoch, and the size of the test split.
    """

    generate: Callable[[Any], tuple[Any, Any]]
    examples: int

    def __len__(self) -> int:
        return self.examples


@runtime_checkable
class Streamed(Protocol):
    """A split that is read while it is trained on; each process reads its own rows of a batch.

    Its batches are iterators and context managers: leaving the context ends what reads ahead.
    """

    def __len__(self) -> int: ...

    @property
    def example(self) -> tuple[Any, Any]:
        """The shapes and types of an example (input, target) as it is read."""
        ...

    def train(
        self, seed: int, first: int, last: int, batch_size: int, rows: np.ndarray, threads: int
    ) -> Any:
        """Return the batches (input, target) of the steps from `first` to `last` - 1."""
        ...

    def evaluate(self, batch_size: int, rows: np.ndarray) -> Any:
        """Return batches (input, target, mask) that hold every example once."""
        ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set as the training code takes it.

    `fingerprint` changes with its content. `test_split` is the name of the split that is measured.
    `chance()` computes the score of the best constant prediction. `train` is None if the data set
    has only a test split, or if only that was asked for. `validation` is a part of the training
    data that is set aside; by its score the best epoch is chosen.
    """

    train: Any  # Arrays, Generated or Streamed; a Protocol cannot be checked at run time
    test: Any
    fingerprint: str
    chance: Callable[[], float]
    test_split: str = "test"
    validation: Any = None

    @property
    def streamed(self) -> bool:
        """Whether the data set is read while it is trained on."""
        return not isinstance(self.test, Arrays | Generated)


# (key, batch) -> batch: the network's input, and the target that it is measured by. The key is the
# step's; it is None in evaluation, when nothing is drawn at random.
Prepare = Callable[[Any, Batch], Batch]


@dataclass(frozen=True, eq=False)
class Task(Part):
    """What a network is trained to do. `build(config)` loads the data set, a Dataset.

    `build_test(config, statistics)` loads only what a run is measured on, its test split, with
    targets as the run counts them that saved these statistics; it is `build` if it is None.
    Every task has the key data.shape, from which families choose their presets.
    `example(config)` describes an example. `statistics(config, dataset)` computes from the training
    split what `prepare(config, statistics)` needs, as JSON that is saved with the run; `prepare`
    returns the function that turns a batch of the data set into the network's input and target.
    `unit(config)` divides the number of examples that a device prepares at a time.
    `measure(output, batch)` returns sums over the examples of the mask: `loss`, whose mean is
    minimised, `examples`, and the scores. `evaluation` is `measure` with the further scores of the
    command `evaluate`, and `protocol` names how that command shows an example to the network.
    `score` names the column that logs, tables and figures show, and `shown` is its format.
    """

    example: Callable[[Config], Example] = lambda config: Example((), 0, None)
    build_test: Callable[[Config, Statistics], Dataset] | None = None
    statistics: Callable[[Config, Dataset], Statistics] = lambda config, dataset: {}
    unit: Callable[[Config], int] = lambda config: 1
    prepare: Callable[[Config, Statistics], Prepare] = lambda config, statistics: (
        lambda key, batch: batch
    )
    measure: Callable[[Any, Batch], Sums] = lambda output, batch: {}
    evaluation: Callable[[Any, Batch], Sums] = lambda output, batch: {}
    protocol: str = "whole"
    score: str = "loss"
    shown: str = ".4f"


def check_batches(config: Config, name: str, examples: int) -> None:
    """Refuse batches and chunks that are larger than the training split.

    A chunk of more than an epoch would leave the error over the last epoch unknown.
    Raises: ValueError with a value that satisfies all rules.
    """
    if config.batch_size > examples:
        raise ValueError(
            f"batch_size={config.batch_size} is larger than the training split of {name}, "
            f"{examples}; use --config.batch_size={max(1, examples // config.chunk_steps)} or less"
        )
    most = examples // config.batch_size
    if config.chunk_steps > most:
        every = np.gcd(config.eval_every, config.checkpoint_every)
        fits = max(n for n in range(1, most + 1) if every % n == 0)
        raise ValueError(
            f"chunk_steps={config.chunk_steps} is more than an epoch of {name}, {most} steps; "
            f"use --config.chunk_steps={fits}, which divides eval_every={config.eval_every} and "
            f"checkpoint_every={config.checkpoint_every}"
        )
