"""From the command line to the runs of a claim: options, and the config of each run.

A comparison has one recipe. The values of the optimizer, the schedule and the data are those that
the config file gives to the deepest network. Only the keys `model.*` and `norm.*` are a network's
own, and the networks of one family differ in their depth alone.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from resnet_jax import choices, config_file
from resnet_jax import config as configs
from resnet_jax.data import sources
from resnet_jax.keys import Config
from resnet_jax.run.directory import AnyPath

# The family and the depth of a network.
Network = tuple[str, int]
Values = Mapping[str, Any]
NONE: Mapping[str, Any] = {}

# Keys that do not change what is learned, beside those that may change between two starts.
NEUTRAL = (*configs.MAY_CHANGE, "seed", "replicas", "chunk_steps", "eval_every")


class Run(NamedTuple):
    """One run: a config, and a directory.

    `model` names the network, without its seed: runs of one model differ in the seed alone. `arm`
    names the networks that are compared as one, and are drawn in one panel. `changes` are the
    switches and the keys that the claim chose for this run. `workdir` follows from the config
    (`folder`), so that claims share their runs. A run that is not `trained` is measured as it
    starts, and writes no directory.
    """

    model: str
    arm: str
    config: Config
    workdir: AnyPath
    changes: Values = NONE
    trained: bool = True

    @property
    def name(self) -> str:
        """The run in words."""
        return f"{self.model}, seed {self.config.seed}"

    @property
    def chosen(self) -> list[str]:
        """What the claim chose for this run, as `key=value`."""
        return [f"{name}={value}" for name, value in self.changes.items()]

    @property
    def seeds(self) -> range:
        """The seeds of the run, one for each replica."""
        return configs.seeds(self.config)


class Options(NamedTuple):
    """What the command line asks of a claim's plan. A test can make one from two or three fields.

    Attributes:
        workdir: the experiment's directory.
        recipe: the config file.
        networks: family and depth of each network that is compared.
        switches: the choices for all runs, from the argument of --config.
        overrides: the values of --config.KEY=VALUE, as text.
        data: the keys that --dataset and --data_dir set.
        seeds_per_model: the number of --seeds, or None.
        steps: the steps of each run, or None for the recipe's.
        full: whether the scale of the paper is asked for.
        runs: the directory of the runs, which several claims may share; `workdir` if it is None.
    """

    workdir: AnyPath
    recipe: Path
    networks: tuple[Network, ...]
    switches: Mapping[str, str] = NONE
    overrides: Mapping[str, str] = NONE
    data: Values = NONE
    seeds_per_model: int | None = None
    steps: int | None = None
    full: bool = False
    runs: AnyPath | None = None

    def seeds(self, default: int) -> range:
        """Return the first seed of each run of a model; a run has config.replicas seeds.

        There are `default` seeds, and at least one run, unless --seeds gives another number.
        Raises: ValueError if the number of seeds is not a multiple of the replicas.
        """
        config = self.config(self.networks[0])
        count = self.seeds_per_model or max(config.replicas, default)
        if count % config.replicas:
            more = count + config.replicas - count % config.replicas
            raise ValueError(
                f"--seeds={count} is not a multiple of replicas={config.replicas}; "
                f"nearest --seeds={more}"
            )
        return range(config.seed, config.seed + count, config.replicas)

    def refuse_one_depth(self) -> None:
        """Raise a ValueError if some family is to be trained at one depth alone."""
        for family, count in Counter(family for family, _ in self.networks).items():
            if count < 2:
                depth = next(depth for name, depth in self.networks if name == family)
                raise ValueError(
                    f"{family}:{depth} is the only depth of family={family}: the claim compares "
                    f"depths; give two or more, such as --models={family}:{depth},{family}:N"
                )

    def refuse_several(self) -> None:
        """Raise a ValueError if more than one network is to be trained."""
        if len(self.networks) > 1:
            names = [f"{family}:{depth}" for family, depth in self.networks]
            raise ValueError(
                f"{', '.join(names)} are {len(names)} networks: the claim compares the arms of "
                f"one; give one, such as --models={names[-1]}"
            )

    def refuse_replicas(self) -> None:
        """Raise a ValueError if a run has several seeds, for a claim that opens each network."""
        if (replicas := self.config(self.networks[0]).replicas) > 1:
            raise ValueError(
                f"replicas={replicas}: the claim opens the network of each run, which must have "
                "one seed; use replicas=1"
            )

    def run(
        self,
        model: str,
        network: Network,
        seed: int,
        *,
        arm: str = "",
        switches: Mapping[str, str] = NONE,
        values: Values = NONE,
        trained: bool = True,
    ) -> Run:
        """Return a run of a network.

        `switches` and `values` are what the claim chooses for this run: {"skip": "none"},
        {"model.width": 32}. Without an `arm` its name is that of the family.
        Raises: ValueError for switches and keys that the network's config does not have.
        """
        config = self.config(network, switches, values).copy_and_resolve_references()
        config.seed = seed
        workdir = (self.runs or self.workdir) / folder(config)
        changes = dict(switches) | dict(values)
        return Run(model, arm or network[0], config.lock(), workdir, changes, trained)

    def each(self, seeds: int = 5) -> list[Run]:
        """Return a run of every network with every seed; the model is FAMILY-DEPTH."""
        return [
            self.run(f"{family}-{depth}", (family, depth), seed)
            for seed in self.seeds(seeds)
            for family, depth in self.networks
        ]

    def arms(
        self, arms: Mapping[str, Values], seeds: int = 5, *, trained: bool = True
    ) -> list[Run]:
        """Return a run of every network in every arm, with every seed.

        `arms` has what each arm chooses: switches by their names, and keys of the config, which
        have a point in their names. The model of a run is ARM-DEPTH. There are `seeds` seeds unless
        --seeds gives another number; they are the outermost loop, so that n grows evenly.
        Raises: ValueError for networks of several families, which an arm does not tell apart, and
            for switches and keys that a network's config does not have.
        """
        family, depth = self.networks[0]
        if other := [f"{f}:{d}" for f, d in self.networks if f != family]:
            raise ValueError(
                f"{family}:{depth} and {other[0]} are of two families: the claim compares networks "
                f"of one family; give --models={family}:{depth} and other depths of {family}"
            )
        split = lambda arm, of_key: {k: v for k, v in arm.items() if ("." in k) is of_key}
        return [
            self.run(
                f"{name}-{network[1]}",
                network,
                seed,
                arm=name,
                switches=split(arm, False),
                values=split(arm, True),
                trained=trained,
            )
            for seed in self.seeds(seeds)
            for network in self.networks
            for name, arm in arms.items()
        ]

    def config(
        self, network: Network, switches: Mapping[str, str] = NONE, values: Values = NONE
    ) -> Config:
        """Return the config of a network of the comparison, with the options applied.

        Raises: ValueError for switches and keys that the config does not have.
        """
        family, depth = network
        of_network = lambda name: _key_of(name).startswith(("model.", "norm."))
        shared = {name: value for name, value in switches.items() if not of_network(name)}
        config = self._read(max(self.networks, key=lambda network: network[1]), shared)
        deepest = max((d for f, d in self.networks if f == family), default=depth)
        own = self._read((family, deepest), switches)
        config = config.copy_and_resolve_references()
        with config.unlocked():
            config.model, config.norm = own.model, own.norm
            config.model.depth = depth
        _set(config, self.data)
        for key in values.keys() & self.overrides.keys():
            raise ValueError(
                f"--config.{key} is set by the claim, for each run; leave --config.{key} out"
            )
        _set(config, values)
        known = configs.keys_of(config)
        taken = {key: text for key, text in self.overrides.items() if key in known}
        config = config_file.override(config, taken).copy_and_resolve_references()
        if self.steps is not None and self.steps != config.steps:
            scale(config, self.steps)
        return config.lock()

    def changes(self) -> list[str]:
        """Return what the options change in the recipe for all runs, as `key=value`."""
        network = max(self.networks, key=lambda network: network[1])
        plain = self._replace(switches=NONE, overrides=NONE, data=NONE, steps=None)
        try:
            recipe = configs.flatten(plain.config(network))
        except ValueError:  # the recipe alone has no such network
            recipe = {}
        config = configs.flatten(self.config(network))
        keys = {_key_of(name): name for name in self.switches}
        keys |= {key: key for key in (*self.data, *self.overrides) if key not in NEUTRAL}
        if self.steps is not None:
            keys["steps"] = "steps"
        absent = object()
        return [
            f"{name}={config.get(key)}"
            for key, name in keys.items()
            if key in config and recipe.get(key, absent) != config[key]
        ]

    def _read(self, network: Network, switches: Mapping[str, str]) -> Config:
        family, depth = network
        chosen = {**self.switches, **switches, "family": family, "depth": depth}
        return config_file.read(self.recipe, argument_of(chosen))


def folder(config: Config) -> str:
    """Return the name of a run's directory, `DATA-FAMILY-DEPTH-SKIP-DIGEST-seedS`.

    Two configs have one name if they compute the same: keys that may change between two starts of a
    run do not count, except nonfinite, because a run that diverged would end otherwise. The digest
    is of the values that are not defaults, so that a name survives a new key or switch.
    """
    choices, keys = configs.choices_of(config), configs.keys_of(config)
    defaults = {choice.switch.key: choice.switch.default for choice in choices}
    defaults |= {name: key.default for name, key in keys.items()}
    ignored = {*configs.MAY_CHANGE, "seed"} - {"nonfinite"}
    told = {
        name: value
        for name, value in configs.flatten(config).items()
        if name not in ignored and value != defaults.get(name)
    }
    text = json.dumps(told, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    # The name of a data set may be a long path: its last letters and digits remain.
    data = re.sub(r"\W+", "-", dataset_name(config))[-40:].strip("-")
    network = [config.model.family, config.model.depth, config.model.get("skip")]
    return "-".join([data, *(str(word) for word in network if word), digest, f"seed{config.seed}"])


def scale(config: Config, steps: int) -> None:
    """Shorten or lengthen a run: the ends of the schedule keep their share of the steps.

    A warm-up is a number of steps, not a share, but never more than a tenth of the run. There are
    about twenty records, and five evaluations and checkpoints, or fewer if the recipe has fewer.
    """
    share, schedule = steps / config.steps, config.schedule
    scaled = lambda step: max(1, round(step * share))
    if "boundaries" in schedule:
        schedule.boundaries = tuple(sorted({scaled(step) for step in schedule.boundaries}))
    if "end" in schedule:
        schedule.end = scaled(schedule.end)
    schedule.warmup_steps = min(schedule.warmup_steps, steps // 10)
    most = max(1, min(config.chunk_steps, steps // 20))
    # Chunks of one length are one program; a last chunk of another length would be a second.
    divisor = max(size for size in range(1, most + 1) if steps % size == 0)
    config.chunk_steps = divisor if 2 * divisor > most else most
    multiple = lambda every: max(1, round(every / config.chunk_steps)) * config.chunk_steps
    config.eval_every = multiple(max(config.eval_every * share, steps / 5))
    config.checkpoint_every = multiple(max(config.checkpoint_every * share, steps / 5))
    config.steps = steps


def check(runs: Sequence[Run], options: Options, task: str = "classification") -> None:
    """Refuse a plan that cannot run, of another task, or in which an option changes nothing.

    Raises: ValueError in one line.
    """
    if not runs:
        raise ValueError("the plan has no runs; give --depths or --models")
    for run in runs:
        if run.config.task != task:
            raise ValueError(
                f"task={run.config.task} of {options.recipe}: the claim is about task={task}; "
                "choose a config of that task"
            )
    models: dict[str, Run] = {}
    times = Counter((run.model, run.config.seed) for run in runs)
    for run in runs:
        if not re.fullmatch(r"[\w.+-]+", run.model):
            raise ValueError(
                f"{run.model!r} names a network and a folder: use letters, digits, . + and -"
            )
        first = models.setdefault(run.model, run)
        # As text, because nan is not equal to itself.
        own, other = (configs.flatten(r.config) | {"seed": 0} for r in (run, first))
        differ = [k for k in own.keys() | other.keys() if str(own.get(k)) != str(other.get(k))]
        if differ or times[run.model, run.config.seed] > 1:
            raise ValueError(
                f"the plan has two runs of {run.name} that differ in "
                f"{', '.join(sorted(differ)) or 'nothing'}; give each network its own name"
            )
    _check_overrides(tuple(models.values()), options)
    data = [run.config.data for run in models.values() if "name" in run.config.data]
    for name, folder in dict.fromkeys((keys.name, keys.dir) for keys in data):
        if "train" not in sources.info(name, folder).used_splits:
            raise ValueError(f"{name} has no split train, which the experiment needs")
    for run in models.values():
        config_file.refuse_other_networks(str(options.recipe), run.config)
        configs.check(run.config)
    for run in runs:
        configs.check_seeds(run.config)


def _check_overrides(models: Sequence[Run], options: Options) -> None:
    """Refuse an override that some model's config lacks, and a switch that no model has."""
    for key in options.overrides:
        lacking = [run for run in models if key not in configs.keys_of(run.config)]
        if lacking:
            reason = _no_key(lacking[0].config, key)
            if len(lacking) < len(models):
                names = ", ".join(run.model for run in lacking[:4])
                more = f" and {len(lacking) - 4} more" if len(lacking) > 4 else ""
                reason = f"--config.{key} does not fit the runs of {names}{more}: {reason}"
            raise ValueError(reason)
    for name, value in options.switches.items():
        key = _key_of(name)
        if all(configs.flatten(run.config).get(key) != value for run in models):
            raise ValueError(
                f"{name}={value}: this claim chooses {name} for each run; leave it out"
            )


def dataset_name(config: Config) -> str:
    """Return the name of a config's data set, or of its task if the task has no data sets."""
    return config.data.get("name", config.task)


def argument_of(switches: Mapping[str, Any]) -> str:
    """Return the argument of a config file that chooses these switches."""
    return ",".join(f"{name}={value}" for name, value in switches.items())


def _key_of(name: str) -> str:
    """Return the key under which a config records the choice of a switch, or "" for no switch."""
    return next((switch.key for other, switch in choices.every_switch() if other == name), "")


def _set(config: Config, values: Values) -> None:
    """Set keys of an unlocked config. Raises: ValueError for a key that the config lacks."""
    for key in values:
        if key not in configs.keys_of(config):
            raise ValueError(_no_key(config, key))
    with config.unlocked():
        config.update_from_flattened_dict(dict(values))


def _no_key(config: Config, key: str) -> str:
    """Return why a config has no such key."""
    return choices.explain_unknown(key, tuple(configs.flatten(config)), configs.choices_of(config))
