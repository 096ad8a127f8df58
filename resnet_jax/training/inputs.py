"""What a config's network is fed: its data set on the mesh, and the normalisation of its pixels."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from resnet_jax import config as configs
from resnet_jax.config import Config
from resnet_jax.data import normalise, order, sources
from resnet_jax.training import shard
from resnet_jax.training import step as steps


class Feed(NamedTuple):
    """A split as the steps take it: `fetch(source, input, axis)` is one step's batch.

    Inputs lie on the mesh: `draw(step, n)` gives those of n training steps, `batches()` those of a
    whole evaluation in pieces of one shape. `drawn(n)` and `piece` are their shapes and types.
    """

    source: Any
    fetch: steps.Fetch
    draw: Callable[[int, int], Any]
    drawn: Callable[[int], Any]
    batches: Callable[[], Iterator[Any]]
    piece: Any


def resident(mesh: Mesh, split: sources.Split, seeds: Sequence[int], batch_size: int) -> Feed:
    """A split that is whole on every device, of which a step's indices are all that is sent.

    Replica r trains in the order of seeds[r].
    """
    source = shard.place(mesh, shard.WHOLE, steps.Resident(split.images, split.labels))

    def draw(step: int, n: int) -> Any:
        drawn = [order.chunk_indices(seed, step, n, batch_size, len(split)) for seed in seeds]
        indices = np.stack(drawn) if len(seeds) > 1 else drawn[0]
        return shard.place(mesh, shard.EACH_ROWS, (indices, np.ones(indices.shape, bool)))

    def shapes(spec: PartitionSpec, *shape: int) -> Any:
        indices, mask = (jax.ShapeDtypeStruct(shape, dtype) for dtype in (np.int32, bool))
        return shard.like(mesh, spec, (indices, mask))

    each = (len(seeds),) if len(seeds) > 1 else ()
    evaluation = order.eval_indices(len(split), batch_size)
    return Feed(
        source,
        steps.gather,
        draw,
        lambda n: shapes(shard.EACH_ROWS, *each, n, batch_size),
        lambda: iter([shard.place(mesh, shard.ROWS, evaluation)]),
        shapes(shard.ROWS, *evaluation[0].shape),
    )


def dataset(config: Config) -> sources.Dataset:
    """The config's data set, in memory.

    Raises: ValueError before anything is read, for one that is not there or that the config does
        not fit; and as `sources.load` does.
    """
    info = sources.info(config.data.name, config.data.dir)
    configs.check_data(config, info.shape, info.num_classes, info.splits["train"])
    return sources.load(config.data.name, config.data.dir)


def normalisation(config: Config, dataset: sources.Dataset) -> normalise.Normalisation:
    """The normalisation that the config names, by the data set's training split."""
    data = config.data
    return normalise.statistics(
        data.normalisation, dataset.train.images, tuple(data.mean), tuple(data.std)
    )
