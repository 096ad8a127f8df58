"""Every claim: does what is missing for each, and writes an index of the verdicts.

Each claim is a process of its own, `python -m experiments.NAME --workdir=DIR/NAME --runs=DIR/runs`,
so that a claim that fails stops no other, and all claims share their runs. What the process prints
is shown and kept in DIR/NAME/log.txt. A claim is not repeated if its results are of today's rules
and code (fingerprint.py), of the same options and of the same runs. DIR/index.html and
DIR/index.json have the verdicts, corrected together.

    python -m experiments.all --workdir=runs/claims
"""

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import jax

from experiments import fingerprint, flags, index, jobs, listing, untested
from experiments.claim import Claim, Kind
from resnet_jax import command, provenance
from resnet_jax.keys import LARGEST_STEP
from resnet_jax.reporting import index_page, page
from resnet_jax.run import directory
from resnet_jax.run.start import say

RECORD = "all.json"  # in DIR/NAME: what the last process of the claim was, and whether it failed
STOPPED = "stopped; the same command goes on"


def parser() -> command.Parser:
    """Return the parser of `python -m experiments.all`."""
    parser = command.Parser(
        "experiments.all",
        "Do what is missing for every claim, and write an index of the verdicts.",
        "python -m experiments.all --workdir=runs/claims --jobs=2",
    )
    add, whole = parser.add_argument, command.whole
    add("--workdir", help="the directory of the index, with a folder for each claim")
    add("--list", action="store_true", help="print the statements, a line each, and stop")
    add("--only", metavar="NAME,...", help="do these claims; the index has all that were done")
    add("--kind", choices=get_args(Kind), help="do the claims of this kind")
    add("--again", action="store_true", help="measure and judge anew what is done, too")
    add("--jobs", type=whole(1), default=1, metavar="N", help="runs at a time on this machine")
    add("--full", action="store_true", help="the scale of the papers")
    add("--seeds", type=whole(1, flags.MOST_SEEDS), metavar="N", help="runs of each network")
    add("--steps", type=whole(1, LARGEST_STEP), metavar="N", help="steps of each run")
    return parser


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, do the claims that are missing, and write the index."""
    arguments = parser().read(words)
    jax.config.update("jax_platforms", "cpu")  # the claims take the accelerators, this process none
    claims = listing.claims()
    with command.refusals():
        only = list(claims)
        if arguments.only is not None:
            only = listing.named(arguments.only.split(","), claims)
        kinds = [arguments.kind] if arguments.kind else get_args(Kind)
        chosen = {name: claims[name] for name in only if claims[name].kind in kinds}
        if not chosen:
            raise ValueError(f"no claim of --only={arguments.only} is of --kind={arguments.kind}")
    if arguments.list:
        for columns, says in listing.lines(chosen):
            print(f"{columns}{says}")
        return
    with command.refusals():
        workdir = folder(arguments.workdir)
        workdir.mkdir(parents=True, exist_ok=True)
    counts = {"seeds": arguments.seeds, "steps": arguments.steps}
    options = [f"--{name}={count}" for name, count in counts.items() if count is not None]
    options += ["--full"] * arguments.full
    with directory.locked(workdir):
        try:
            failed = do_missing(chosen, workdir, options, arguments.jobs, arguments.again)
        finally:
            show(write(claims, workdir))
            say(f"index: {workdir / 'index.html'}")
    if failed:
        command.fail(f"{len(failed)} of {len(chosen)} claims failed: {', '.join(failed)}", status=1)


def folder(name: str | None) -> Path:
    """Return the directory of --workdir. Raises: ValueError if there can be no index in it."""
    if name is None:
        raise ValueError("--workdir is missing; name a folder, such as --workdir=runs/claims")
    workdir = directory.at(name)
    if directory.is_remote(workdir):
        raise ValueError(f"--workdir={name}: an index and its logs need a local folder")
    directory.refuse_unwritable(workdir)
    return Path(workdir)


def do_missing(
    claims: Mapping[str, Claim], workdir: Path, options: Sequence[str], at_once: int, again: bool
) -> list[str]:
    """Do the claims that are not complete, or all of them `again`; return those that failed."""
    failed = []
    for place, (name, claim) in enumerate(claims.items()):
        state = identity(claim, workdir, options)
        done_before = not again and judged(claim, workdir) and complete(workdir / name, state)
        say(f"[{place + 1}/{len(claims)}] {name}" + ": done before" * done_before)
        words = [*command_words(claim, workdir), *options, f"--jobs={at_once}"]
        if not done_before and (error := do(workdir / name, words, state)):
            say(f"{name} failed: {error}")
            failed.append(name)
    return failed


def command_words(claim: Claim, workdir: Path) -> list[str]:
    """Return the words by which Python does a claim, without options."""
    places = [f"--workdir={workdir / claim.name}", f"--runs={workdir / 'runs'}"]
    return ["-m", f"experiments.{claim.name}", *places]


def do(own: Path, words: Sequence[str], state: Mapping[str, Any]) -> str:
    """Do a claim in a process of its own, and record how it ended; return why it failed, or ''.

    `own` is the claim's directory, `words` is its command, and `state` its `identity`.
    """
    own.mkdir(parents=True, exist_ok=True)
    record = read(own)
    directory.write(own / RECORD, json.dumps({"seconds": record.get("seconds", 0.0)}) + "\n")
    began, error = time.monotonic(), STOPPED
    try:
        with (own / "log.txt").open("a", encoding="utf-8") as log:

            def show(line: str) -> None:
                say(f"{own.name}: {line}")
                log.write(f"{line}\n")
                log.flush()

            log.write(f"$ {shlex.join(['python', *words])}    ({now()})\n")
            error = process(words, show)
    finally:
        # A process that is stopped goes on later: its time counts, too.
        seconds = record.get("seconds", 0.0) + time.monotonic() - began
        results = own / "results.json"
        if not error and not results.exists():
            error = "its command wrote no results.json"
        about = {**state, "seconds": seconds, "error": error}
        if not error:
            about["results"] = digest(results.read_bytes())
        directory.write(own / RECORD, json.dumps(about, indent=2) + "\n")
    return error


def process(words: Sequence[str], show: Callable[[str], None]) -> str:
    """Do a command of Python in a process of its own; return why it failed, or ''."""
    return jobs.complete(jobs.do(words, {"PYTHONUNBUFFERED": "1"}, show), STOPPED)


def identity(claim: Claim, workdir: Path, options: Sequence[str]) -> dict[str, Any]:
    """Return what must be the same for a claim's results to stand: rules, code, options, runs."""
    runs: list[str] | None = None
    # A plan that is refused is no reason to stop: the claim's own process says what is wrong.
    with suppress(ValueError, OSError):
        runs = planned(claim, workdir, options)
    return {
        "rules": claim.rules,
        "code": fingerprint.digest(claim.name, claim.kind == "trained"),
        "options": list(options),
        "runs": runs,
    }


