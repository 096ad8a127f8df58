"""What the directory of a finished run says: rows with named columns, and curves."""

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from experiments.clean import clean
from experiments.plan import Run
from resnet_jax import families, provenance
from resnet_jax.data import sources
from resnet_jax.keys import Config
from resnet_jax.reporting.tables import Score
from resnet_jax.run import directory, records
from resnet_jax.tasks import TASKS, image_data

# A row of a table: {column: value}.
Row = dict[str, Any]
# The key of run.json, and the note in a table, of a run that diverged.
DIVERGED = "diverged"


def score_of(config: Config) -> Score:
    """Return the score of a config's task."""
    task = TASKS[config.task]
    return Score(task.score, task.shown)


def divergence(run: Run) -> str:
    """Return why the run's last start ended without a result, or "" if it did not diverge."""
    starts = directory.read_starts(run.workdir)
    return starts[-1].get(DIVERGED, "") if starts else ""


def other_rules(runs: Sequence[Run], statement: str, digest: str) -> bool:
    """Return whether some run records another rule of this statement than the digest's."""
    recorded = {rules.get(statement) for run in runs if run.trained for rules in rules_of(run)}
    return bool(recorded - {None, digest})


def rules_of(run: Run) -> list[dict[str, str]]:
    """Return the rules that each start of a run records: {statement: digest}."""
    return [start.get("rules", {}) for start in directory.read_starts(run.workdir)]


def record_rules(runs: Sequence[Run], rules: Mapping[str, str]) -> None:
    """Record the rules of a claim before its results are shown, in runs that do not know them.

    These are runs that another claim has trained.
    """
    for run in runs:
        if not run.trained:
            continue
        recorded = rules_of(run)
        known = {name for each in recorded for name in each}
        if new := {name: digest for name, digest in rules.items() if name not in known}:
            with contextlib.suppress(PermissionError):  # runs of another user
                directory.close_run(run.workdir, {"rules": recorded[-1] | new})


def scores(run: Run) -> list[Row]:
    """Return a row for each seed of a finished run, with the loss and the score of its task.

    `train_*` are means over the last epoch, as seen in training (records.last_epoch); `clean_*` are
    those of the finished network on the training split, as in evaluation (experiments/clean.py);
    `test_*` are those of the last evaluation. `chance_*` is the score of the best constant
    prediction. `seconds` is the time of all starts of the run, `revision` the last start's git
    revision. Errors are fractions. A run that diverged counts as one that has learned nothing: its
    scores are those of chance, its loss is that of equal probabilities, and its note says
    "diverged".
    """
    config, score = run.config, score_of(run.config).name
    lines = records.read(run.workdir / "metrics.jsonl")
    starts = directory.read_starts(run.workdir)
    skip = config.model.get("skip", "none")
    common = {
        "skip": skip,
        "merge": "plain" if skip == "none" else config.model.merge,
        "parameters": parameters(config),
        "steps": config.steps,
        "seconds": sum(start.get("seconds", 0.0) for start in starts),
        "workdir": str(run.workdir),
        "revision": starts[-1]["versions"]["revision"],
        f"chance_{score}": starts[-1][f"chance_{score}"],
    }
    if divergence(run):
        chance = common[f"chance_{score}"]
        loss = math.log(config.model.num_classes) if "num_classes" in config.model else chance
        of_chance = {f"{when}_{score}": chance for when in ("train", "clean", "test")}
        learned_nothing = {"train_loss": loss, **of_chance, "note": DIVERGED}
        return [common | {"seed": seed} | learned_nothing for seed in run.seeds]
    rows = []
    for seed, after in zip(run.seeds, clean(run), strict=True):
        train = records.last_epoch(lines, examples(config), seed, score)
        tests = (line for line in lines if line["split"] == "test" and line["seed"] == seed)
        test = max(tests, key=lambda line: line["step"])
        row = {"seed": seed, "train_loss": train["loss"]}
        row |= {f"train_{score}": train[score], f"clean_{score}": after.get(score)}
        row |= {f"test_{score}": test[score]}
        rows.append(common | row)
    return rows


def parameters(config: Config) -> int:
    """Return the number of parameters of a config's network."""
    return sum(leaf.size for leaf in jax.tree.leaves(families.shapes(config)["params"]))


def curves(run: Run) -> list[Row]:
    """Return the loss and the score against the step, for each seed and split of a run."""
    lines = records.read(run.workdir / "metrics.jsonl")
    score = score_of(run.config).name
    result = []
    for seed in run.seeds:
        for split in ("train", "test"):
            own = [
                line
                for line in lines
                if line["split"] == split and line["seed"] == seed and score in line
            ]
            columns = {name: [line[name] for line in own] for name in ("step", "loss", score)}
            result.append(named(run) | {"seed": seed, "split": split} | columns)
    return result


def named(run: Run) -> Row:
    """Return the columns that every row of a run has."""
    return {
        "model": run.model,
        "arm": run.arm,
        "depth": run.config.model.depth,
        "seed": run.config.seed,
    }


def versions(runs: list[Run]) -> dict[str, str]:
    """Return the versions and the hardware of the runs, which need not be those of this process.

    Versions that differ between the starts of the runs are joined by semicolons.
    """
    starts = [start for run in runs if run.trained for start in directory.read_starts(run.workdir)]
    own = provenance.versions()
    if not starts:
        return own | {"hardware": provenance.devices().removeprefix("devices: ")}
    of_runs = [start.get("versions", {}) for start in starts]
    names = dict.fromkeys(name for each in (*of_runs, own) for name in each)
    joined = {
        name: "; ".join(dict.fromkeys(each.get(name) or "unknown" for each in of_runs))
        for name in names
    }
    revisions = {
        "revision of the runs": joined.pop("revision"),
        "revision of this report": own["revision"] or "unknown",
    }
    return joined | revisions | {"hardware": hardware(starts)}


def hardware(starts: list[Row]) -> str:
    """Return the devices of the starts of runs; in this machine's words if they are its own."""
    count = lambda devices: ", ".join(f"{n} x {kind}" for kind, n in Counter(devices).items())
    kinds = {count(start["devices"]) for start in starts}
    if kinds <= {count(f"{d.platform}:{d.device_kind}" for d in jax.devices())}:
        return provenance.devices().removeprefix("devices: ")
    return "; ".join(sorted(kinds))


def examples(config: Config) -> int:
    """Return the number of training examples in an epoch, without those set aside."""
    if "name" in config.data:
        return image_data.trained_on(config, sources.info(config.data.name, config.data.dir))
    return len(TASKS[config.task].build(config).train)
