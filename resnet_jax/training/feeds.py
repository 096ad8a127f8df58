"""Feeds: how the examples of a split reach the steps, whatever kind of split it is.

A feed has a `source`, which lies on the mesh for the whole run, and small *inputs*, which travel to
the devices for every step. `fetch(source, input, axis)` makes a device's batch of the two:

| split | source | input of a step | the batch is |
|---|---|---|---|
| Arrays | all examples, on every device | indices (b,), mask (b,) | gathered on the device |
| Streamed | nothing | the examples themselves, mask (b,) | the input |
| Generated | the seeds' keys | step and row (b, 2), mask (b,) | drawn on the device |
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from resnet_jax.data import order
from resnet_jax.data.stream import cores
from resnet_jax.keys import Config
from resnet_jax.tasks.task import Arrays, Batch, Dataset, Generated, Streamed
from resnet_jax.training import shard
from resnet_jax.training.state import IMPL, root_key
from resnet_jax.training.step import Fetch


@dataclass(frozen=True)
class Feed:
    """A split as the steps take it; `spec` says how its source lies on the mesh.

    Inputs lie on the mesh: `draw(step, n)` returns the inputs of n training steps from `step` on,
    and `batches()` those of a whole evaluation, in pieces of one shape. `drawn(n)` and `piece` are
    their shapes and types. Use the feed as a context: leaving it ends threads that read ahead.
    """

    source: Any
    fetch: Fetch
    draw: Callable[[int, int], Any]
    drawn: Callable[[int], Any]
    batches: Callable[[], Iterator[Any]]
    piece: Any
    close: Callable[[], None] = lambda: None
    spec: PartitionSpec = shard.WHOLE

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def feed(mesh: Mesh, dataset: Dataset, split: str, config: Config, first: int = 0) -> Feed:
    """Return the feed of a split (`train`, `test`, `validation`) from step `first` on.

    `first` is the step from which a resumed run goes on. Replica r trains in the order of seed
    config.seed + r.
    """
    examples = getattr(dataset, split)
    seeds = [config.seed + replica for replica in range(mesh.shape[shard.REPLICA])]
    if isinstance(examples, Arrays):
        return resident(mesh, examples, seeds, config.batch_size)
    if isinstance(examples, Generated):
        return generated(mesh, examples, seeds, config.batch_size, split)
    last = config.steps if split == "train" else first
    return streamed(mesh, examples, seeds, config.batch_size, first, last)


def resident(mesh: Mesh, split: Arrays, seeds: Sequence[int], batch_size: int) -> Feed:
    """Return the feed of a split that every device holds whole; indices are all that is sent."""
    source = shard.place(mesh, shard.WHOLE, (split.input, split.target))

    def draw(step: int, n: int) -> Any:
        drawn = [order.chunk_indices(seed, step, n, batch_size, len(split)) for seed in seeds]
        indices = np.stack(drawn) if len(seeds) > 1 else drawn[0]
        return shard.place(mesh, shard.EACH_ROWS, (indices, np.ones(indices.shape, bool)))

    shapes = lambda spec, *shape: _like(mesh, spec, (shape, np.int32), (shape, bool))
    evaluation = order.eval_indices(len(split), batch_size)
    return Feed(
        source,
        gather,
        draw,
        lambda n: shapes(shard.EACH_ROWS, *_each(seeds), n, batch_size),
        lambda: iter([shard.place(mesh, shard.ROWS, evaluation)]),
        shapes(shard.ROWS, *evaluation[0].shape),
    )


def gather(source: Any, input: tuple[Any, Any], axis: str | None) -> Batch:
    """Return the examples of a resident split whose indices the input holds."""
    index, mask = input
    inputs, targets = jax.tree.map(lambda a: a[index], source)
    return Batch(inputs, targets, _rows(index.size, axis), mask)


def generated(
    mesh: Mesh, split: Generated, seeds: Sequence[int], batch_size: int, name: str
) -> Feed:
    """Return the feed of a split that is drawn on the devices.

    Row i of step s is drawn from fold_in(fold_in(key, s), i), where the key follows from the run's
    seed and the split's name: it depends neither on the number of devices nor on other steps.
    """
    number = 2 if name == "train" else 3
    keys = [jax.random.fold_in(root_key(seed), number) for seed in seeds]
    data = np.stack([np.asarray(jax.random.key_data(key)) for key in keys])
    source = shard.place(mesh, shard.EACH, data if len(seeds) > 1 else data[0])
    make = jax.vmap(split.generate)

    def fetch(source: Any, input: tuple[Any, Any], axis: str | None) -> Batch:
        place, mask = input
        key = jax.random.wrap_key_data(source, impl=IMPL)
        fold = lambda step, row: jax.random.fold_in(jax.random.fold_in(key, step), row)
        inputs, targets = make(jax.vmap(fold)(place[:, 0], place[:, 1]))
        return Batch(inputs, targets, _rows(len(mask), axis), mask)

    def places(step: int, n: int) -> np.ndarray:
        return np.moveaxis(np.mgrid[step : step + n, :batch_size], 0, -1).astype(np.int32)

    def draw(step: int, n: int) -> Any:
        place = places(step, n)
        place = np.stack([place] * len(seeds)) if len(seeds) > 1 else place
        return shard.place(mesh, shard.EACH_ROWS, (place, np.ones(place.shape[:-1], bool)))

    steps = -(-len(split) // batch_size)
    mask = (np.arange(steps * batch_size) < len(split)).reshape(steps, batch_size)
    shapes = lambda spec, *shape: _like(mesh, spec, ((*shape, 2), np.int32), (shape, bool))
    return Feed(
        source,
        fetch,
        draw,
        lambda n: shapes(shard.EACH_ROWS, *_each(seeds), n, batch_size),
        lambda: iter([shard.place(mesh, shard.ROWS, (places(0, steps), mask))]),
        shapes(shard.ROWS, steps, batch_size),
        spec=shard.EACH,
    )


def streamed(
    mesh: Mesh, split: Streamed, seeds: Sequence[int], batch_size: int, first: int, last: int
) -> Feed:
    """Return the feed of a split that threads read ahead; each process reads its own rows.

    Training steps should be drawn in turn from `first` to `last`; other steps cost a reading of
    their own.
    Drawing raises: OSError with the split and the index of an example that cannot be read.
    """
    rows = shard.own_rows(mesh, shard.EACH_ROWS, batch_size)
    tested = shard.own_rows(mesh, shard.ROWS, batch_size)
    threads = max(1, cores() // len(rows))

    def start(first: int, last: int) -> dict[int, Any]:
        return {
            replica: split.train(seeds[replica], first, last, batch_size, own, threads)
            for replica, own in rows.items()
        }

    def take(streams: dict[int, Any], n: int) -> Any:
        parts = {}
        for replica, stream in streams.items():
            with _reading():
                batches = [next(stream) for _ in range(n)]
            example = jax.tree.map(lambda *arrays: np.stack(arrays), *batches)
            parts[replica] = (*example, np.ones((n, len(rows[replica])), bool))
        return shard.place_rows(mesh, shard.EACH_ROWS, rows, parts, batch_size)

    running, next_step = start(first, last) if last > first else {}, first

    def close(streams: dict[int, Any] = running) -> None:
        for stream in streams.values():
            stream.close()

    def draw(step: int, n: int) -> Any:
        nonlocal next_step
        if step == next_step and step + n <= last:
            next_step += n
            return take(running, n)
        apart = start(step, step + n)
        try:
            return take(apart, n)
        finally:
            close(apart)

    def batches() -> Iterator[Any]:
        with _reading(), split.evaluate(batch_size, tested[0]) as stream:
            for batch in stream:
                part = jax.tree.map(lambda a: a[None], tuple(batch))
                yield shard.place_rows(mesh, shard.ROWS, tested, {0: part}, batch_size)

    def shapes(spec: PartitionSpec, *leading: int) -> Any:
        example = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((*leading, *a.shape), a.dtype), split.example
        )
        return shard.like(mesh, spec, (*example, jax.ShapeDtypeStruct(leading, bool)))

    return Feed(
        None,
        take_streamed,
        draw,
        lambda n: shapes(shard.EACH_ROWS, *_each(seeds), n, batch_size),
        batches,
        shapes(shard.ROWS, 1, batch_size),
        close,
    )


def take_streamed(source: None, input: tuple[Any, Any, Any], axis: str | None) -> Batch:
    """Return the batch that came from the host: input, target and mask."""
    inputs, targets, mask = input
    return Batch(inputs, targets, _rows(mask.size, axis), mask)


def _rows(share: int, axis: str | None):
    """Return the places of this device's rows in the global batch."""
    first = 0 if axis is None else lax.axis_index(axis) * share
    return first + jnp.arange(share, dtype=jnp.int32)


def _each(seeds: Sequence[int]) -> tuple[int, ...]:
    return (len(seeds),) if len(seeds) > 1 else ()


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Raise bad data in the middle of a run as an OSError; a ValueError could be anything's."""
    try:
        yield
    except ValueError as error:
        raise OSError(str(error)) from error


def _like(mesh: Mesh, spec: PartitionSpec, *arrays: tuple[tuple[int, ...], Any]) -> Any:
    return shard.like(mesh, spec, tuple(jax.ShapeDtypeStruct(*array) for array in arrays))
