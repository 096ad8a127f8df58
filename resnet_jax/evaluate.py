"""Measure a run's newest checkpoint on its whole test split."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from resnet_jax import command, trained
from resnet_jax.tasks import TASKS
from resnet_jax.tasks.task import Dataset
from resnet_jax.training import feeds, shard
from resnet_jax.training.evaluation import evaluator


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, print what was measured, and write it as JSON."""
    parser = command.Parser(
        "resnet_jax.evaluate",
        "Measure a run's newest checkpoint on its whole test split, every example once.",
        "python -m resnet_jax.evaluate --workdir=runs/resnet-20 --json=errors.json",
    )
    parser.add_run()
    parser.add_json("the numbers")
    parser.add_data()
    arguments = parser.read(words)
    with command.refusals():
        if arguments.json is not None:
            command.check_file("--json", arguments.json, "evaluation.json")
        run = trained.load(
            *(arguments.workdir, arguments.data_dir, arguments.replica, arguments.data_name),
            best=arguments.best,
        )
        task = TASKS[run.config.task]
        statistics = trained.statistics(run)
        try:
            if task.build_test is None:
                dataset = task.build(run.config)
            else:
                dataset = task.build_test(run.config, statistics)
        except ValueError as error:
            if arguments.data_name is None:
                raise
            named = f"--data_name={arguments.data_name} with the run in {run.workdir}"
            raise ValueError(f"{named}: {error}") from None
    measured = evaluate(run, dataset, statistics)
    print(f"{run.workdir}: {words_of(measured, task.shown)} at step {run.step}")
    if arguments.json is not None:
        with command.refusals():
            written = {"step": run.step, **measured}
            arguments.json.write_text(json.dumps(written, indent=2) + "\n", "utf-8")


def evaluate(
    run: trained.Trained, dataset: Dataset, statistics: dict[str, Any], split: str = "test"
) -> dict[str, Any]:
    """Return the means over a split, with every example seen once.

    The task's protocol says how an example is shown to the network, also if `split` is "train".
    Raises: FloatingPointError if the loss is not finite.
    """
    return compiled(run, dataset, statistics, split)(run)


def compiled(
    run: trained.Trained, dataset: Dataset, statistics: dict[str, Any], split: str = "test"
) -> Callable[[trained.Trained], dict[str, Any]]:
    """Return `evaluate` as a function of the run, for runs that differ in their states alone."""
    task, mesh = TASKS[run.config.task], shard.mesh(devices=1)
    prepare = task.prepare(run.config, statistics)
    # No step of training is left, for which a feed of the training split would read ahead.
    feed = feeds.feed(mesh, dataset, split, run.config, first=run.config.steps)
    measure = evaluator(run.net.apply, prepare, task.evaluation, run.state, feed, mesh)
    name = dataset.test_split if split == "test" else split

    def means_of(run: trained.Trained) -> dict[str, Any]:
        (means,) = measure(run.state)
        if not math.isfinite(means["loss"]):
            raise FloatingPointError(f"{run.workdir}: the {name} loss is {means['loss']}")
        examples = means.pop("examples")
        return {"split": name, "examples": examples, **means, "protocol": task.protocol}

    return means_of


def words_of(measured: dict[str, Any], shown: str) -> str:
    """Return the means in words: scores first, then the loss and the number of examples."""
    facts = ("split", "examples", "protocol", "loss")
    scores = [f"{name} {value:{shown}}" for name, value in measured.items() if name not in facts]
    loss = f"loss {measured['loss']:.4f} over {measured['examples']:,} examples"
    return f"{measured['split']} {', '.join([*scores, loss])} ({measured['protocol']})"


if __name__ == "__main__":
    command.run(main)
