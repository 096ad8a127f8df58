"""Batches of a split that does not fit on the device, read and decoded ahead by threads.

Their order is the resident data's (`order`), a pure function of (seed, step), and each process
reads its own rows of the global batch and no others.
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

from resnet_jax.data import crops, order, photographs, sources
from resnet_jax.data.records import READ_BYTES, Records

# The most examples in a block: to read a few at a time costs more than they do themselves, and
# large blocks keep the first batch and the end waiting.
READ = 4096

# A batch: arrays of as many rows.
Arrays = tuple[Any, ...]
Examples = Records | sources.Split


class Batches(contextlib.AbstractContextManager, Iterator[Arrays]):
    """Tuples of arrays, a batch each, made ahead by threads which end when it is closed.

    A thread makes a block at a time: several batches, or where they are large a part of one.
    `make(batches, part)` gives the arrays of this part of the rows of the batches so numbered.
    """

    def __init__(
        self,
        make: Callable[[range, slice], list[Arrays]],
        num_batches: int,
        rows: int,
        shape: tuple[int, int, int],
        threads: int,
    ):
        import grain  # late: not to be had on Windows

        self._make, self._num_batches = make, num_batches
        examples = max(1, min(READ, READ_BYTES // math.prod(shape)))
        self._batches = max(1, examples // rows)  # of a block
        self._parts = -(-rows // examples)  # of a batch
        self._rows = -(-rows // self._parts)  # of a part
        self._workers, self._closed = set(), threading.Event()
        threads = threads or cores()
        ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        num_blocks = -(-num_batches // self._batches) * self._parts
        blocks = grain.MapDataset.range(num_blocks).map(self._block).to_iter_dataset(ahead)
        self._blocks: Any = iter(blocks)
        self._found = self._split()

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
        else:  # every block is a part of one batch
            for first in self._blocks:
                parts = [first, *itertools.islice(self._blocks, self._parts - 1)]
                yield tuple(map(np.concatenate, zip(*(part for (part,) in parts), strict=True)))

    def __next__(self) -> Arrays:
        return next(self._found)

    def close(self) -> None:
        """End the threads; each finishes the block that it is at."""
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
    """(image uint8 (b, h, w, c), label int32 (b,)) of steps `first` to `last` - 1.

    The examples of step s are those of `order.batch_indices(seed, s, batch_size, n)`, of which this
    process holds `rows`. Photographs that differ in size are cropped at random to `shape`; how
    depends on seed, step and row alone. `threads`: 0 is one a core.
    Raises: ValueError from `next`, as `Records.read` does.
    """
    rows, random = np.asarray(rows), _differ(records, shape)

    def make(batches: range, part: slice) -> list[Arrays]:
        step, own = first + batches.start, rows[part]
        indices = order.chunk_indices(seed, step, len(batches), batch_size, len(records))
        fit = None
        if random:
            drawn = [crops.draw(seed, first + batch, own) for batch in batches]
            numbers = np.concatenate(drawn)
            fit = lambda at, image: crops.crop(image, numbers[at], shape)
        return records.read(indices[:, own], fit)

    return Batches(make, last - first, len(rows), shape, threads)


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

    def make(batches: range, part: slice) -> list[Arrays]:
        of = slice(batches.start, batches.stop), part
        found = records.read(indices[of], fit)
        return [(*arrays, mask) for arrays, mask in zip(found, masks[of], strict=True)]

    return Batches(make, len(indices), len(rows), shape, threads)


def _differ(records: Examples, shape: tuple[int, int, int]) -> bool:
    """Whether images are of many sizes, so that they have to be cropped to `shape`."""
    if any(theirs not in (None, ours) for theirs, ours in zip(records.shape, shape, strict=True)):
        raise ValueError(f"images of {records.shape} cannot be batches of {shape}")
    return None in records.shape


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
