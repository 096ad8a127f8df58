"""Runs to a summary, a summary to a table: the same cells in Markdown and on the page."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def reading_order(row: Mapping[str, Any]) -> tuple[bool, str, int]:
    """A sort key: plain networks first, then the other families, each by depth."""
    return (not row["family"].startswith("plain"), row["family"], row["depth"])


def summarise(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a model: mean and sample standard deviation of its errors over the seeds.

    Units: errors are fractions, as in the runs. A spread is None at n = 1, `paper` is None until
    the experiment sets it, and a note says how many of the runs it concerns unless it is all.
    Raises: ValueError where two runs share model and seed, which would count one network twice.
    """
    models: dict[str, list[Mapping[str, Any]]] = {}
    for run in sorted(runs, key=reading_order):
        models.setdefault(run["model"], []).append(run)
    return [_summary(model, group) for model, group in models.items()]


def _summary(model: str, runs: list[Mapping[str, Any]]) -> dict[str, Any]:
    seed, times = Counter(run["seed"] for run in runs).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{model} has {times} runs of seed {seed}; a model has one run a seed")
    row = {"model": model, "family": runs[0]["family"], "depth": runs[0]["depth"]}
    row |= {"parameters": runs[0]["parameters"], "n": len(runs)}
    for error in ("train_error", "test_error"):
        values = [run[error] for run in runs]
        row[f"{error}_mean"] = statistics.fmean(values)
        row[f"{error}_std"] = statistics.stdev(values) if len(values) > 1 else None
    notes = Counter(run["note"] for run in runs if run.get("note"))
    counted = [n if k == len(runs) else f"{n} ({k} of {len(runs)})" for n, k in notes.items()]
    return row | {"paper": None, "note": ", ".join(counted) or None}


def table_cells(results: Mapping[str, Any]) -> list[list[str]]:
    """The table as text, its head in the first row: what Markdown and HTML both render.

    Errors are in percent, mean ± std, without ± at n = 1. The columns `paper` and `note` appear
    where some row has one. `paper` is the published test error on the data set of these runs.
    """
    rows = sorted(results["summary"], key=reading_order)
    columns = {
        "model": [row["model"] for row in rows],
        "depth": [str(row["depth"]) for row in rows],
        "parameters": [f"{row['parameters']:,}" for row in rows],
        "seeds": [f"n = {row['n']}" for row in rows],
        "train error %": [
            _percent(row["train_error_mean"], row["train_error_std"]) for row in rows
        ],
        "test error %": [_percent(row["test_error_mean"], row["test_error_std"]) for row in rows],
    }
    if any(row["paper"] is not None for row in rows):
        title = f"paper's test error % on {results['dataset']}"
        columns[title] = [_percent(row["paper"], None) for row in rows]
    if any(row.get("note") for row in rows):
        columns["note"] = [row.get("note") or "" for row in rows]
    return [list(columns), *map(list, zip(*columns.values(), strict=True))]


def summary_table(results: Mapping[str, Any]) -> str:
    """The summary as a Markdown table, its columns aligned in plain text too."""
    cells = [[" ".join(c.split()).replace("|", r"\|") for c in row] for row in table_cells(results)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    columns = []
    for width, (title, *entries) in zip(widths, zip(*cells, strict=True), strict=True):
        left, dashes = is_text(title), "-" * (width - 1)
        column = [title, f":{dashes}" if left else f"{dashes}:", *entries]
        columns.append([c.ljust(width) if left else c.rjust(width) for c in column])
    return "".join(f"| {' | '.join(line)} |\n" for line in zip(*columns, strict=True))


def is_text(title: str) -> bool:
    """Whether a column holds words, which align left, or numbers, which align right."""
    return title in ("model", "note")


def _percent(mean: float | None, std: float | None) -> str:
    if mean is None:
        return "–"
    return f"{100 * mean:.2f}" + ("" if std is None else f" ± {100 * std:.2f}")
