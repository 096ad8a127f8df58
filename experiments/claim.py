"""A claim is a value: a statement, the runs that test it, and how a verdict follows from them.

An experiment is one file that defines a `Claim` and ends with

    main = claim.command(CLAIM)

    if __name__ == "__main__":
        command.run(main)

`python -m experiments.NAME` then lists its runs, does one of them, several at a time or all that
are missing, resumes what was stopped, and writes the report.
"""

import contextlib
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax

from experiments import clean, flags, jobs, network, plan, results, sweep
from experiments.plan import NONE, Network, Options, Run
from experiments.results import Row, scores
from resnet_jax import cluster
from resnet_jax import command as commands
from resnet_jax.analysis.statistics import FEWEST, Test, every
from resnet_jax.distributed import by_first

Kind = Literal["exact", "init", "trained"]


class Verdict(NamedTuple):
    """What the rows say of a statement.

    `holds` is true, false, or None if this scale cannot show it. `says` gives the numbers behind
    the verdict, in words. `test` decided it, or is None if the statement was not tested over seeds:
    it is exact, or nothing could be compared. If a control takes a yes away, `holds` is None and
    `test` keeps its own answer.
    """

    holds: bool | None
    says: str
    test: Test | None = None

    @classmethod
    def of(cls, test: Test, says: str) -> "Verdict":
        """Return the verdict of a test."""
        return cls(test.holds, says, test)

    @classmethod
    def of_each(cls, verdicts: Mapping[str, "Verdict"]) -> "Verdict":
        """Return the verdict that a statement holds of each of several arms: {arm: its verdict}.

        It is false if the statement is refuted for some arm; without arms nothing is decided.
        """
        if len(verdicts) == 1:
            return next(iter(verdicts.values()))
        says = " ".join(f"[{arm}] {verdict.says}" for arm, verdict in verdicts.items())
        tests = [verdict.test for verdict in verdicts.values() if verdict.test is not None]
        parts = [verdict.holds for verdict in verdicts.values() if verdict.test is None]
        test = every(*tests) if tests else None
        parts += [test.holds] if test else []
        holds = False if False in parts else True if parts and all(parts) else None
        says = says or "There is nothing to compare."
        return cls(holds, says, test if test and test.holds is holds else None)

    def told(self) -> dict[str, Any]:
        """Return the verdict as results.json and the index have it."""
        numbers = self.test._asdict() if self.test else dict.fromkeys(Test._fields)
        return numbers | {"holds": self.holds, "says": self.says}


class Statement(NamedTuple):
    """A sentence about the rows of a claim, and the rule by which they decide it.

    Attributes:
        name: the name in the index.
        says: the sentence.
        source: the paper, with its figure or table; "ours" if there is none.
        rule: how the verdict follows from the rows, with all thresholds.
        judge: the rows of all runs -> verdict.
        control: rows for which the rule must not say yes, made from the rows of all runs; None
            if the rows have none.
        against: the control in words, such as "residual networks in the place of plain ones".
    """

    name: str
    says: str
    source: str
    rule: str
    judge: Callable[[list[Row]], Verdict]
    control: Callable[[list[Row]], list[Row]] | None = None
    against: str = ""

    @property
    def digest(self) -> str:
        """The first digits of the SHA-256 of the rule, which each start of a run records."""
        return hashlib.sha256(self.rule.encode()).hexdigest()[:16]


class Claim(NamedTuple):
    """A statement about networks, and everything that decides it.

    Attributes:
        name: the name of the file, without .py.
        says, source, rule, judge: those of the claim's own `Statement`.
        plan: options -> runs (`Options.run` makes one).
        kind: "exact" (an equation or a count, without seeds), "init" (a property of the random
            start, over seeds) or "trained".
        measure: a finished run -> rows {column: value}, one for each seed. A column that is no
            number is not averaged.
        columns: the columns of the table, each with its format; {} are those of the task's score.
        figures: functions of the rows that return a matplotlib Figure, beside the curves. The
            first is the claim's picture in the index; without any, the curves are.
        depths: (data set, full) -> the depths without --depths and --models.
        models: the networks without --depths and --models, if they are not those of one family.
        dataset: the data set without --dataset.
        steps: the steps of a run on that data set; None stands for the recipe's.
        task: the task whose columns `judge` reads.
        examples: {split: examples} of the batches with which `measure` opens trained networks.
        recipe: the config file that trains as the source does, without .py; "" if there is none.
        published: {model: value of the last column} of the source, shown beside runs by `recipe`.
        control, against: the negative control of the claim's own statement.
        further: more statements about the same rows.
    """

    name: str
    says: str
    source: str
    rule: str
    plan: Callable[[Options], Sequence[Run]]
    judge: Callable[[list[Row]], Verdict]
    kind: Kind = "trained"
    measure: Callable[[Run], list[Row]] = scores
    columns: Mapping[str, str] = NONE
    figures: Sequence[Callable[[list[Row]], Any]] = ()
    depths: Callable[[str, bool], Sequence[int]] = lambda dataset, full: (20,)
    models: Sequence[Network] = ()
    dataset: str = "digits"
    steps: int | None = None
    task: str = "classification"
    examples: Mapping[str, int] = NONE
    recipe: str = ""
    published: Mapping[str, float] = NONE
    control: Callable[[list[Row]], list[Row]] | None = None
    against: str = ""
    further: Sequence[Statement] = ()

    @property
    def statements(self) -> tuple[Statement, ...]:
        """The claim's own statement, and the further ones."""
        own = (self.name, self.says, self.source, self.rule, self.judge, self.control, self.against)
        return Statement(*own), *self.further

    def options(self, arguments: commands.Arguments) -> Options:
        """Return what the flags ask for. Raises: ValueError in one line, as `flags.options`."""
        return flags.options(arguments, self.dataset, self.depths, self.models, self.steps)

    @property
    def rules(self) -> dict[str, str]:
        """The digest of each statement's rule, by the statement's name."""
        return {statement.name: statement.digest for statement in self.statements}


