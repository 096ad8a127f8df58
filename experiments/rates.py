"""The best of several learning rates for each arm: a comparison that is fair to arms that differ.

A claim plans its arms with `arms`, measures with `measured`, and judges what `best` returns.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from experiments.plan import Options, Run, Values
from experiments.results import Row, scores


def arms(
    options: Options,
    chosen: Mapping[str, Values],
    rates: Sequence[float],
    seeds: int,
) -> list[Run]:
    """Return every arm of `Options.arms` at every rate; the model is ARM-RATE-DEPTH.

    The group is the arm, so that the curves of all its rates are drawn in one panel.
    """
    with_rate = {
        f"{name}-{rate:g}": {**arm, "optimizer.learning_rate": rate}
        for name, arm in chosen.items()
        for rate in rates
    }
    runs = options.arms(with_rate, seeds)
    return [run._replace(group=run.group.rpartition("-")[0]) for run in runs]


def measured(run: Run) -> list[Row]:
    """Return the scores of a run with its learning rate, as the column `rate`."""
    return [row | {"rate": run.config.optimizer.learning_rate} for row in scores(run)]


def best(rows: Sequence[Row], column: str = "train_loss") -> list[Row]:
    """Return the rows of the rate at which an arm has its least mean of the column over seeds.

    Each arm and depth has its own rate. The smallest rate is taken if several are equal.
    """
    by_arm: dict[tuple[str, int], dict[float, list[Row]]] = {}
    for row in sorted(rows, key=lambda row: row["rate"]):
        rates = by_arm.setdefault((row["family"], row["depth"]), {})
        rates.setdefault(row["rate"], []).append(row)
    mean = lambda own: fmean(row[column] for row in own)
    return [row for rates in by_arm.values() for row in min(rates.values(), key=mean)]
