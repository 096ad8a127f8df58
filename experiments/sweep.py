"""What every experiment shares: the runs that a claim needs, and what has become of them.

A run is a config and a directory; a finished one is not run again. `--list` prints the runs,
`--run=I` does one, neither does what is missing and reports: a cluster's scheduler needs no more.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import config_flags

from resnet_jax import command
from resnet_jax import config as configs
from resnet_jax.config import Config
from resnet_jax.data import sources
from resnet_jax.models import measure
from resnet_jax.reporting import figures, page, tables
from resnet_jax.training import directory, loop, metrics

CONFIGS = Path(__file__).parent.parent / "configs"

# Any: a checker cannot know a flag's type.
DATASET: Any = flags.DEFINE_string("dataset", "digits", "a config's name or a tfds data set's")
DATA_DIR: Any = flags.DEFINE_string("data_dir", "", "tensorflow-datasets folder")
DEPTHS: Any = flags.DEFINE_list("depths", None, "layers of the networks, e.g. 20,56,110")
MODELS: Any = flags.DEFINE_list("models", None, "FAMILY:DEPTH,... instead of --depths")
SEEDS: Any = flags.DEFINE_integer("seeds", None, "runs of each network", lower_bound=1)
STEPS: Any = flags.DEFINE_integer("steps", None, "steps of each run; the schedule scales along")
FULL: Any = flags.DEFINE_boolean("full", False, "the paper's scale")
LIST: Any = flags.DEFINE_boolean("list", False, "print the runs and stop")
RUN: Any = flags.DEFINE_integer("run", None, "do this run of --list alone")
WORKDIR: Any = flags.DEFINE_string("workdir", None, "the experiment's directory")
_CONFIG: Any = config_flags.DEFINE_config_file("config", None, "instead of the data set's own")
flags.mark_flag_as_required("workdir")


Depths = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run: `model` names its network, `group` the networks it is compared with."""

    model: str
    group: str
    config: Config
    workdir: Path


def parse(main: Callable[[], None], default_depths: Callable[[str, bool], Depths]) -> None:
    """Run an experiment's `main` with its flags parsed.

    Unless --config says otherwise, --dataset chooses the recipe, configs/NAME.py or the one for
    its image size, as it is for the deepest network: a comparison of depths has one recipe.
    """
    given = [a for a in sys.argv if a.lstrip("-").startswith("config")]
    argv = list(sys.argv)
    if not any(a.lstrip("-").startswith("config=") for a in given):
        with command.refusals(flags.Error):
            flags.FLAGS([a for a in sys.argv if a not in given], known_only=True)
            name = DATASET.value
            path = CONFIGS / f"{name}.py"
            if not path.exists():
                small = sources.info(name, DATA_DIR.value).shape[0] <= 28
                path = CONFIGS / ("mnist.py" if small else "cifar10.py")
            deepest = max(depth for _, depth in networks(default_depths))
        argv.insert(1, f"--config={path}:depth={deepest}")
    command.run(main, argv)


def networks(default_depths: Callable[[str, bool], Depths]) -> list[tuple[str, int]]:
    """(family, depth) of --models or --depths, or of the default.

    Raises: ValueError where one of them does not read so.
    """
    if MODELS.value:
        pairs = [model.rpartition(":")[::2] for model in MODELS.value]
    else:
        depths = DEPTHS.value or default_depths(DATASET.value, FULL.value)
        pairs = [("resnet", str(depth)) for depth in depths]
    for family, depth in pairs:
        if not family or not depth.isdigit():
            raise ValueError(f"{family}:{depth} is not FAMILY:DEPTH, such as resnet:20")
    return [(family, int(depth)) for family, depth in pairs]


def base_config() -> Config:
    """The sweep's recipe: the config of the data set, with the overrides and --steps applied."""
    config = _CONFIG.value.copy_and_resolve_references()
    about = sources.info(DATASET.value, DATA_DIR.value or config.data.dir)
    with config.unlocked():
        config.data.name = DATASET.value
        config.data.dir = DATA_DIR.value or config.data.dir
        config.data.shape = tuple(about.shape)
        config.model.num_classes = about.num_classes
    if STEPS.value is not None:
        scale(config, STEPS.value)
    return config


