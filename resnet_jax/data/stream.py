"""Batches of a split that does not fit on the device, read and decoded ahead by threads.

Their order is the resident data's (`order`), a pure function of (seed, step), and each process
reads its own rows of the global batch and no others.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from resnet_jax.data import crops, order, photographs, sources
from resnet_jax.data.records import Fit, Records

# Examples that a thread reads at once, and the most bytes of their images: a read of few costs
# array_record more than the records themselves.
READ, READ_BYTES = 2048, 1 << 24

Arrays = tuple[np.ndarray, ...]
Examples = Records | sources.Split


class Batches(contextlib.AbstractContextManager, Iterator[Arrays]):
    """Tuples of arrays, a batch each, made ahead by threads which end when it is closed.

    `make(i)` makes block i, arrays of several batches each (k, b, ...), on any thread.
    """

    def __init__(self, make: Callable[[int], Arrays], num_blocks: int, threads: int):
        import grain  # late: a second to import, and not to be had on Windows

        self._make, self._threads, self._closed = make, set(), threading.Event()
        ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        blocks = grain.MapDataset.range(num_blocks).map(self._block).to_iter_dataset(ahead)
        self._blocks: Any = iter(blocks)
        self._batches = (batch for block in self._blocks for batch in zip(*block, strict=True))

    def _block(self, index: int) -> Arrays:
        self._threads.add(threading.current_thread())
        if self._closed.is_set():
            raise RuntimeError("the stream is closed")
        return self._make(int(index))

    def __next__(self) -> Arrays:
        return next(self._batches)

    def close(self) -> None:
        """End the threads; each finishes the block that it is at."""
        self._closed.set()
        self._batches.close()
        self._blocks.close()
        for thread in self._threads - {threading.current_thread()}:
            thread.join()

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
    """(image uint8 (b, h, w, c), label int32 (b,)) of steps `first` to `last` - 1.

    The examples of step s are those of `order.batch_indices(seed, s, batch_size, n)`, of which this
    process holds `rows`. Photographs that differ in size are cropped at random to `shape`; how
    depends on seed, step and row alone. `threads`: 0 is one a core.
    Raises: ValueError from `next`, as `Records.read` does.
    """
    rows, random = np.asarray(rows), _differ(records, shape)
    size = _block_size(len(rows), shape)

    def make(block: int) -> Arrays:
        steps = range(first + block * size, min(first + (block + 1) * size, last))
        indices = order.chunk_indices(seed, steps[0], len(steps), batch_size, len(records))
        fit = None
        if random:
            numbers = np.concatenate([crops.draw(seed, step, rows) for step in steps])
            fit = lambda at, image: crops.crop(image, numbers[at], shape)
        return _read(records, indices[:, rows], shape, fit)

    return Batches(make, -(-(last - first) // size), threads or _cores())


def eval_batches(
    records: Examples,
    batch_size: int,
    rows: Int[np.ndarray, "b"],
    shape: tuple[int, int, int],
    threads: int = 0,
) -> Batches:
    """(image, label, mask bool (b,)) over the split once, in the order of `order.eval_indices`.

    Photographs that differ in size are cropped as `photographs.fit` does it.
    Raises: ValueError from `next`, as `Records.read` does.
    """
    rows, indices_masks = np.asarray(rows), order.eval_indices(len(records), batch_size)
    indices, masks = (whole[:, rows] for whole in indices_masks)
    fit = (
        (lambda at, image: photographs.fit_pixels(image, shape))
        if _differ(records, shape)
        else None
    )
    size = _block_size(len(rows), shape)

    def make(block: int) -> Arrays:
        part = slice(block * size, (block + 1) * size)
        return *_read(records, indices[part], shape, fit), masks[part]

    return Batches(make, -(-len(indices) // size), threads or _cores())


def _read(
    records: Examples, indices: Int[np.ndarray, "k b"], shape: tuple[int, int, int], fit: Fit | None
) -> Arrays:
    images = np.empty((indices.size, *shape), np.uint8)
    labels = records.read(indices.ravel(), images, fit)
    return images.reshape(*indices.shape, *shape), labels.reshape(indices.shape)


def _differ(records: Examples, shape: tuple[int, int, int]) -> bool:
    """Whether images are of many sizes, so that they have to be cropped to `shape`."""
    if None not in records.shape and tuple(records.shape) != tuple(shape):
        raise ValueError(f"images of {records.shape} cannot be batches of {shape}")
    return None in records.shape


def _block_size(rows: int, shape: tuple[int, int, int]) -> int:
    """Batches that a thread makes at once."""
    examples = min(READ, READ_BYTES // int(np.prod(shape)))
    return max(1, examples // rows)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
