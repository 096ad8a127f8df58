"""Examples of a tfds split in array_record files, read and decoded by index from any thread."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt8

from resnet_jax.data import example
from resnet_jax.data.images import decode, decode_exactly, decode_usual, usual

# The most bytes of images that are worth reading at a time: more keep memory and others waiting.
READ_BYTES = 12 << 20

Images = UInt8[np.ndarray, "b h w c"]
Labelled = tuple[Images, Int32[np.ndarray, "b"]]
# Position in what is read, and its image of any size -> an image of the size that is wanted.
Fit = Callable[[int, UInt8[np.ndarray, "h w c"]], UInt8[np.ndarray, "high wide c"]]


class Files(NamedTuple):
    """Of examples: their labels, which image files are `images.usual`, and these in their order."""

    labels: np.ndarray
    usual: np.ndarray
    files: Iterator[bytes]


class Records:
    """A split by index; `shape` is (h, w, c) of its images, h and w None where they differ."""

    def __init__(
        self,
        name: str,
        split: str,
        files: Sequence[tuple[Path, int]],
        shape: tuple[int | None, int | None, int],
        num_classes: int,
        keep: bool = False,
    ):
        """`files` are the record files in order, each with its number of examples.

        `keep`: image files stay in memory, encoded as they are, once they have been read.
        """
        self.shape = shape
        self.name = f"data set {name!r}, split {split!r}"
        self._num_classes = num_classes
        self.record_files = files
        self._ends = np.cumsum([count for _, count in files])
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._kept = [b""] * (len(self) if keep else 0)
        self._known = np.zeros(len(self._kept), bool)
        self._usual = np.zeros(len(self._kept), bool)
        self._labels = np.empty(len(self._kept), np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, indices: Int[np.ndarray, "k b"], fit: Fit | None = None) -> list[Labelled]:
        """Images and labels of k times b examples.

        Without `fit` all images have to be of the split's shape.
        Raises: ValueError with split, index and record file of an example that is damaged, of
            another size or of no class.
        """
        labels, usual, files = self.files(indices.ravel())
        wrong = np.flatnonzero((labels < 0) | (labels >= self._num_classes))
        if wrong.size:
            says = f"its label {labels[wrong[0]]} is not in 0..{self._num_classes - 1}"
            raise self._refusal(indices.ravel()[wrong[0]], says)
        found = []
        for row, numbers in enumerate(indices):
            part = slice(row * len(numbers), (row + 1) * len(numbers))
            group = list(itertools.islice(files, len(numbers)))
            together = fit is None and bool(usual[part].all())
            images = self._decode(numbers, part.start, group, fit, together)
            found.append((images, labels[part].astype(np.int32)))
        return found

    def _decode(
        self,
        indices: Int[np.ndarray, "b"],
        first: int,
        files: Sequence[bytes],
        fit: Fit | None,
        together: bool,
    ) -> Images:
        """Images of these files, of which the first is at `first` in what is read."""
        shape: Any = self.shape
        if together:
            # Where one is damaged, which one shows when each is decoded alone.
            with contextlib.suppress(ValueError):
                return decode_usual(files, shape)
        images = []
        for at, (index, file) in enumerate(zip(indices, files, strict=True), first):
            try:
                if fit is None:
                    images.append(decode_exactly(file, shape))
                else:
                    images.append(fit(at, decode(file, shape[-1])))
            except Exception as error:  # every codec raises kinds of its own
                raise self._refusal(index, error) from error
        return np.stack(images)

    def files(self, indices: Int[np.ndarray, "n"]) -> Files:
        """Labels and image files of these examples."""
        if not self._kept:
            return self._fetch(indices)
        new = indices[~self._known[indices]]
        if new.size:
            self._labels[new], self._usual[new], files = self._fetch(new)
            for index, file in zip(new.tolist(), files, strict=True):
                self._kept[index] = file
            self._known[new] = True
        # Each is looked up when it is wanted: of a whole block they would have left the cache.
        files = map(self._kept.__getitem__, indices.tolist())
        return Files(self._labels[indices], self._usual[indices], files)

    def _fetch(self, indices: Int[np.ndarray, "n"]) -> Files:
        """The same, from the record files."""
        try:
            labels, files = _label_and_file(self._raw(indices))
        except Exception:  # the reader raises kinds of its own, and does not say where
            alone = [self._fetch_one(index) for index in indices]
            labels, files = zip(*alone, strict=True)
        return Files(np.array(labels), usual(files, self.shape), iter(files))

    def _fetch_one(self, index: Any) -> tuple[int, bytes]:
        try:
            labels, files = _label_and_file(self._raw(np.array([index])))
        except Exception as error:
            raise self._refusal(index, error) from error
        return int(labels[0]), files[0]

    def _refusal(self, index: Any, why: object) -> ValueError:
        file, at = self._place(int(index))
        path, _ = self.record_files[file]
        return ValueError(f"{self.name}, example {index}: {one_line(why)} (record {at} of {path})")

    def _place(self, index: int) -> tuple[int, int]:
        """The record file of an example, and where it is in it."""
        file = int(np.searchsorted(self._ends, index, side="right"))
        return file, index - self.first(file)

    def first(self, file: int) -> int:
        """The index of this record file's first example."""
        return int(self._ends[file - 1]) if file else 0

    def _raw(self, indices: Int[np.ndarray, "n"]) -> list[bytes]:
        """The examples as they are stored."""
        files = np.searchsorted(self._ends, indices, side="right")
        found = np.empty(len(indices), object)
        for file in np.unique(files).tolist():
            here = np.flatnonzero(files == file)
            found[here] = self.open(file).read((indices[here] - self.first(file)).tolist())
        return found.tolist()

    def open(self, file: int) -> Any:
        """The reader of this record file, opened once.

        Raises: ValueError for a file that is not there, damaged as a whole, or of another number of
            examples than the data set says.
        """
        with self._lock:
            if file not in self._readers:
                self._readers[file] = _open(*self.record_files[file])
            return self._readers[file]


def _open(path: Path, count: int) -> Any:
    # Imported here: not to be had on Windows.
    from array_record.python.array_record_module import (  # pyright: ignore[reportMissingImports]
        ArrayRecordReader,
    )

    if not path.is_file():
        raise ValueError("its record file is missing")
    # Nothing is read ahead, because what comes next is anywhere: about one record at a time.
    size = max(1024, 2 * path.stat().st_size // max(1, count))
    reader = ArrayRecordReader(
        str(path), options="readahead_buffer_size:0", file_reader_buffer_size=size
    )
    found = reader.num_records()
    if found != count:
        # A file that is cut off opens as one of no records, and reads as empty ones.
        raise ValueError(
            f"its record file holds {found or 'no'} examples, not the {count} that "
            f"dataset_info.json says{'' if found else ': it is damaged, or cut off'}"
        )
    return reader


def _label_and_file(records: list[bytes]) -> tuple[np.ndarray, list[bytes]]:
    labels, *places = example.parse(records)
    begins, ends = (place.tolist() for place in places)
    return labels, [r[a:b] for r, a, b in zip(records, begins, ends, strict=True)]


def one_line(why: object) -> str:
    """A library's words without their line breaks."""
    return " ".join(str(why).split())
