"""The network of a run, as instruments take it: apply, variables, and a batch of its data."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import FrozenConfigDict

from experiments.plan import Run
from resnet_jax import families, trained
from resnet_jax.data import sources
from resnet_jax.keys import Config
from resnet_jax.tasks import TASKS
from resnet_jax.tasks.task import Arrays, Batch

STREAMED = "{} is streamed; the claim needs a batch in memory: use --config.data.stream=never"
FEW = "{} has {} examples; the claim needs {}"


class Network(NamedTuple):
    """A network, its variables, and the first examples of a split, prepared as in evaluation.

    The instruments of resnet_jax/analysis take `net.apply`, `variables`, `x` and `loss`.
    """

    config: Config
    net: Any
    variables: dict[str, Any]
    batch: Batch

    @property
    def x(self) -> Any:
        """The network's input."""
        return self.batch.input

    def loss(self, output: Any) -> Any:
        """Return the mean loss of an output over the batch."""
        return _loss(self.config.task, output, self.batch)

    def measured(self, measure: Callable[..., Any], **arguments: Any) -> Any:
        """Return measure(apply, variables, x, loss, **arguments), compiled once for all seeds.

        `measure` must be defined at the top of a module: a function that is made anew in each call
        is compiled anew.
        """
        parts = measure, self.net, self.config.task, self.variables, self.batch
        return _measured(*parts, arguments)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _measured(measure, net, task, variables, batch, arguments):
    loss = functools.partial(_loss, task, batch=batch)
    return measure(net.apply, variables, batch.input, loss, **arguments)


def _loss(task: str, output: Any, batch: Batch) -> Any:
    sums = TASKS[task].measure(output, batch)
    return sums["loss"] / sums["examples"]


def _net(config: Config) -> Any:
    """Return the network of a config; configs that differ in the seed share one object."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.seed = 0
    return _built(FrozenConfigDict(config))


_built = functools.lru_cache(families.build)


def opened(
    run: Run,
    examples: int = 64,
    split: str = "train",
    seed: int | None = None,
    wide: bool = False,
) -> Network:
    """Return the network of a run: as it was trained, or as `seed` starts it.

    A run that is not trained, and a run for which a `seed` is given, gives a network at its start;
    the seed is the run's own if it is None. The batch is the first `examples` examples of a split,
    which every run of the data set shares. If `wide`, the same weights and images are float64, and
    so is all that is computed from them; call this and the instruments under jax.enable_x64(True).
    Raises: ValueError if the split has fewer examples, and for data that is read while it is used.
    """
    config = run.config
    if wide:
        with jax.enable_x64(False):
            network = opened(run, examples, split, seed)
        return widened(network)
    if run.trained and seed is None:
        variables = trained.load(run.workdir).variables
    else:
        variables = trained.init(config, config.seed if seed is None else seed)
    return Network(config, _net(config), variables, batch(config, examples, split))


def widened(network: Network) -> Network:
    """Return the network with its variables, its images and its computation in float64."""
    config = network.config.copy_and_resolve_references()
    with config.unlocked():
        config.dtype = "float64"
    wider = lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a
    variables, batch = jax.tree.map(wider, (network.variables, network.batch))
    return Network(config.lock(), _net(config), variables, batch)


def check(config: Config, examples: Mapping[str, int]) -> None:
    """Refuse a data set without a batch of so many examples of each split; nothing is read.

    Raises: ValueError if a split has fewer examples, and if data.stream=always.
    """
    if "name" not in config.data:  # examples are generated
        return
    info = sources.info(config.data.name, config.data.dir)
    for split, count in examples.items():
        if config.data.stream == "always":
            raise ValueError(STREAMED.format(config.data.name))
        if (has := info.splits.get(split, count)) < count:
            raise ValueError(FEW.format(split, has, count))


def batch(config: Config, examples: int, split: str = "train") -> Batch:
    """Return the first examples of a split, prepared for the config's network as in evaluation.

    Raises: ValueError if the split has fewer examples, and for data that is read while it is used.
    """
    task = TASKS[config.task]
    dataset = task.build(config)
    whole = getattr(dataset, split)
    if not isinstance(whole, Arrays):
        raise ValueError(STREAMED.format(config.data.name))
    if len(whole) < examples:
        raise ValueError(FEW.format(split, len(whole), examples))
    take = lambda tree: jax.tree.map(lambda a: jnp.asarray(a[:examples]), tree)
    rows = np.arange(examples, dtype=np.int32)
    prepare = task.prepare(config, task.statistics(config, dataset))
    return prepare(None, Batch(take(whole.input), take(whole.target), rows, rows >= 0))
