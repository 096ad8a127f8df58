"""What every experiment shares: the runs that a claim needs, and what has become of them.

A run is a config and a directory; a finished one is not run again. `--list` prints the runs,
`--run=I` does one, neither does what is missing and reports: a cluster's scheduler needs no more
(docs/sweeps.md), and `--jobs=N` is N such runs at a time on this machine.
"""

import dataclasses
import json
import runpy
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from etils import epath
from ml_collections import config_flags

from experiments import jobs
from resnet_jax import checkpoint, command, distributed, families
from resnet_jax import config as configs
from resnet_jax.config import Config
from resnet_jax.data import sources
from resnet_jax.models import measure
from resnet_jax.reporting import figures, page, tables
from resnet_jax.training import directory, loop, metrics

CONFIGS = Path(__file__).parent.parent / "configs"

# Any: a checker cannot know a flag's type.
DATASET: Any = flags.DEFINE_string("dataset", None, "a config's name or a tfds data set's")
DATA_DIR: Any = flags.DEFINE_string("data_dir", "", "tensorflow-datasets folder")
DEPTHS: Any = flags.DEFINE_list("depths", None, "layers of the networks, e.g. 20,56,110")
MODELS: Any = flags.DEFINE_list("models", None, "FAMILY:DEPTH,... instead of --depths")
SEEDS: Any = flags.DEFINE_integer("seeds", None, "runs of each network", lower_bound=1)
STEPS: Any = flags.DEFINE_integer(
    "steps", None, "steps of each run; the schedule scales along", lower_bound=1
)
FULL: Any = flags.DEFINE_boolean("full", False, "the paper's scale")
LIST: Any = flags.DEFINE_boolean("list", False, "print the runs and stop")
RUN: Any = flags.DEFINE_integer("run", None, "do this run of --list alone")
JOBS: Any = flags.DEFINE_integer("jobs", 1, "runs at a time on this machine", lower_bound=1)
WORKDIR: Any = flags.DEFINE_string("workdir", None, "the experiment's directory")
_CONFIG: Any = config_flags.DEFINE_config_file("config", None, "instead of the data set's own")
_JOIN = distributed.define_flags()
flags.mark_flag_as_required("workdir")


Depths = tuple[int, ...]
Network = tuple[str, int]  # family and depth


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run: `model` names its network, `group` the networks it is compared with."""

    model: str
    group: str
    config: Config
    workdir: epath.Path

    @property
    def name(self) -> str:
        """The run in words."""
        return f"{self.model}, seed {self.config.seed}"


def parse(main: Callable[[], None], default_depths: Callable[[str, bool], Depths]) -> None:
    """Run an experiment's `main` with its flags parsed.

    The recipe is --config's, or configs/NAME.py of --dataset, or the one for its image size; and it
    is the one for the deepest network: a comparison of depths has one recipe. What the networks
    themselves are follows from their family, and from the overrides: see `network_config`.
    """
    own = [a for a in sys.argv if a.lstrip("-").startswith("config.")]
    argv = [a for a in sys.argv if not a.lstrip("-").startswith("config")]
    files = [a.partition("=")[2] for a in sys.argv if a.lstrip("-").startswith("config=")]
    with command.refusals(flags.Error):
        for word in own:
            key = word.lstrip("-").partition("=")[0].removeprefix("config.")
            if key in SET_HERE:
                raise ValueError(f"--config.{key} is set by --{SET_HERE[key]} in an experiment")
        flags.FLAGS(argv, known_only=True)
        path, _, argument = files[-1].partition(":") if files else (_recipe(), "", "")
        dataset = DATASET.value or Path(path).stem
        named = networks(default_depths(dataset, FULL.value))
        family, deepest = max(named, key=lambda network: network[1])
    argument = ",".join(filter(None, (argument, f"family={family}", f"depth={deepest}")))
    OVERRIDDEN.extend(word.lstrip("-").partition("=")[0].removeprefix("config.") for word in own)
    # ml_collections reads the overrides from sys.argv itself, and after the file they belong to.
    sys.argv = [argv[0], f"--config={path}:{argument}", *argv[1:], *own]
    jobs.end_with_the_sweep()
    command.run(main, join=_JOIN)


# Keys that the command line sets by --config.KEY=VALUE.
OVERRIDDEN: list[str] = []

# Keys of the config that an experiment sets for each run, and by what.
SET_HERE = {"data.name": "dataset", "model.family": "models", "model.depth": "depths"}


def _recipe() -> str:
    """The config file of --dataset, or where it has none the one for its image size."""
    name = DATASET.value or "digits"
    path = CONFIGS / f"{name}.py"
    # A config is a program: a name that leads out of its folder is no config's.
    if path.parent != CONFIGS or not path.exists():
        height = sources.info(name, DATA_DIR.value).shape[0]
        path = CONFIGS / (
            "imagenet.py" if height is None else "mnist.py" if height <= 28 else "cifar10.py"
        )
    return str(path)


def networks(default: Depths) -> list[Network]:
    """(family, depth) of --models or --depths, or of the default, each once.

    Raises: ValueError where one of them does not read so.
    """
    if MODELS.value:
        pairs = [model.rpartition(":")[::2] for model in MODELS.value]
    else:
        pairs = [("resnet", str(depth)) for depth in DEPTHS.value or default]
    for family, depth in pairs:
        if not family or not depth.isdecimal():
            raise ValueError(f"{family}:{depth} is not FAMILY:DEPTH, such as resnet:20")
    return list(dict.fromkeys((family, int(depth)) for family, depth in pairs))


def network_config(base: Config, family: str, depth: int, deepest: int) -> Config:
    """`base`'s recipe with the network of this family and depth, and the overrides on top.

    The network's values (block, skip, width, norm, ...) are those that its family's argument gives
    in the recipe's file, of its `deepest` network: nothing is left over of another family, and one
    family's depths differ in nothing else.
    """
    path, _, argument = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    kept = [part for part in argument.split(",") if part.split("=")[0] not in ("family", "depth")]
    words = [*filter(None, kept), f"family={family}", f"depth={deepest}"]
    fresh = runpy.run_path(path)["get_config"](",".join(words))
    config = base.copy_and_resolve_references()
    with config.unlocked():
        config.model.update(fresh.model)
        config.norm.update(fresh.norm)
        config.model.num_classes = base.model.num_classes  # the data set's
        config.model.depth = depth
        for key in OVERRIDDEN:
            part, _, name = key.rpartition(".")
            if part in ("model", "norm"):
                config[part][name] = base[part][name]
    return config


def base_config() -> Config:
    """The sweep's recipe: --config on the data set, with --steps applied."""
    config = _CONFIG.value.copy_and_resolve_references()
    with config.unlocked():
        config.data.dir = DATA_DIR.value or config.data.dir
        config.data.name = DATASET.value or config.data.name
        about = sources.info(config.data.name, config.data.dir)
        if None not in about.shape:  # else the recipe says to what size images are cropped
            config.data.shape = tuple(about.shape)
        config.model.num_classes = about.num_classes
    if STEPS.value is not None and STEPS.value != config.steps:
        scale(config, STEPS.value)
    return config


