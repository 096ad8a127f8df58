"""The types of an image classification data set: splits, description, and what a loader returns."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, UInt8

from resnet_jax.data.records import Labelled, Records


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Decoded examples in memory (or in a memory-mapped file), in the data set's own order."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(h, w, c) of an image."""
        return self.images.shape[1:]

    def read(self, indices: Int[np.ndarray, "k b"], fit: Any = None) -> list[Labelled]:
        """Images and labels as `Records.read` returns them, so that a Split can be streamed too."""
        return [(self.images[row], self.labels[row]) for row in indices]

    def relabelled(self, labels: Int32[np.ndarray, "y"]) -> "Split":
        """The split with labels[y] in the place of each label y."""
        return Split(self.images, labels[self.labels])


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Some rows of a split that is read as needed."""

    examples: Records | Split
    rows: Int32[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> Any:
        """(h, w, c) of an image; h and w may be None."""
        return self.examples.shape

    def read(self, indices: Int[np.ndarray, "k b"], fit: Any = None) -> list[Labelled]:
        """Images and labels of rows of the subset, as `Records.read` returns them."""
        return self.examples.read(self.rows[indices], fit)


# A split in any form; all have `shape`, `len` and `read`.
Examples = Records | Split | Subset


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """The description of a data set: shape (h, w, c) of an image, and examples in each split.

    Height and width are None if images differ in size; such a data set can only be streamed. A data
    set without the split `train` can be evaluated on, and not trained on.
    """

    name: str
    version: str
    shape: tuple[int | None, int | None, int]
    num_classes: int
    splits: dict[str, int]

    @property
    def test_split(self) -> str:
        """The split that errors are measured on: `test`, or `validation` if there is no `test`."""
        return "test" if self.splits.get("test") else "validation"

    @property
    def used_splits(self) -> tuple[str, ...]:
        """The splits that are read: `train`, if there is one, and the test split."""
        return ("train", self.test_split) if self.splits.get("train") else (self.test_split,)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set that is held in memory and on the device, or `streamed` to the device in batches.

    The fingerprint has two parts, separated by a plus sign. The first part changes with the name,
    the version, and the files' names and sizes; the second part changes with the content. Data that
    are only read as needed have the first part only, and data without record files the second.
    """

    info: DatasetInfo
    train: Any  # Examples; None if the data set has only a test split
    test: Examples
    fingerprint: str
    streamed: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """The result of a loader: a data set that has been looked up, whose images are not read yet.

    examples: the split of this name, `train` or `info.test_split`.
    class_names: the names of the classes in order, () if the data set has none.
    fingerprint: a digest of the description and the files' sizes, which does not read the images.
        None if `examples` returns a Split; the fingerprint is then a digest of its content.
    All three raise ValueError if a file is missing or damaged.
    """

    info: DatasetInfo
    examples: Callable[[str], Examples]
    class_names: Callable[[], tuple[str, ...]] = lambda: ()
    fingerprint: Callable[[], str] | None = None
