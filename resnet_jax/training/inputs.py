"""What a config's network is fed: its data set on the mesh, and the normalisation of its pixels."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from resnet_jax import config as configs
from resnet_jax.config import Config
from resnet_jax.data import normalise, order, sources, stream
from resnet_jax.training import shard
from resnet_jax.training import step as steps


@dataclasses.dataclass(frozen=True)
class Feed:
    """A split as the steps take it: `fetch(source, input, axis)` is one step's batch.

    Inputs lie on the mesh: `draw(step, n)` gives those of n training steps, `batches()` those of a
    whole evaluation in pieces of one shape. `drawn(n)` and `piece` are their shapes and types.
    Use as a context: leaving it ends what reads ahead.
    """

    source: Any
    fetch: steps.Fetch
    draw: Callable[[int, int], Any]
    drawn: Callable[[int], Any]
    batches: Callable[[], Iterator[Any]]
    piece: Any
    close: Callable[[], None] = lambda: None

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def feed(
    mesh: Mesh,
    dataset: sources.Dataset,
    split: str,
    config: Config,
    first: int = 0,
) -> Feed:
    """The `train` or `test` split of a data set, for a run that goes on from step `first`.

    Replica r trains in the order of seed config.seed + r.
    """
    examples = dataset.train if split == "train" else dataset.test
    seeds = [config.seed + replica for replica in range(mesh.shape[shard.REPLICA])]
    if not dataset.streamed:
        return resident(mesh, examples, seeds, config.batch_size)
    shape, last = tuple(config.data.shape), config.steps if split == "train" else first
    return streamed(mesh, examples, seeds, config.batch_size, shape, first, last)


def resident(mesh: Mesh, split: Any, seeds: Sequence[int], batch_size: int) -> Feed:
    """A split that is whole on every device, of which a step's indices are all that is sent."""
    source = shard.place(mesh, shard.WHOLE, steps.Resident(split.images, split.labels))

    def draw(step: int, n: int) -> Any:
        drawn = [order.chunk_indices(seed, step, n, batch_size, len(split)) for seed in seeds]
        indices = np.stack(drawn) if len(seeds) > 1 else drawn[0]
        return shard.place(mesh, shard.EACH_ROWS, (indices, np.ones(indices.shape, bool)))

    each = (len(seeds),) if len(seeds) > 1 else ()
    shapes = lambda spec, *shape: _shapes(mesh, spec, (shape, np.int32), (shape, bool))
    evaluation = order.eval_indices(len(split), batch_size)
    return Feed(
        source,
        steps.gather,
        draw,
        lambda n: shapes(shard.EACH_ROWS, *each, n, batch_size),
        lambda: iter([shard.place(mesh, shard.ROWS, evaluation)]),
        shapes(shard.ROWS, *evaluation[0].shape),
    )


def streamed(
    mesh: Mesh,
    examples: Any,
    seeds: Sequence[int],
    batch_size: int,
    shape: tuple[int, int, int],
    first: int,
    last: int,
) -> Feed:
    """A split that is read as it is needed: each process its own rows, as bytes, and ahead.

    Training steps are to be drawn in turn from `first`; others are read by themselves.
    Drawing raises: OSError naming split and index of an example that cannot be read.
    """
    rows = shard.own_rows(mesh, shard.EACH_ROWS, batch_size)
    tested = shard.own_rows(mesh, shard.ROWS, batch_size)
    threads = max(1, stream.cores() // len(rows))

    def start(first: int, last: int) -> dict[int, stream.Batches]:
        return {
            replica: stream.train_batches(
                examples, seeds[replica], first, last, batch_size, own, shape, threads
            )
            for replica, own in rows.items()
        }

    def take(streams: dict[int, stream.Batches], n: int) -> Any:
        parts = {}
        for replica, batches in streams.items():
            with _reading():
                found = [next(batches) for _ in range(n)]
            images, labels = map(np.stack, zip(*found, strict=True))
            parts[replica] = images, labels, np.ones(labels.shape, bool)
        return shard.place_rows(mesh, shard.EACH_ROWS, rows, parts, batch_size)

    running, at = start(first, last) if last > first else {}, first

    def close(streams: dict[int, stream.Batches] = running) -> None:
        for batches in streams.values():
            batches.close()

    def draw(step: int, n: int) -> Any:
        nonlocal at
        if step == at and step + n <= last:
            at += n
            return take(running, n)
        aside = start(step, step + n)
        try:
            return take(aside, n)
        finally:
            close(aside)

    def batches() -> Iterator[Any]:
        with _reading(), stream.eval_batches(examples, batch_size, tested[0], shape) as found:
            for batch in found:
                part = tuple(a[None] for a in batch)
                yield shard.place_rows(mesh, shard.ROWS, tested, {0: part}, batch_size)

    each = (len(seeds),) if len(seeds) > 1 else ()
    shapes = lambda spec, *rows: _shapes(
        mesh, spec, ((*rows, *shape), np.uint8), (rows, np.int32), (rows, bool)
    )
    return Feed(
        None,
        steps.streamed,
        draw,
        lambda n: shapes(shard.EACH_ROWS, *each, n, batch_size),
        batches,
        shapes(shard.ROWS, 1, batch_size),
        close,
    )


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Bad data met in the middle of a run, where a ValueError may be anything's."""
    try:
        yield
    except ValueError as error:
        raise OSError(str(error)) from error


def _shapes(mesh: Mesh, spec: PartitionSpec, *arrays: tuple[tuple[int, ...], Any]) -> Any:
    return shard.like(mesh, spec, tuple(jax.ShapeDtypeStruct(*array) for array in arrays))


def dataset(config: Config) -> sources.Dataset:
    """The config's data set: in memory, or where it is streamed (data.stream) as records.

    Raises: ValueError before anything is read, for one that is not there or that the config does
        not fit; and as `sources.dataset` does.
    """
    info = sources.info(config.data.name, config.data.dir)
    configs.check_data(config, info.shape, info.num_classes, info.splits["train"])
    return sources.dataset(config.data.name, config.data.dir, config.data.stream)


def normalisation(config: Config, dataset: sources.Dataset) -> normalise.Normalisation:
    """The normalisation that the config names, by the data set's training split."""
    data, train = config.data, dataset.train
    constants = tuple(data.mean), tuple(data.std)
    if isinstance(train, sources.Split):
        return normalise.statistics(data.normalisation, train.images, *constants)
    return normalise.streamed_statistics(data.normalisation, train, *constants)
