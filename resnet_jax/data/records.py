"""Examples of a tfds split in array_record files, read and decoded by index from any thread."""

import functools
import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from jaxtyping import Int, Int32, UInt8
from PIL import Image

# Pillow's mode of an image by its number of channels.
MODES = {1: "L", 3: "RGB", 4: "RGBA"}

# Position in what is read, and its image of any size -> an image of the size that is wanted.
Fit = Callable[[int, UInt8[np.ndarray, "h w c"]], UInt8[np.ndarray, "h w c"]]


class Records:
    """A split by index; `shape` is (h, w, c) of its images, h and w None where they differ."""

    def __init__(
        self,
        name: str,
        split: str,
        files: Sequence[tuple[Path, int]],
        shape: tuple[int | None, int | None, int],
        num_classes: int,
    ):
        """`files` are the record files in order, each with its number of examples."""
        self.shape = shape
        self._where = f"data set {name!r}, split {split!r}"
        self._num_classes = num_classes
        self._files = [file for file, _ in files]
        self._ends = np.cumsum([count for _, count in files])
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(
        self,
        indices: Int[np.ndarray, "n"],
        images: UInt8[np.ndarray, "n h w c"],
        fit: Fit | None = None,
    ) -> Int32[np.ndarray, "n"]:
        """Decode these examples' images into `images`, and return their labels.

        Without `fit` an image has to be of the size of `images`.
        Raises: ValueError with split and index of an example that is damaged, of another size or of
            no class.
        """
        labels = np.empty(len(indices), np.int64)
        at = 0
        try:
            for at, record in enumerate(self._raw(indices)):
                labels[at], image = _parse(record)
                if fit is None:
                    _decode_into(image, images[at])
                else:
                    images[at] = fit(at, decode(image, self.shape[-1]))
                if not 0 <= labels[at] < self._num_classes:
                    raise ValueError(f"its label {labels[at]} is not in 0..{self._num_classes - 1}")
        except Exception as error:  # the reader and every codec raise kinds of their own
            raise ValueError(f"{self._where}, example {indices[at]}: {error}") from error
        return labels.astype(np.int32)

    def _raw(self, indices: Int[np.ndarray, "n"]) -> list[bytes]:
        """The examples as they are stored."""
        files = np.searchsorted(self._ends, indices, side="right")
        found = np.empty(len(indices), object)
        for file in np.unique(files):
            here = np.flatnonzero(files == file)
            begin = self._ends[file - 1] if file else 0
            found[here] = self._reader(int(file)).read((indices[here] - begin).tolist())
        return found.tolist()

    def _reader(self, file: int) -> Any:
        with self._lock:
            if file not in self._readers:
                self._readers[file] = _open(self._files[file])
            return self._readers[file]


def _open(path: Path) -> Any:
    # Imported here: not to be had on Windows.
    from array_record.python.array_record_module import (  # pyright: ignore[reportMissingImports]
        ArrayRecordReader,
    )

    # Nothing is read ahead, because what comes next is anywhere.
    return ArrayRecordReader(str(path), options="readahead_buffer_size:0")


@functools.cache
def _parser() -> Any:
    # Imported here: half a second, and not to be had on Windows.
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]


def _parse(record: bytes) -> tuple[int, bytes]:
    """Label and image file of a stored example."""
    example = _parser()(record).features.feature
    return example["label"].int64_list.value[0], example["image"].bytes_list.value[0]


def _decode_into(data: bytes, image: UInt8[np.ndarray, "h w c"]) -> None:
    found = decode(data, image.shape[-1])
    if found.shape != image.shape:
        raise ValueError(f"its image is {found.shape}, not {image.shape}")
    image[:] = found


def decode(data: bytes, channels: int) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an image file in memory."""
    mode = MODES[channels]
    if data.startswith(b"\xff\xd8"):
        return simplejpeg.decode_jpeg(data, "GRAY" if mode == "L" else mode)
    image = Image.open(io.BytesIO(data))
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], channels)
