"""Examples in array_record files, as tfds writes them."""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from resnet_jax.data import example
from resnet_jax.data.records import Store, one_line

try:
    import resource
except ImportError:  # Windows
    resource = None

# Files that a process may open beside its record files.
SPARE_FILES = 256


class ArrayRecords(Store):
    """The examples of a split in `record_files`: (path, number of examples) in order."""

    def __init__(self, record_files: Sequence[tuple[Path, int]]):
        self.record_files = record_files
        allow_open_files(len(record_files))
        self._ends = np.cumsum([count for _, count in record_files])
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, indices: Int[np.ndarray, "n"]) -> tuple[np.ndarray, list[bytes]]:
        """Labels and image files of these examples. Raises: any Exception if one is damaged."""
        records = self.serialised(indices)
        labels, *positions = example.parse(records)
        begins, ends = (position.tolist() for position in positions)
        return labels, [r[a:b] for r, a, b in zip(records, begins, ends, strict=True)]

    def serialised(self, indices: Int[np.ndarray, "n"]) -> list[bytes]:
        """The examples as they are stored: serialised tf.train.Example messages."""
        files = np.searchsorted(self._ends, indices, side="right")
        records = np.empty(len(indices), object)
        for file in np.unique(files).tolist():
            rows = np.flatnonzero(files == file)
            reader = self._open(file)
            records[rows] = reader.read((indices[rows] - self._first(file)).tolist())
        return records.tolist()

    def label_bytes(self) -> int:
        """Bytes of the record files: a label is stored beside its image."""
        return sum(path.stat().st_size for path, _ in self.record_files if path.exists())

    def place(self, index: int) -> str:
        """'record R of PATH' for an example."""
        file = int(np.searchsorted(self._ends, index, side="right"))
        return f"record {index - self._first(file)} of {self.record_files[file][0]}"

    def parts(self) -> Iterator[tuple[range, str]]:
        """(indices, problem) of each record file; '' if the file can be opened."""
        for file, (path, count) in enumerate(self.record_files):
            first, problem = self._first(file), ""
            try:
                self._open(file)
            except Exception as error:  # the reader raises its own types
                problem = f"{one_line(error)} ({path})"
            yield range(first, first + count), problem

    def _first(self, file: int) -> int:
        """The index of this record file's first example."""
        return int(self._ends[file - 1]) if file else 0

    def _open(self, file: int) -> Any:
        """The reader of this record file, which is opened once.

        Raises: ValueError if the file is missing, damaged as a whole, or has another number of
            examples than the data set's description says.
        """
        with self._lock:
            if file not in self._readers:
                self._readers[file] = _reader(*self.record_files[file])
            return self._readers[file]


def allow_open_files(count: int) -> None:
    """Let this process open `count` files beside those that are open, all at the same time.

    Linux usually allows 1,024 files, and more if a process asks for them.
    Raises: ValueError with the command that allows more, if the process may not ask for so many.
    """
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed, unlimited = count, resource.RLIM_INFINITY
    with contextlib.suppress(OSError):
        needed += len(os.listdir("/dev/fd"))
    if hard != unlimited and needed > hard:
        raise ValueError(
            f"it has {count} record files, and this process may open {hard} files; allow more with "
            f"`ulimit -n {needed + SPARE_FILES}` before the command"
        )
    # Another split may have as many; checkpoints, pipes and XLA's threads need some, too.
    if soft != unlimited and 2 * needed + SPARE_FILES > soft:
        most = max(4 * needed + SPARE_FILES, soft) if hard == unlimited else hard
        with contextlib.suppress(OSError, ValueError):  # a system may have a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _reader(path: Path, count: int) -> Any:
    # The import is late because the package does not exist for Windows.
    from array_record.python.array_record_module import (  # pyright: ignore[reportMissingImports]
        ArrayRecordReader,
    )

    if not path.is_file():
        raise ValueError("its record file is missing")
    # The order is random, so that nothing is read ahead: the buffer is that of about one record.
    size = max(1024, 2 * path.stat().st_size // max(1, count))
    reader = ArrayRecordReader(
        str(path), options="readahead_buffer_size:0", file_reader_buffer_size=size
    )
    actual = reader.num_records()
    if actual != count:
        # A file that is cut off opens as a file without records, and its records read as empty.
        raise ValueError(
            f"its record file holds {actual or 'no'} examples, not the {count} that "
            f"dataset_info.json says{'' if actual else ': it is damaged, or cut off'}"
        )
    return reader
