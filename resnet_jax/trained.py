"""A work directory opened: its config, its network, its newest checkpoint, its normalisation."""

import dataclasses
from typing import Any

import jax
import numpy as np

from resnet_jax import checkpoint, families
from resnet_jax import config as configs
from resnet_jax.config import Config
from resnet_jax.data.normalise import Normalisation
from resnet_jax.training import directory, inputs, shard
from resnet_jax.training import state as states
from resnet_jax.training.optimizer import optimizer


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network and what it has learned until its newest checkpoint."""

    workdir: directory.AnyPath
    config: Config
    net: Any
    state: states.TrainState


def load(workdir: directory.AnyPath, data_dir: str | None = None, replica: int = 0) -> Trained:
    """Open a work directory; nothing is written to it. `data_dir` replaces its config's data.dir.

    Of a run of several replicas, the one of seed `seed + replica`, on one device.
    Of its checkpoints the newest good one; one that is damaged is told.
    Raises: ValueError where there is no run, none that this version can read, no checkpoint or no
        such replica; OSError where no checkpoint is good any more.
    """
    config = read_config(workdir)
    if data_dir is not None:
        config.data.dir = data_dir
    if not 0 <= replica < config.replicas:
        raise ValueError(
            f"replica {replica} is not one of the {config.replicas} of {workdir}, which count "
            "from 0"
        )
    net, optim = families.build(config), optimizer(config)

    def create(seed):
        return states.create(seed, net, tuple(config.data.shape), optim)

    seeds = np.array(configs.seeds(config), np.uint32)
    several = config.replicas > 1
    shapes = jax.eval_shape(jax.vmap(create), seeds) if several else jax.eval_shape(create, 0)
    # On this process's first device, wherever the run was.
    like = shard.like(shard.mesh(devices=1), shard.WHOLE, shapes)
    found = checkpoint.find(workdir)
    for step, wrong in found.damaged.items():
        print(f"warning: step {step} is damaged ({wrong}); step {found.step} is used instead")
    if found.step is None:
        raise ValueError(f"{workdir} has no checkpoint: its run has not saved its first one yet")
    state = checkpoint.restore(workdir, found.step, like)
    if several:
        state = jax.tree.map(lambda a: a[replica], state)
    return Trained(workdir, config, net, state)


def read_config(workdir: directory.AnyPath) -> Config:
    """The config of the run in `workdir`, checked and locked.

    Raises: ValueError where there is none, or one of other keys than this version's.
    """
    path = workdir / "config.json"
    if not path.is_file():
        raise ValueError(f"{workdir} holds no run of ours: there is no {path}")
    found = directory.read(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it is no config")
    saved = configs.flatten(found)
    config = configs.base()
    known = configs.flatten(config).keys()
    kinds = {"lacks": known - saved.keys(), "has the unknown": saved.keys() - known}
    lines = [f"{kind} {', '.join(sorted(keys))}" for kind, keys in kinds.items() if keys]
    if lines:
        raise ValueError(
            f"{path} {' and '.join(lines)}: another version wrote it; run.json names its revision"
        )
    try:
        config.update_from_flattened_dict(saved)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error
    configs.check(config)
    return config.lock()


def normalisation(trained: Trained) -> Normalisation:
    """What the run saved; where it has not yet, by its config, from the data where it takes any.

    Raises: ValueError where the data is needed and cannot be loaded.
    """
    path = trained.workdir / "normalisation.json"
    if path.exists():
        try:
            return Normalisation.from_json(directory.read(path))
        except (KeyError, TypeError, AttributeError) as error:
            raise OSError(f"{path} is damaged: {error!r}") from error
    return inputs.normalisation(trained.config, inputs.dataset(trained.config))