def planned(claim: Claim, workdir: Path, options: Sequence[str]) -> list[str]:
    """Return the names of the directories of a claim's runs. Raises: ValueError if it is refused.

    The names follow from the configs (`plan.folder`).
    """
    words = [*command_words(claim, workdir)[2:], *options]
    arguments = flags.parser(claim.name, claim.says).read(words)
    return sorted({run.workdir.name for run in claim.plan(claim.options(arguments))})


def complete(own: Path, state: Mapping[str, Any]) -> bool:
    """Return whether the last process in a claim's directory was of this `identity`."""
    record = read(own)
    return record == {**record, **state}


def judged(claim: Claim, workdir: Path) -> bool:
    """Return whether the results of a claim are those of its last process, by today's rules."""
    record, results = read(workdir / claim.name), workdir / claim.name / "results.json"
    written = results.exists() and record.get("results") == digest(results.read_bytes())
    return written and record.get("rules") == claim.rules


def read(own: Path) -> dict[str, Any]:
    """Return the record of a claim's last process; {} if there is none."""
    path = own / RECORD
    return directory.read(path) if path.exists() else {}


def digest(content: bytes) -> str:
    """Return the first digits of the SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def now() -> str:
    """Return the time, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def done(claim: Claim, workdir: Path) -> index.Done | None:
    """Return what is known of a claim; None if it was never done, or by another rule."""
    own, results = workdir / claim.name, None
    record = read(own)
    error = record.get("error", "")
    if judged(claim, workdir):
        results = directory.read(own / "results.json")
    elif not error or error == STOPPED:
        return None
    figures = [f"{draw.__name__}.png" for draw in claim.figures] + ["figure.png"]
    figure = next((name for name in figures if results and (own / name).exists()), "")
    seconds, options = record["seconds"], record["options"]
    return index.Done(claim, results, error, seconds, options, figure)


def write(claims: Mapping[str, Claim], workdir: Path) -> dict[str, Any]:
    """Write index.json and index.html of all claims that were done; return the content."""
    states = {name: done(claim, workdir) for name, claim in claims.items()}
    rows = index.entries([state for state in states.values() if state])
    hardware = dict.fromkeys(row["hardware"] for row in rows if row["hardware"])
    content = {
        "claims": rows,
        "missing": [name for name, state in states.items() if state is None],
        "untested": untested.rows(claims),
        "tests": index.counted(rows),
        "level": index.LEVEL,
        "command": provenance.command_line(),
        "date": now(),
        "hardware": "; ".join(hardware),
        "versions": provenance.versions(),
    }
    figures = dict.fromkeys(row["figure"] for row in rows if row["figure"])
    pictures = {name: index_page.thumbnail((workdir / name).read_bytes()) for name in figures}
    directory.write(workdir / "index.json", json.dumps(content, indent=2) + "\n")
    directory.write(workdir / "index.html", index_page.page(content, pictures))
    return content


def show(content: Mapping[str, Any]) -> None:
    """Print the verdict on each statement."""
    width = max((len(row["name"]) for row in content["claims"]), default=0) + 2
    print()
    for row in content["claims"]:
        word = "failed to run" if row["error"] else page.WORDS[row["verdict"]]
        reason = row["error"] or f"{row['says']} {row['reason']}".strip()
        print(f"{row['name']:<{width}}{word:<15}{reason}")


if __name__ == "__main__":
    command.run(main)