def scale(config: Config, steps: int) -> None:
    """Shorten or lengthen the run: the schedule's boundaries keep their share of it.

    A warm-up is a number of steps, not a share, but never more than a tenth of the run. There are
    about twenty records, and five evaluations and checkpoints, or fewer where the recipe has fewer.
    """
    share = steps / config.steps
    ends = {max(1, round(b * share)) for b in config.schedule.boundaries}
    config.schedule.boundaries = tuple(sorted(ends))
    config.schedule.warmup_steps = min(config.schedule.warmup_steps, steps // 10)
    config.chunk_steps = max(1, min(config.chunk_steps, steps // 20))
    multiple = lambda every: max(1, round(every / config.chunk_steps)) * config.chunk_steps
    config.eval_every = multiple(max(config.eval_every * share, steps / 5))
    config.checkpoint_every = multiple(max(config.checkpoint_every * share, steps / 5))
    config.steps = steps


def first_seeds(config: Config, seeds: int) -> range:
    """The seed that each run of a network begins with: it has config.replicas of them.

    Raises: ValueError where `seeds` is no multiple of the replicas.
    """
    if seeds % config.replicas:
        more = seeds + config.replicas - seeds % config.replicas
        raise ValueError(
            f"--seeds={seeds} is not a multiple of replicas={config.replicas}; "
            f"nearest --seeds={more}"
        )
    return range(config.seed, config.seed + seeds, config.replicas)


def seeds(planned: Planned) -> range:
    """The seeds of a run, one a replica."""
    return configs.seeds(planned.config)


def folder(model: str, seed: int) -> epath.Path:
    """Where a run lives below the experiment's directory."""
    return epath.Path(WORKDIR.value) / f"{model}-seed{seed}"


def chosen(plan: Sequence[Planned]) -> Planned:
    """The run of --run. Raises: ValueError where there is none of that number."""
    if not 0 <= RUN.value < len(plan):
        raise ValueError(f"--run={RUN.value} is not one of --list's 0 to {len(plan) - 1}")
    return plan[RUN.value]


def show(plan: Sequence[Planned]) -> None:
    """Print what `--run` numbers: index, network, seed, steps done, directory."""
    for index, planned in enumerate(plan):
        records, steps = metrics.read(planned.workdir / "metrics.jsonl"), planned.config.steps
        at = max((record["step"] for record in records), default=0)
        state = "finished" if checkpoint.finished(planned.workdir, steps) else f"{at}/{steps}"
        seed = f"seed {planned.config.seed}"
        seed += f" to {seeds(planned)[-1]}" if planned.config.replicas > 1 else ""
        print(f"{index:4}  {planned.model:20} {seed}  {state:>12}  {planned.workdir}")


def execute(plan: Sequence[Planned]) -> None:
    """Train every planned run that is not finished, after all of them have been checked.

    Raises: FloatingPointError where runs diverged, after all the others.
    """
    apart = JOBS.value > 1 and RUN.value is None
    if apart:  # the accelerators are for the runs' processes, and this one would hold them
        jax.config.update("jax_platforms", "cpu")
        if jax.process_count() > 1:
            command.fail(f"--jobs={JOBS.value} is for one process; many do one run after another")
    with command.refusals():
        for planned in plan:
            configs.check(planned.config)
            directory.refuse_another(planned.workdir, planned.config)
    if apart:
        _execute_apart(plan)
        return
    failed = []
    for index, planned in enumerate(plan):
        with command.refusals():
            run = loop.prepare(planned.config, planned.workdir)
        if run is not None:
            number = f"[{index + 1}/{len(plan)}] " if len(plan) > 1 else ""
            loop.say(f"{number}{planned.name}")
            try:
                loop.train(run)
            except FloatingPointError as error:
                failed.append(f"{planned.name}: {error}")
                loop.say(failed[-1])
    if failed:
        runs = f"{len(failed)} of {len(plan)} runs diverged. " if len(plan) > 1 else ""
        raise FloatingPointError(runs + failed[0])


def _execute_apart(plan: Sequence[Planned]) -> None:
    """Train what is not finished, --jobs runs at a time; status 1 where one of them failed."""
    missing = {
        index: planned.name
        for index, planned in enumerate(plan)
        if not checkpoint.finished(planned.workdir, planned.config.steps)
    }
    if missing:
        with command.refusals():
            failed = jobs.run(missing, JOBS.value)
        if failed:
            command.fail(f"{len(failed)} of {len(plan)} runs failed. {failed[0]}", status=1)


def results(planned: Planned) -> list[dict[str, Any]]:
    """A finished run as results.json holds it, one of each seed; errors as fractions."""
    return [_result(planned, seed) for seed in seeds(planned)]


def _result(planned: Planned, seed: int) -> dict[str, Any]:
    config, records = planned.config, metrics.read(planned.workdir / "metrics.jsonl")
    examples = sources.info(config.data.name, config.data.dir).splits["train"]
    train = metrics.last_epoch(records, examples, seed)
    tests = (r for r in records if r["split"] == "test" and r["seed"] == seed)
    test = max(tests, key=lambda r: r["step"])
    image = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.float32)
    return {
        "model": planned.model,
        "family": planned.group,
        "depth": config.model.depth,
        "skip": config.model.skip,
        "merge": "plain" if config.model.skip == "none" else config.model.merge,
        "seed": seed,
        "parameters": measure.count(families.build(config), image)[0].parameters,
        "steps": config.steps,
        "train_loss": train["loss"],
        "train_error": train["error"],
        "test_error": test["error"],
        "seconds": sum(s.get("seconds", 0.0) for s in directory.read_starts(planned.workdir)),
        "workdir": str(planned.workdir),
    }


def curves(planned: Planned) -> list[dict[str, Any]]:
    """A run's training and test error against the step, of each seed."""
    records = metrics.read(planned.workdir / "metrics.jsonl")
    common = {
        "model": planned.model,
        "family": planned.group,
        "depth": planned.config.model.depth,
        "skip": planned.config.model.skip,
    }
    found = []
    for seed in seeds(planned):
        for split in ("train", "test"):
            own = [r for r in records if r["split"] == split and r["seed"] == seed and "loss" in r]
            lines = {name: [r[name] for r in own] for name in ("step", "error", "loss")}
            found.append(common | {"seed": seed, "split": split} | lines)
    return found


def hardware(plan: Sequence[Planned]) -> str:
    """What the runs were trained on; it need not be what reports."""
    count = lambda found: ", ".join(f"{n} x {device}" for device, n in Counter(found).items())
    starts = [s for planned in plan for s in directory.read_starts(planned.workdir)]
    kinds = {count(start["devices"]) for start in starts}
    if kinds <= {count(f"{d.platform}:{d.device_kind}" for d in jax.devices())}:
        return command.devices().removeprefix("devices: ")
    return "; ".join(sorted(kinds))


@distributed.by_first
def report(
    workdir: epath.Path, results: dict[str, Any], plan: Sequence[Planned], title: str
) -> None:
    """Write results.json, table.md, figure.png and report.html, and say the verdict."""
    lines = [curve for planned in plan for curve in curves(planned)]
    figures.error_curves(lines, workdir / "figure.png", title)
    directory.write(workdir / "results.json", json.dumps(results, indent=2) + "\n")
    directory.write(workdir / "table.md", tables.summary_table(results))
    versions = command.versions() | {"hardware": hardware(plan)}
    picture = (workdir / "figure.png").read_bytes()
    text = page.report(results, lines, picture, command.command_line(), versions, title)
    directory.write(workdir / "report.html", text)
    word = {True: "holds", False: "does not hold", None: "not shown at this scale"}
    verdict = results["verdict"]
    print(f"\n{tables.summary_table(results)}\n{results['claim']}")
    print(f"{word[verdict['holds']]}: {verdict['says']}")
    print(f"report: {workdir / 'report.html'}")