def scale(config: Config, steps: int) -> None:
    """Shorten or lengthen the run: boundaries keep their share of it, and so do the intervals.

    A warm-up is a number of steps, not a share, but never more than a tenth of the run.
    """
    share = steps / config.steps
    config.schedule.boundaries = tuple(round(b * share) for b in config.schedule.boundaries)
    config.schedule.warmup_steps = min(config.schedule.warmup_steps, steps // 10)
    config.chunk_steps = max(1, min(config.chunk_steps, steps // 20))
    multiple = lambda every: max(1, round(every / config.chunk_steps)) * config.chunk_steps
    config.eval_every = multiple(max(config.eval_every * share, steps / 5))
    config.checkpoint_every = multiple(max(config.checkpoint_every * share, steps / 5))
    config.steps = steps


def folder(model: str, seed: int) -> Path:
    """Where a run lives below the experiment's directory."""
    return Path(WORKDIR.value) / f"{model}-seed{seed}"


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
        state = "finished" if directory.finished(planned.workdir, steps) else f"{at}/{steps}"
        seed = f"seed {planned.config.seed}"
        print(f"{index:4}  {planned.model:20} {seed}  {state:>12}  {planned.workdir}")


def execute(plan: Sequence[Planned]) -> None:
    """Train every planned run that is not finished, after all of them have been checked."""
    with command.refusals():
        for planned in plan:
            configs.check(planned.config)
            directory.refuse_another(planned.workdir, planned.config)
    for index, planned in enumerate(plan):
        with command.refusals():
            run = loop.prepare(planned.config, planned.workdir)
        if run is not None:
            print(
                f"[{index + 1}/{len(plan)}] {planned.model}, seed {planned.config.seed}", flush=True
            )
            loop.train(run)


def result(planned: Planned) -> dict[str, Any]:
    """A finished run as results.json holds it; errors as fractions."""
    config, records = planned.config, metrics.read(planned.workdir / "metrics.jsonl")
    examples = sources.info(config.data.name, config.data.dir).splits["train"]
    train = metrics.last_epoch(records, examples)
    test = max((r for r in records if r["split"] == "test"), key=lambda r: r["step"])
    image = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.float32)
    return {
        "model": planned.model,
        "family": planned.group,
        "depth": config.model.depth,
        "skip": config.model.skip,
        "merge": "plain" if config.model.skip == "none" else config.model.merge,
        "seed": config.seed,
        "parameters": measure.count(configs.build(config), image)[0].parameters,
        "steps": config.steps,
        "train_loss": train["loss"],
        "train_error": train["error"],
        "test_error": test["error"],
        "seconds": sum(s.get("seconds", 0.0) for s in directory.read_starts(planned.workdir)),
        "workdir": str(planned.workdir),
    }


def curves(planned: Planned) -> list[dict[str, Any]]:
    """A run's training and test error against the step."""
    records = metrics.read(planned.workdir / "metrics.jsonl")
    common = {
        "model": planned.model,
        "family": planned.group,
        "depth": planned.config.model.depth,
        "skip": planned.config.model.skip,
        "seed": planned.config.seed,
    }
    of = lambda split, name: [r[name] for r in records if r["split"] == split]
    return [
        common | {"split": split} | {name: of(split, name) for name in ("step", "error", "loss")}
        for split in ("train", "test")
    ]


def report(workdir: Path, results: dict[str, Any], plan: Sequence[Planned], title: str) -> None:
    """Write results.json, table.md, figure.png and report.html, and say the verdict."""
    lines = [curve for planned in plan for curve in curves(planned)]
    figures.error_curves(lines, workdir / "figure.png", title)
    directory.write(workdir / "results.json", json.dumps(results, indent=2) + "\n")
    directory.write(workdir / "table.md", tables.summary_table(results))
    versions = command.versions() | {"hardware": command.devices().removeprefix("devices: ")}
    picture = (workdir / "figure.png").read_bytes()
    text = page.report(results, lines, picture, command.command_line(), versions, title)
    directory.write(workdir / "report.html", text)
    word = {True: "holds", False: "does not hold", None: "not shown at this scale"}
    verdict = results["verdict"]
    print(f"\n{tables.summary_table(results)}\n{results['claim']}")
    print(f"{word[verdict['holds']]}: {verdict['says']}")
    print(f"report: {workdir / 'report.html'}")
