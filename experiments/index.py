"""The content of index.json: every statement of several claims, corrected together."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.claim import Claim
from resnet_jax.analysis.statistics import FEWEST, Test, corrected, holm

LEVEL = 0.01  # of all tests of an index together


class Done(NamedTuple):
    """A claim whose command has ended.

    Attributes:
        claim: the claim.
        results: the content of its results.json, or None if the command failed.
        error: why the command failed, or "".
        seconds: how long its processes ran.
        options: the flags that it was given, beside the directories.
        figure: the file name of its picture; "" if it has none.
    """

    claim: Claim
    results: Mapping[str, Any] | None
    error: str = ""
    seconds: float = 0.0
    options: Sequence[str] = ()
    figure: str = ""


def entries(done: Sequence[Done]) -> list[dict[str, Any]]:
    """Return an entry of index.json for each statement of the claims.

    Verdicts over seeds are corrected together, as Holm does: a verdict that does not survive is
    None, `uncorrected` keeps it, and `reason` says why.
    """
    rows = [row for each in done for row in (_rows(each) if each.results else _failed(each))]
    tested = [row for row in rows if row["n"] is not None]
    tests = [Test(row["uncorrected"], *(row[name] for name in Test._fields[1:])) for row in tested]
    for row, test, p in zip(tested, corrected(tests, LEVEL), adjusted(tests), strict=True):
        row["verdict"], row["p_adjusted"] = test.holds, p
        if test.n < FEWEST and test.holds is None:
            seeds = "1 seed decides" if test.n == 1 else f"{test.n} seeds decide"
            row["reason"] = f"{seeds} nothing; a test needs {FEWEST} or more."
        if test.holds is None and row["uncorrected"] is not None:
            alone = "holds" if row["uncorrected"] else "does not hold"
            row["reason"] = (
                f"By its own test it {alone} (p = {_smaller(test):.2g}). Among the {counted(rows)} "
                f"tests of this index that counts as p = {p:.2g} (Holm), not below {LEVEL:g}."
            )
    return rows


def counted(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of tests that are corrected together: those with seeds enough to decide."""
    tested = (row for row in rows if row["p"] is not None)
    return sum(min(row["p"], row["p_opposite"]) < 1 for row in tested)


def adjusted(tests: Sequence[Test]) -> list[float]:
    """Return the p-value of each test after Holm's correction for all of them."""
    places = [i for i, test in enumerate(tests) if _smaller(test) < 1]
    ps = dict(zip(places, holm([_smaller(tests[i]) for i in places]), strict=True))
    return [ps.get(i, 1.0) for i in range(len(tests))]


def _smaller(test: Test) -> float:
    return min(test.p, test.p_opposite)


def _rows(done: Done) -> list[dict[str, Any]]:
    """Return the entries of a claim whose command has succeeded, before the correction."""
    results = done.results or {}
    versions = results.get("versions", {})
    runs = results.get("runs", [])
    own = {
        "dataset": results["dataset"],
        "report": f"{done.claim.name}/report.html",
        "runs": sorted({folder(row["workdir"]) for row in runs if row.get("workdir")}),
        "hardware": versions.get("hardware", ""),
        "revision": versions.get("revision of the runs") or versions.get("revision", ""),
    }
    return [
        _entry(done, statement["name"], statement["claim"], statement["source"])
        | own
        | {name: statement["verdict"][name] for name in ("says", "rule", *Test._fields[1:])}
        | {"verdict": statement["verdict"]["holds"]}
        | {"uncorrected": statement["verdict"]["holds"]}
        | {name: statement[name] for name in ("control", "rule_changed")}
        for statement in results["statements"]
    ]


def _failed(done: Done) -> list[dict[str, Any]]:
    """Return the entries of a claim whose command has failed."""
    return [
        _entry(done, statement.name, statement.says, statement.source)
        | {"says": "The command failed, so there is no verdict.", "rule": statement.rule}
        for statement in done.claim.statements
    ]


def _entry(done: Done, name: str, says: str, source: str) -> dict[str, Any]:
    """Return an entry without a verdict."""
    absent = dict.fromkeys(("verdict", "effect", "interval", "p", "n", "p_opposite", "p_adjusted"))
    return {
        "name": name,
        "kind": done.claim.kind,
        **absent,
        "says": "",
        "report": None,
        "uncorrected": None,
        "reason": "",
        "claim": says,
        "source": source,
        "rule": "",
        "rule_changed": False,
        "control": None,
        "experiment": done.claim.name,
        "options": list(done.options),
        "log": f"{done.claim.name}/log.txt",
        "runs": [],
        "figure": f"{done.claim.name}/{done.figure}" if done.figure else None,
        "dataset": "",
        "hardware": "",
        "revision": "",
        "seconds": round(done.seconds, 1),
        "error": done.error,
    }


def folder(workdir: str) -> str:
    """Return the name of a run's directory, the last part of its path."""
    return workdir.rstrip("/").rpartition("/")[2]
