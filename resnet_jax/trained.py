"""A run's directory, opened: its config, its network, its newest checkpoint, its predictions."""

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from resnet_jax import config as configs
from resnet_jax import families
from resnet_jax.choices import COMMON
from resnet_jax.keys import Config, check_value
from resnet_jax.run import best as bests
from resnet_jax.run import checkpoint, directory
from resnet_jax.tasks import TASKS
from resnet_jax.training import shard
from resnet_jax.training import state as states
from resnet_jax.training.compile import ONCE, program
from resnet_jax.training.optimizer import optimizer

# Examples of one call. Every input is cut into calls of this size, so that one program serves all.
BATCH = 16


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network and what it has learned until its newest checkpoint.

    `net.apply(states.variables(state), x)` applies it to a prepared input; `predict` prepares the
    input as training did.
    """

    workdir: directory.AnyPath
    config: Config
    net: Any
    state: states.TrainState

    @property
    def step(self) -> int:
        """The step of the checkpoint."""
        return int(self.state.step)

    @property
    def variables(self) -> dict[str, Any]:
        """The parameters and statistics, as `net.apply` takes them."""
        return states.variables(self.state)

    def predict(self, images: np.ndarray, check: bool = True) -> Float[np.ndarray, "n y"]:
        """Return the log-probabilities of the classes for uint8 images (n, h, w, c).

        They are logarithms, because a network that is certain gives probabilities of 0 to all
        classes but one. `check=False` also takes images that are much darker than the training
        images, for example those of a file.
        Raises: ValueError if the images do not have the shape, type and range that the network was
            trained on, or if the run's task is not classification.
        """
        if self.config.task != "classification":
            raise ValueError(
                f"{self.workdir} is a run of task={self.config.task}; only task=classification "
                "predicts classes"
            )
        from resnet_jax.tasks import classification

        saved = statistics(self)
        images = np.asarray(images)
        classification.check_images(images, self.config, saved if check else None)
        prepare = TASKS[self.config.task].prepare(self.config, saved)

        def log_probabilities(variables, batch):
            prepared = prepare(None, classification.unlabelled(batch))
            return jax.nn.log_softmax(self.net.apply(variables, prepared.input))

        size = min(BATCH, len(images))
        padded = np.concatenate([images, images[:1].repeat(-len(images) % size, axis=0)])
        batches = [jnp.asarray(padded[i : i + size]) for i in range(0, len(padded), size)]
        compiled = program(log_probabilities, self.variables, batches[0])
        rows = [np.asarray(compiled(self.variables, batch)) for batch in batches]
        return np.concatenate(rows)[: len(images)]


def load(
    workdir: str | directory.AnyPath,
    data_dir: str | None = None,
    replica: int = 0,
    data_name: str | None = None,
    best: bool = False,
) -> Trained:
    """Open a run's directory; nothing is written to it.

    `data_dir` and `data_name` replace data.dir and data.name of its config, if the data has moved.
    Of a run with several replicas, the replica of seed `seed + replica` is loaded, on one device.
    The newest good checkpoint is loaded, or that of the `best` epoch by the validation split; a
    warning is printed if a newer checkpoint is damaged.
    Raises: ValueError if there is no run, a run that this version cannot read, no checkpoint or no
        such replica; OSError if none of the checkpoints is good.
    """
    workdir = directory.at(workdir)
    config = read_config(workdir)
    with config.unlocked():
        for key, value in {"dir": data_dir, "name": data_name}.items():
            if value is not None and key not in config.data:
                raise ValueError(
                    f"{workdir} is a run of task={config.task}, which has no data.{key}"
                )
            if value is not None:
                config.data[key] = value
    if not 0 <= replica < config.replicas:
        raise ValueError(
            f"replica {replica} is not one of the {config.replicas} of {workdir}, which count "
            "from 0"
        )
    net, optim = families.build(config), optimizer(config)
    shape = TASKS[config.task].example(config).shape

    def create(seed):
        return states.create(seed, net, shape, optim, config.optimizer.ema_decay > 0)

    seeds = np.array(configs.seeds(config), np.uint32)
    several = config.replicas > 1
    shapes = jax.eval_shape(jax.vmap(create), seeds) if several else jax.eval_shape(create, 0)
    # On this process's first device, wherever the run was.
    like = shard.like(shard.mesh(devices=1), shard.WHOLE, shapes)
    score = TASKS[config.task].score
    found = bests.find(workdir, score) if best else checkpoint.find(workdir)
    for step, wrong in found.damaged.items():
        print(f"warning: step {step} is damaged ({wrong}); step {found.step} is used instead")
    if found.step is None:
        raise ValueError(f"{workdir} has no checkpoint: its run has not saved its first one yet")
    state = checkpoint.restore(workdir / "best" if best else workdir, found.step, like)
    if several:
        state = jax.tree.map(lambda a: a[replica], state)
    return Trained(workdir, config, net, state)


def init(config: Config, seed: int = 0) -> dict[str, Any]:
    """Return the variables of the config's network, as a run of this seed starts with them.

    They are drawn by a program that is compiled quickly: for deep networks that takes a fifth of
    the time of `jax.jit(net.init)`.
    Raises: ValueError for a config that cannot run, and for a seed that is not one.
    """
    configs.check(config)
    check_value("seed", COMMON["seed"], seed)
    net = families.build(config)
    shape = TASKS[config.task].example(config).shape

    def draw(key):
        # What layers sow at initialisation is left out, as in a run: its forward pass would be
        # compiled together with the drawing, which changes last bits.
        variables = net.init(key, jnp.zeros((1, *shape)))
        return {name: variables[name] for name in ("params", "batch_stats") if name in variables}

    key = states.initial_key(seed)
    return program(draw, key, level=ONCE)(key)


def read_config(workdir: directory.AnyPath) -> Config:
    """Return the config of the run in `workdir`, checked and locked.

    Raises: ValueError if there is none, or one with keys or values that this version does not take.
    """
    path = workdir / "config.json"
    if not path.is_file():
        if workdir.exists() and not os.access(workdir, os.R_OK | os.X_OK):
            raise ValueError(f"{workdir} cannot be read by this user; ask its owner")
        raise ValueError(f"{workdir} holds no run: there is no {path}")
    config = configs.from_saved(directory.read(path), str(path))
    try:
        configs.check(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return config


def statistics(trained: Trained) -> dict[str, Any]:
    """Return the statistics that the run saved, or compute them if it has not saved them yet.

    Raises: ValueError if the data is needed and cannot be loaded; OSError for a damaged file.
    """
    task = TASKS[trained.config.task]
    path = trained.workdir / "normalisation.json"
    if not path.exists():
        return task.statistics(trained.config, task.build(trained.config))
    saved = directory.read(path)
    try:
        task.prepare(trained.config, saved)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise OSError(f"{path} is damaged: {error!r}") from error
    return saved
