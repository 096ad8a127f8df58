"""Splits of encoded images that are read and decoded by index, from any thread."""

import abc
import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt8

from resnet_jax.data.images import decode, decode_exactly, decode_usual, usual

# The bytes of images to read at a time: larger blocks use more memory and keep consumers waiting.
READ_BYTES = 12 << 20
# The examples whose labels are read at a time.
LABELS = 256

Images = UInt8[np.ndarray, "b h w c"]
Labelled = tuple[Images, Int32[np.ndarray, "b"]]
# (position in the read, decoded image of any size) -> an image of the wanted size.
Fit = Callable[[int, UInt8[np.ndarray, "h w c"]], UInt8[np.ndarray, "fit_h fit_w c"]]


class Files(NamedTuple):
    """Labels of examples, the mask `images.usual` of their image files, and the files in order."""

    labels: np.ndarray
    usual: np.ndarray
    files: Iterator[bytes]


class Store(abc.ABC):
    """The labels and encoded images of a split, by index; threads may use it at the same time."""

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def read(self, indices: Int[np.ndarray, "n"]) -> tuple[np.ndarray, Sequence[bytes]]:
        """Labels and image files of these examples. Raises: any Exception if one is damaged."""

    def labels(self, indices: Int[np.ndarray, "n"]) -> np.ndarray:
        """Labels of these examples. Raises: any Exception if an example is damaged."""
        return self.read(indices)[0]

    def label_bytes(self) -> int:
        """Bytes that are read for the labels of all examples; 0 if they are in memory."""
        return 0

    @abc.abstractmethod
    def place(self, index: int) -> str:
        """Where an example is stored, for error messages: 'record 2 of PATH' or PATH."""

    def parts(self) -> Iterator[tuple[range, str]]:
        """(indices, problem) of each file that holds many examples; '' if the file can be opened.

        A store without such files is a single part.
        """
        yield range(len(self)), ""


class Records:
    """A split by index; `shape` is (h, w, c) of its images, h and w None if images differ in size.

    `name` describes data set and split in error messages.
    """

    def __init__(
        self,
        name: str,
        split: str,
        store: Store,
        shape: tuple[int | None, int | None, int],
        num_classes: int,
        keep: bool = False,
    ):
        """Make a split of the examples in `store`.

        keep: image files stay in memory, encoded, after they have been read.
        """
        self.shape = shape
        self.name = f"data set {name!r}, split {split!r}"
        self.store = store
        self._num_classes = num_classes
        self._new_labels: np.ndarray | None = None
        self._kept = [b""] * (len(self) if keep else 0)
        self._is_kept = np.zeros(len(self._kept), bool)
        self._usual = np.zeros(len(self._kept), bool)
        self._labels = np.empty(len(self._kept), np.int64)

    def __len__(self) -> int:
        return len(self.store)

    def read(self, indices: Int[np.ndarray, "k b"], fit: Fit | None = None) -> list[Labelled]:
        """Images and labels of k batches of b examples.

        `fit` brings each image to the wanted size. Without it all images must have the split's
        shape.
        Raises: ValueError with split, index and file if an example is damaged, has another size, or
            has a label outside the classes.
        """
        labels, usual, files = self.files(indices.ravel())
        wrong = np.flatnonzero((labels < 0) | (labels >= self._num_classes))
        if wrong.size:
            problem = f"its label {labels[wrong[0]]} is not in 0..{self._num_classes - 1}"
            raise self._error(indices.ravel()[wrong[0]], problem)
        batches = []
        for row, numbers in enumerate(indices):
            part = slice(row * len(numbers), (row + 1) * len(numbers))
            group = list(itertools.islice(files, len(numbers)))
            together = fit is None and bool(usual[part].all())
            images = self._decode(numbers, part.start, group, fit, together)
            own = labels[part] if self._new_labels is None else self._new_labels[labels[part]]
            batches.append((images, own.astype(np.int32)))
        return batches

    def relabelled(self, labels: Int32[np.ndarray, "y"]) -> "Records":
        """The split with labels[y] in the place of each label y that `read` returns."""
        other = copy.copy(self)
        other._new_labels = labels
        return other

    def labels(self, indices: Int[np.ndarray, "n"]) -> Int32[np.ndarray, "m"]:
        """Labels of these examples; those outside the classes are left out.

        Raises: ValueError with split, index and file if an example is damaged.
        """
        blocks = [indices[i : i + LABELS] for i in range(0, len(indices), LABELS)]
        read = np.concatenate([self._only_labels(block) for block in blocks])
        return read[(read >= 0) & (read < self._num_classes)].astype(np.int32)

    def _only_labels(self, indices: Int[np.ndarray, "n"]) -> np.ndarray:
        try:
            return np.asarray(self.store.labels(indices))
        except Exception:  # `_fetch` finds out which example it is
            return self._fetch(indices).labels

    def _decode(
        self,
        indices: Int[np.ndarray, "b"],
        first: int,
        files: Sequence[bytes],
        fit: Fit | None,
        together: bool,
    ) -> Images:
        """The images in these files; the first file has position `first` in the read."""
        shape: Any = self.shape
        if together:
            # If a file is damaged, the loop below decodes them one by one and tells which.
            with contextlib.suppress(ValueError):
                return decode_usual(files, shape)
        images = []
        for position, (index, file) in enumerate(zip(indices, files, strict=True), first):
            try:
                if fit is None:
                    images.append(decode_exactly(file, shape))
                else:
                    images.append(fit(position, decode(file, shape[-1])))
            except Exception as error:  # every codec raises its own types
                raise self._error(index, error) from error
        return np.stack(images)

    def files(self, indices: Int[np.ndarray, "n"]) -> Files:
        """Labels and image files of these examples."""
        if not self._kept:
            return self._fetch(indices)
        new = indices[~self._is_kept[indices]]
        if new.size:
            self._labels[new], self._usual[new], files = self._fetch(new)
            for index, file in zip(new.tolist(), files, strict=True):
                self._kept[index] = file
            self._is_kept[new] = True
        # The files are looked up lazily: a whole block of them would fall out of the CPU's cache.
        files = map(self._kept.__getitem__, indices.tolist())
        return Files(self._labels[indices], self._usual[indices], files)

    def _fetch(self, indices: Int[np.ndarray, "n"]) -> Files:
        """Labels and image files of these examples, read from the store."""
        try:
            labels, files = self.store.read(indices)
        except Exception:  # the store raises any type, and may not tell which example it is
            singles = [self._fetch_one(index) for index in indices]
            labels, files = zip(*singles, strict=True)
        return Files(np.array(labels), usual(files, self.shape), iter(files))

    def _fetch_one(self, index: Any) -> tuple[int, bytes]:
        try:
            labels, files = self.store.read(np.array([index]))
        except Exception as error:
            raise self._error(index, error) from error
        return int(labels[0]), files[0]

    def _error(self, index: Any, problem: object) -> ValueError:
        place = self.store.place(int(index))
        return ValueError(f"{self.name}, example {index}: {one_line(problem)} ({place})")


def one_line(text: object) -> str:
    """The text, for example of an exception, without line breaks."""
    return " ".join(str(text).split())
