"""Rows to samples: the values of a column, by seed, as the statistical tests take them."""

from collections.abc import Sequence
from statistics import fmean

from experiments.results import Row

# A network whose error is this near to chance has learned nothing.
NEAR_CHANCE = 0.02


def where(rows: Sequence[Row], **values: object) -> list[Row]:
    """Return the rows whose columns have these values, ordered by depth and seed."""
    chosen = [row for row in rows if all(row.get(key) == value for key, value in values.items())]
    return sorted(chosen, key=lambda row: (row["depth"], row["seed"]))


def sample(rows: Sequence[Row], column: str, **values: object) -> list[float]:
    """Return a column of the rows with these values, ordered by depth and seed."""
    return [row[column] for row in where(rows, **values)]


def by_depth(rows: Sequence[Row], column: str, **values: object) -> dict[int, list[float]]:
    """Return {depth: a column of the rows with these values, ordered by seed}.

    Only the seeds that every depth has are kept, so that the i-th values of all depths have one
    seed.
    """
    chosen = where(rows, **values)
    depths = sorted({row["depth"] for row in chosen})
    seeds = [{row["seed"] for row in where(chosen, depth=depth)} for depth in depths]
    shared = set.intersection(*seeds) if seeds else set()
    kept = [row for row in chosen if row["seed"] in shared]
    return {depth: sample(kept, column, depth=depth) for depth in depths}


def relabelled(rows: Sequence[Row], **values: object) -> list[Row]:
    """Return copies of the rows with these values, for a control that takes another arm's place."""
    return [row | values for row in rows]


def with_other_seeds(rows: Sequence[Row], **values: object) -> list[Row]:
    """Return copies of the rows with these values, each seed's measurements under the next seed.

    In a control that pairs by seed, a network is then compared with itself from another seed, so
    that the differences have the spread of seeds; their mean is 0 by construction.
    """
    models: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        models.setdefault(row["model"], []).append(row)
    return [
        row | {"seed": taken["seed"]} | values
        for own in models.values()
        for row, taken in zip(own, [*own[1:], own[0]], strict=True)
    ]


def noted(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, with the note "did not train" on those that are at chance and have none."""
    at_chance = lambda row: row["train_error"] >= row["chance_error"] - NEAR_CHANCE
    note = {"note": "did not train"}
    return [row | note if at_chance(row) and not row.get("note") else row for row in rows]


def lacking(rows: Sequence[Row], column: str) -> str:
    """Return the first network of which some seed has no number in a column, in words, or ""."""
    for row in rows:
        if row.get(column) is None:
            return f"{row['model']} has no {column.replace('_', ' ')} for seed {row['seed']}."
    return ""


def unfitted(rows: Sequence[Row], most: float) -> str:
    """Return which network's mean training error exceeds `most`, in words; "" if none's does."""
    for model in dict.fromkeys(row["model"] for row in rows):
        error = fmean(sample(rows, "train_error", model=model))
        if error > most:
            return f"{model} has not fitted its training data ({error:.1%})."
    return ""


def learned_nothing(rows: Sequence[Row]) -> str:
    """Return which network's mean training error is that of chance, in words; "" if none's is."""
    for model in dict.fromkeys(row["model"] for row in rows):
        own = where(rows, model=model)
        error = fmean(row["train_error"] for row in own)
        if error >= fmean(row["chance_error"] for row in own) - NEAR_CHANCE:
            return f"{model} did not train ({error:.1%}), so the comparison means nothing."
    return ""