def command(claim: Claim) -> Callable[..., None]:
    """Return the command of a claim: `main(words)` reads a command line, this process's if None."""

    def main(words: Sequence[str] | None = None) -> None:
        purpose = " ".join(
            f"{of.says} Source: {of.source}. Rule: {of.rule}." for of in claim.statements
        )
        arguments = flags.parser(claim.name, purpose).read(words)
        jobs.end_with_the_sweep()
        apart = arguments.jobs > 1 and arguments.run is None
        if apart or arguments.list:  # this process must not take the accelerators from the runs
            jax.config.update("jax_platforms", "cpu")
        with contextlib.ExitStack() as stack:
            with commands.refusals():
                options = claim.options(arguments)
                runs = list(claim.plan(options))
                if claim.kind != "trained":
                    options.refuse_replicas()
                if not arguments.list:  # before the checks, which ask JAX for its devices
                    divide_cpu(runs)
                    stack.enter_context(cluster.join(arguments))
                plan.check(runs, options, claim.task)
                network.check(runs[0].config, claim.examples)
                if arguments.run is None and (few := few_seeds(claim, runs)):
                    warn(few)
                if not arguments.list:
                    sweep.check(runs)
            if arguments.list:
                sweep.show(runs)
            elif arguments.run is not None:
                with commands.refusals():
                    run = sweep.chosen(runs, arguments.run)
                sweep.execute([run], claim.rules)
            else:
                if apart:
                    sweep.execute_apart(runs, arguments.jobs, sys.orig_argv[1:])
                else:
                    sweep.execute(runs, claim.rules)
                with commands.refusals():
                    conclude(claim, options, runs)

    return main


def divide_cpu(runs: Sequence[Run]) -> None:
    """Have JAX divide the CPU into as many devices as each run has replicas.

    Replicas need a device each, or an equal share of the devices. Accelerators are not affected,
    nor is a process that uses its CPU already, or whose XLA_FLAGS say how to divide it.
    """
    replicas = {run.config.replicas for run in runs}
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if len(replicas) == 1 and replicas != {1} and not chosen:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", *replicas)


def few_seeds(claim: Claim, runs: Sequence[Run]) -> str:
    """Return that the runs have too few seeds for a test, in words; "" if they have enough."""
    seeds = Counter(run.model for run in runs for _ in run.seeds)
    fewest = min(seeds.values())
    if claim.kind == "exact" or fewest >= FEWEST:
        return ""
    return (
        f"{fewest} {'seed' if fewest == 1 else 'seeds'} of each network cannot decide the claim; "
        f"give --seeds={FEWEST} or more"
    )


@by_first
def warn(line: str) -> None:
    """Print a warning on stderr: scripts read the list of runs on stdout."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


def conclude(claim: Claim, options: Options, runs: Sequence[Run]) -> dict[str, Any]:
    """Measure finished runs, judge them and write the report; return the content of results.json.

    Raises: ValueError if two rows have the same model and seed.
    """
    from experiments import report  # late: the import of matplotlib takes a second
    from resnet_jax.reporting import tables

    common = options.changes()
    clean.measure([run for run in runs if run.trained and not results.divergence(run)])
    rows = [
        results.named(run) | row | {"changes": [*common, *run.chosen]}
        for run in runs
        for row in claim.measure(run)
    ]
    columns = claim.columns or results.score_of(runs[0].config).columns
    summary = tables.summarise(rows, tuple(columns))
    if report.published(options, claim.recipe):
        summary = [row | {"paper": claim.published.get(row["model"])} for row in summary]
    dataset = plan.dataset_name(runs[0].config)
    statements = [judged(statement, rows, runs) for statement in claim.statements]
    results.record_rules(runs, claim.rules)
    content = {
        "name": claim.name,
        "kind": claim.kind,
        "claim": claim.says,
        "source": claim.source,
        "dataset": dataset,
        "verdict": statements[0]["verdict"],
        "statements": statements,
        "chosen": {run.model: run.chosen for run in runs},
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


def diverged(rows: Sequence[Row]) -> str:
    """Return which networks have runs that diverged, in words; "" if none has."""
    lost = Counter(row["model"] for row in rows if row.get("note") == results.DIVERGED)
    if not lost:
        return ""
    named = ", ".join(f"{model} ({count})" for model, count in lost.items())
    return f"Runs that diverged, and count as networks that learned nothing: {named}."


def judged(statement: Statement, rows: list[Row], runs: Sequence[Run]) -> dict[str, Any]:
    """Return a statement with the verdicts on the rows and on its control, as results.json has it.

    If the rule says yes to the control too, its yes to the rows shows nothing: the verdict is None.
    """
    verdict, control = Verdict(None, "Nothing was measured."), None
    if rows:
        verdict = statement.judge(rows)
    if lost := diverged(rows):
        verdict = verdict._replace(says=f"{verdict.says} {lost}")
    if rows and statement.control is not None:
        of_control = statement.judge(statement.control(rows))
        control = {"against": statement.against} | of_control.told()
        if verdict.holds and of_control.holds:
            says = f"{verdict.says} But the rule also says yes to its control."
            verdict = verdict._replace(holds=None, says=says)
    return {
        "name": statement.name,
        "claim": statement.says,
        "source": statement.source,
        "verdict": {"rule": statement.rule} | verdict.told(),
        "control": control,
        "rule_changed": results.other_rules(runs, statement.name, statement.digest),
    }
