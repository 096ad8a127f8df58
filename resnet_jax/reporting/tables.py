"""Rows of runs to a summary, and a summary to a table: the same cells in Markdown and on the page.

A row is a dict with the columns `model`, `arm` (the panel of a figure), `depth` and `seed`, and
with the measured columns. A *format* is the text after the colon of an f-string; a format that ends
in % shows a fraction in percent.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# The measured columns that a table shows, each with its format.
Columns = Mapping[str, str]


class Score(NamedTuple):
    """The score of a task: the name of its column in the records, and its format."""

    name: str = "error"
    shown: str = ".2%"

    @property
    def scale(self) -> float:
        """What a value is multiplied by to be shown: 100 for a percentage."""
        return 100.0 if self.shown.endswith("%") else 1.0

    @property
    def label(self) -> str:
        """The title of an axis."""
        return f"{self.name.replace('_', ' ')}{' (%)' if self.shown.endswith('%') else ''}"

    @property
    def columns(self) -> Columns:
        """The columns of a finished run: seen in training, and then on training and test split."""
        return {f"{when}_{self.name}": self.shown for when in ("train", "clean", "test")}


ERROR = Score()
ERRORS: Columns = ERROR.columns


def reading_order(row: Mapping[str, Any]) -> tuple[bool, str, int]:
    """Return a sort key: plain networks first, then the other arms, each by depth."""
    return (not row["arm"].startswith("plain"), row["arm"], row["depth"])


def summarise(
    runs: Sequence[Mapping[str, Any]], columns: Sequence[str] = tuple(ERRORS)
) -> list[dict[str, Any]]:
    """Return a row for each model: mean and sample standard deviation of columns over the seeds.

    Units are those of the runs: errors are fractions. With one value the deviation is None, and
    without any the mean is, too. `paper`
    is None until the experiment sets it. A note says how many of the runs it concerns, unless it
    concerns all of them.
    Raises: ValueError if two runs share model and seed, which would count one network twice.
    """
    models: dict[str, list[Mapping[str, Any]]] = {}
    for run in sorted(runs, key=reading_order):
        models.setdefault(run["model"], []).append(run)
    return [_summary(model, group, columns) for model, group in models.items()]


def _summary(model: str, runs: list[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    seed, times = Counter(run["seed"] for run in runs).most_common(1)[0]
    if times > 1:
        raise ValueError(f"{model} has {times} runs of seed {seed}; a model has one run a seed")
    row = {"model": model, "arm": runs[0]["arm"], "depth": runs[0]["depth"]}
    row |= {"parameters": runs[0].get("parameters"), "n": len(runs)}
    for column in columns:
        values = [run[column] for run in runs if run.get(column) is not None]
        row[f"{column}_mean"] = statistics.fmean(values) if values else None
        row[f"{column}_std"] = statistics.stdev(values) if len(values) > 1 else None
    notes = Counter(run["note"] for run in runs if run.get("note"))
    counted = [n if k == len(runs) else f"{n} ({k} of {len(runs)})" for n, k in notes.items()]
    return row | {"paper": None, "note": ", ".join(counted) or None}


def table_cells(results: Mapping[str, Any], columns: Columns = ERRORS) -> list[list[str]]:
    """Return the table as text, with its head in the first row, for Markdown and for HTML.

    A measured column shows mean ± deviation, and no deviation with one seed. The columns
    `parameters`, `paper` and `note` appear if some row has a value. `paper` is the published value
    of the last measured column.
    """
    rows = sorted(results["summary"], key=reading_order)
    table = {
        "model": [row["model"] for row in rows],
        "depth": [str(row["depth"]) for row in rows],
    }
    if any(row.get("parameters") is not None for row in rows):
        table["parameters"] = [f"{row['parameters']:,}" for row in rows]
    table["seeds"] = [f"n = {row['n']}" for row in rows]
    for name, shown in columns.items():
        cells = [_cell(row[f"{name}_mean"], row[f"{name}_std"], shown) for row in rows]
        table[_title(name, shown)] = cells
    if columns and any(row["paper"] is not None for row in rows):
        name, shown = list(columns.items())[-1]
        title = f"paper's {_title(name, shown)} on {results['dataset']}"
        table[title] = [_cell(row["paper"], None, shown) for row in rows]
    if any(row.get("note") for row in rows):
        table["note"] = [row.get("note") or "" for row in rows]
    return [list(table), *map(list, zip(*table.values(), strict=True))]


def summary_table(results: Mapping[str, Any], columns: Columns = ERRORS) -> str:
    """Return the summary as a Markdown table, whose columns are aligned in plain text too."""
    cells = [
        [" ".join(cell.split()).replace("|", r"\|") for cell in row]
        for row in table_cells(results, columns)
    ]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for width, (title, *entries) in zip(widths, zip(*cells, strict=True), strict=True):
        left, dashes = is_text(title), "-" * (width - 1)
        column = [title, f":{dashes}" if left else f"{dashes}:", *entries]
        lines.append([c.ljust(width) if left else c.rjust(width) for c in column])
    return "".join(f"| {' | '.join(line)} |\n" for line in zip(*lines, strict=True))


def is_text(title: str) -> bool:
    """Return whether a column holds words, which align left, or numbers, which align right."""
    return title in ("model", "note")


def _title(name: str, shown: str) -> str:
    return name.replace("_", " ") + (" %" if shown.endswith("%") else "")


def _cell(mean: float | None, deviation: float | None, shown: str) -> str:
    if mean is None:
        return "–"
    text = lambda value: f"{value:{shown}}".rstrip("%")
    return text(mean) + ("" if deviation is None else f" ± {text(deviation)}")
