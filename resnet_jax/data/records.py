"""Examples of a tfds split in array_record files, read and decoded by index from any thread."""

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, UInt8

from resnet_jax.data import example
from resnet_jax.data.images import decode, decode_into

# Position in what is read, and its image of any size -> an image of the size that is wanted.
Fit = Callable[[int, UInt8[np.ndarray, "h w c"]], UInt8[np.ndarray, "high wide c"]]


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
        self._kept: list[bytes | None] = [None] * (len(self) if keep else 0)
        self._labels = np.empty(len(self._kept), np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(
        self,
        indices: Int[np.ndarray, "n"],
        images: Iterable[UInt8[np.ndarray, "h w c"]],
        fit: Fit | None = None,
    ) -> Int32[np.ndarray, "n"]:
        """Decode these examples' images into `images`, and return their labels.

        Without `fit` an image has to be of the size of its place in `images`.
        Raises: ValueError with split, index and record file of an example that is damaged, of
            another size or of no class.
        """
        labels, files = self.files(indices)
        at = 0
        try:
            for at, (file, image) in enumerate(zip(files, images, strict=True)):
                if fit is None:
                    decode_into(file, image)
                else:
                    image[:] = fit(at, decode(file, self.shape[-1]))
        except Exception as error:  # every codec raises kinds of its own
            raise self._refusal(indices[at], error) from error
        wrong = np.flatnonzero((labels < 0) | (labels >= self._num_classes))
        if wrong.size:
            says = f"its label {labels[wrong[0]]} is not in 0..{self._num_classes - 1}"
            raise self._refusal(indices[wrong[0]], says)
        return labels.astype(np.int32)

    def files(self, indices: Int[np.ndarray, "n"]) -> tuple[np.ndarray, list[bytes]]:
        """Labels and image files of these examples."""
        if not self._kept:
            return self._fetch(indices)
        files = [self._kept[i] for i in indices.tolist()]
        new = [at for at, file in enumerate(files) if file is None]
        if new:
            self._labels[indices[new]], found = self._fetch(indices[new])
            for at, index, file in zip(new, indices[new].tolist(), found, strict=True):
                files[at] = self._kept[index] = file
        return self._labels[indices], files

    def _fetch(self, indices: Int[np.ndarray, "n"]) -> tuple[np.ndarray, list[bytes]]:
        """The same, from the record files."""
        try:
            return _label_and_file(self._raw(indices))
        except Exception:  # the reader raises kinds of its own, and does not say where
            alone = [self._fetch_one(index) for index in indices]
            labels, files = zip(*alone, strict=True)
            return np.array(labels), list(files)

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
