"""A claim is a value: a statement, the runs that test it, and how a verdict follows from them.

An experiment is one file that defines a `Claim` and ends with

    main = claim.command(CLAIM)

    if __name__ == "__main__":
        command.run(main)

`python -m experiments.NAME` then lists its runs, does one of them, several at a time or all that
are missing, resumes what was stopped, and writes the report.
"""

import contextlib
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from experiments import flags, jobs, plan, results, sweep
from experiments.plan import NONE, Options, Run
from experiments.results import Row, scores
from resnet_jax import cluster
from resnet_jax import command as commands


class Verdict(NamedTuple):
    """What the runs say: `holds` is true, false, or None if this scale cannot show it.

    `says` gives the numbers behind the verdict, in words.
    """

    holds: bool | None
    says: str


class Claim(NamedTuple):
    """A statement about trained networks, and everything that decides it.

    Attributes:
        name: the name of the file, without .py.
        says: the statement, one sentence.
        source: the paper, with its figure or table; "ours" if there is none.
        rule: how the verdict follows from the rows, with all thresholds.
        plan: options -> runs (`Options.run` makes one).
        judge: the rows of all runs -> verdict.
        measure: a finished run -> rows {column: value}, one for each seed.
        columns: the columns of the table, each with its format; {} are those of the task's score.
        figures: functions of the rows that return a matplotlib Figure, beside the curves.
        depths: (data set, full) -> the depths without --depths and --models.
        dataset: the data set without --dataset.
        task: the task whose columns `judge` reads.
        recipe: the config file that trains as the source does, without .py; "" if there is none.
        published: {model: value of the last column} of the source, shown beside runs by `recipe`.
    """

    name: str
    says: str
    source: str
    rule: str
    plan: Callable[[Options], Sequence[Run]]
    judge: Callable[[list[Row]], Verdict]
    measure: Callable[[Run], list[Row]] = scores
    columns: Mapping[str, str] = NONE
    figures: Sequence[Callable[[list[Row]], Any]] = ()
    depths: Callable[[str, bool], Sequence[int]] = lambda dataset, full: (20,)
    dataset: str = "digits"
    task: str = "classification"
    recipe: str = ""
    published: Mapping[str, float] = NONE


def command(claim: Claim) -> Callable[..., None]:
    """Return the command of a claim: `main(words)` reads a command line, this process's if None."""

    def main(words: Sequence[str] | None = None) -> None:
        purpose = "\n".join(
            textwrap.fill(text, 88)
            for text in (claim.says, f"Source: {claim.source}.", f"Rule: {claim.rule}.")
        )
        arguments = flags.parser(claim.name, purpose).read(words)
        jobs.end_with_the_sweep()
        apart = arguments.jobs > 1 and arguments.run is None
        if apart or arguments.list:  # this process must not take the accelerators from the runs
            jax.config.update("jax_platforms", "cpu")
        with contextlib.ExitStack() as stack:
            with commands.refusals():
                options = flags.options(arguments, claim.dataset, claim.depths)
                runs = list(claim.plan(options))
                if not arguments.list:  # before the checks, which ask JAX for its devices
                    stack.enter_context(cluster.join(arguments))
                plan.check(runs, options, claim.task)
                if not arguments.list:
                    sweep.check(runs)
            if arguments.list:
                sweep.show(runs)
            elif arguments.run is not None:
                with commands.refusals():
                    run = sweep.chosen(runs, arguments.run)
                sweep.execute([run])
            else:
                if apart:
                    sweep.execute_apart(runs, arguments.jobs, sys.orig_argv[1:])
                else:
                    sweep.execute(runs)
                conclude(claim, options, runs)

    return main


def conclude(claim: Claim, options: Options, runs: Sequence[Run]) -> dict[str, Any]:
    """Measure finished runs, judge them and write the report; return the content of results.json.

    Raises: ValueError if two rows have the same model and seed.
    """
    from experiments import report  # late: the import of matplotlib takes a second
    from resnet_jax.reporting import tables

    rows = [
        results.named(run) | row | {"changes": report.changes(options, run)}
        for run in runs
        for row in claim.measure(run)
    ]
    columns = claim.columns or results.score_of(runs[0].config).columns
    summary = tables.summarise(rows, tuple(columns))
    if report.published(options, claim.recipe):
        summary = [row | {"paper": claim.published.get(row["model"])} for row in summary]
    dataset = plan.dataset_name(runs[0].config)
    verdict = claim.judge(rows)
    content = {
        "claim": claim.says,
        "source": claim.source,
        "dataset": dataset,
        "verdict": {"holds": verdict.holds, "rule": claim.rule, "says": verdict.says},
        "runs": rows,
        "summary": summary,
    }
    report.write(
        content,
        runs,
        options,
        title=f"{claim.name.replace('_', ' ').capitalize()} on {dataset}",
        origin=report.origin(claim.source, claim.recipe, options),
        columns=columns,
        drawings=claim.figures,
    )
    return content
