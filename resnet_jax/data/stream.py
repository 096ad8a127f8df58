"""Batches of a split that does not fit on the device; threads read and decode them ahead.

The order of examples is that of data on the device (`order`), a pure function of (seed, step). Each
process reads only its own rows of the global batch.
"""

import contextlib
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from resnet_jax.data import crops, order, photographs
from resnet_jax.data.dataset import Examples
from resnet_jax.data.records import READ_BYTES

# The most examples in a block. A small block costs more than the reading itself; a large block
# delays the first batch and the end.
READ = 4096

# A batch: arrays with the same number of rows.
Arrays = tuple[Any, ...]


class Batches(contextlib.AbstractContextManager, Iterator[Arrays]):
    """An iterator over batches that threads make ahead; `close` ends the threads.

    A thread makes a block at a time. A block is several batches or, if batches are large, a part of
    a batch. `make(batches, part)` returns the arrays of the batches with these numbers, each
    restricted to the rows in the slice `part`.
    """

    def __init__(
        self,
        make: Callable[[range, slice], list[Arrays]],
        num_batches: int,
        rows: int,
        shape: tuple[int, int, int],
        threads: int,
    ):
        import grain  # the import is late because the package does not exist for Windows

        self._make, self._num_batches = make, num_batches
        examples = max(1, min(READ, READ_BYTES // math.prod(shape)))
        self._batches = max(1, examples // rows)  # batches in a block
        self._parts = -(-rows // examples)  # parts of a batch
        self._rows = -(-rows // self._parts)  # rows of a part
        self._workers, self._closed = set(), threading.Event()
        threads = threads or cores()
        ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        num_blocks = -(-num_batches // self._batches) * self._parts
        blocks = grain.MapDataset.range(num_blocks).map(self._block).to_iter_dataset(ahead)
        self._blocks: Any = iter(blocks)
        self._iterator = self._split()

    def _block(self, index: int) -> list[Arrays]:
        self._workers.add(threading.current_thread())
        if self._closed.is_set():
            raise RuntimeError("the stream is closed")
        block, part = divmod(int(index), self._parts)
        first = block * self._batches
        batches = range(first, min(first + self._batches, self._num_batches))
        return self._make(batches, slice(part * self._rows, (part + 1) * self._rows))

    def _split(self) -> Iterator[Arrays]:
        if self._parts == 1:
            for block in self._blocks:
                yield from block
        else:  # every block is a part of a single batch
            for first in self._blocks:
                parts = [first, *itertools.islice(self._blocks, self._parts - 1)]
                yield tuple(map(np.concatenate, zip(*(part for (part,) in parts), strict=True)))

    def __next__(self) -> Arrays:
        return next(self._iterator)

    def close(self) -> None:
        """End the threads; each thread finishes its current block first."""
        self._closed.set()
        self._blocks.close()
        for worker in tuple(self._workers):
            worker.join()

    def __exit__(self, *_: Any) -> None:
        self.close()


def train_batches(
    records: Examples,
    seed: int,
    first: int,
    last: int,
    batch_size: int,
    rows: Int[np.ndarray, "b"],
    shape: tuple[int, int, int],
    threads: int = 0,
) -> Batches:
    """Batches (image uint8 (b, h, w, c), label int32 (b,)) of the steps `first` to `last` - 1.

    The examples of step s are `order.batch_indices(seed, s, batch_size, n)`; this process reads
    only the entries `rows`. Photographs that differ in size are cropped at random to `shape`; a
    crop depends on (seed, step, row) only. `threads` = 0 means one thread for each core.
    Raises: ValueError if images of another size were to be batches of `shape`; `next` raises
        ValueError as `Records.read` does.
    """
    rows, random = np.asarray(rows), _differ(records, shape)

    def make(batches: range, part: slice) -> list[Arrays]:
        step, own = first + batches.start, rows[part]
        indices = order.chunk_indices(seed, step, len(batches), batch_size, len(records))
        fit = None
        if random:
            drawn = [crops.draw(seed, first + batch, own) for batch in batches]
            numbers = np.concatenate(drawn)
            fit = lambda position, image: crops.crop(image, numbers[position], shape)
        return records.read(indices[:, own], fit)

    return Batches(make, last - first, len(rows), shape, threads)


def eval_batches(
    records: Examples,
    batch_size: int,
    rows: Int[np.ndarray, "b"],
    shape: tuple[int, int, int],
    threads: int = 0,
) -> Batches:
    """Batches (image, label, mask bool (b,)) that show the split once, by `order.eval_indices`.

    Photographs that differ in size are resized and cropped at the centre (`photographs.fit`).
    Raises: as `train_batches`.
    """
    rows, indices_masks = np.asarray(rows), order.eval_indices(len(records), batch_size)
    indices, masks = (whole[:, rows] for whole in indices_masks)
    fit = None
    if _differ(records, shape):
        fit = lambda position, image: photographs.fit_pixels(image, shape)

    def make(batches: range, part: slice) -> list[Arrays]:
        block = slice(batches.start, batches.stop), part
        labelled = records.read(indices[block], fit)
        return [(*arrays, mask) for arrays, mask in zip(labelled, masks[block], strict=True)]

    return Batches(make, len(indices), len(rows), shape, threads)


def _differ(records: Examples, shape: tuple[int, int, int]) -> bool:
    """Whether images differ in size, so that they must be cropped to `shape`."""
    sizes = zip(records.shape, shape, strict=True)
    if any(actual not in (None, wanted) for actual, wanted in sizes):
        raise ValueError(
            f"images of {records.shape} cannot be batches of {shape}; set data.shape to the "
            "data set's shape"
        )
    return None in records.shape


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
