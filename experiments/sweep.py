"""What becomes of the runs of a plan: they are listed, and trained unless they are finished.

A run is a config and a directory; the directory alone says how far the run is. `--run=I` does one
run and the same command without it does all that are missing, so that a cluster's scheduler needs
nothing else (docs/sweeps.md). `--jobs=N` does N runs at a time on this machine.
"""

from collections.abc import Mapping, Sequence

import jax

from experiments import jobs, results
from experiments.plan import NONE, Run
from resnet_jax import command, train
from resnet_jax.run import checkpoint, directory, records
from resnet_jax.run.start import say


def finished(run: Run) -> bool:
    """Return whether nothing is left to train: a run that diverged would diverge again."""
    if not run.trained or checkpoint.finished(run.workdir, run.config.steps):
        return True
    return bool(results.divergence(run))


def show(runs: Sequence[Run]) -> None:
    """Print the runs: number, network, seed, state, directory. scripts/*.sh read this."""
    for index, run in enumerate(runs):
        seed = f"seed {run.seeds[0]}" + (f" to {run.seeds[-1]}" if len(run.seeds) > 1 else "")
        print(f"{index:4}  {run.model:20} {seed}  {state(run):>12}  {run.workdir}")


def state(run: Run) -> str:
    """Return "diverged", "finished", or the number of steps done of all steps."""
    if run.trained and results.divergence(run):
        return "diverged"
    if finished(run):
        return "finished"
    lines = records.read(run.workdir / "metrics.jsonl")
    return f"{max((record['step'] for record in lines), default=0)}/{run.config.steps}"


def chosen(runs: Sequence[Run], index: int) -> Run:
    """Return the run of --run. Raises: ValueError if there is no run of that number."""
    if index >= len(runs):
        raise ValueError(f"--run={index} is not one of --list's 0 to {len(runs) - 1}")
    return runs[index]


def check(runs: Sequence[Run]) -> None:
    """Raise a ValueError if a directory holds a run of another config."""
    for run in runs:
        if run.trained:
            directory.refuse_another(run.workdir, run.config)


def execute(runs: Sequence[Run], rules: Mapping[str, str] = NONE) -> None:
    """Train the runs that are not finished, one after another.

    A run that diverges stops no other: its directory records that it did, and the report shows it.
    run.json records at each start the rules that the run will be judged by: {statement: digest}.
    """
    for index, run in enumerate(runs):
        if finished(run):
            continue
        with command.refusals():
            prepared = train.prepare(run.config, run.workdir)
        if prepared is None:
            continue
        say((f"[{index + 1}/{len(runs)}] " if len(runs) > 1 else "") + run.name)
        try:
            train.train(prepared, {"rules": dict(rules)})
        except FloatingPointError as error:
            directory.close_run(run.workdir, {results.DIVERGED: str(error)})
            say(f"{run.name} diverged: {error}")


def execute_apart(runs: Sequence[Run], at_once: int, words: Sequence[str]) -> None:
    """Train the runs that are not finished, `at_once` at a time, each in a process of its own.

    `words` are the command, without the program: a process adds its --run=I. Status 1 if some of
    the processes failed.
    """
    missing: dict[int, str] = {}
    directories = set()
    for index, run in enumerate(runs):
        if run.workdir not in directories and not finished(run):
            missing[index] = run.name
            directories.add(run.workdir)  # another run of this directory is the same run
    if jax.process_count() > 1:
        command.fail(f"--jobs={at_once} is for one process; a cluster does one run after another")
    if missing:
        with command.refusals():
            failed = jobs.run(missing, at_once, words)
        if failed:
            command.fail(f"{len(failed)} of {len(runs)} runs failed. {failed[0]}", status=1)
