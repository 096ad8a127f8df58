"""The best of several learning rates for each arm: a comparison that is fair to arms that differ.

A claim plans its arms with `arms`, or plans as if there were one rate and repeats that plan with
`repeated`. It measures with `measured`, and judges what `best` returns.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from experiments.plan import Options, Run, Values
from experiments.results import Row, scores

FACTORS = (0.3, 1.0, 3.0)  # of the recipe's rate
# The rule of `best` after `repeated`, and after `repeated_if_full`, in words.
BEST = (
    "each network at the rate with its least mean training loss, "
    "of {:g}, {:g} and {:g} times the recipe's".format(*FACTORS)
)
IF_FULL = f"at the recipe's rate; with --full {BEST}"


def arms(
    options: Options,
    chosen: Mapping[str, Values],
    rates: Sequence[float],
    seeds: int,
) -> list[Run]:
    """Return every arm of `Options.arms` at every rate; the model is ARM-RATE-DEPTH.

    The curves of all rates of an arm are drawn in one panel.
    """
    with_rate = {
        f"{name}-{rate:g}": {**arm, "optimizer.learning_rate": rate}
        for name, arm in chosen.items()
        for rate in rates
    }
    runs = options.arms(with_rate, seeds)
    return [run._replace(arm=run.arm.rpartition("-")[0]) for run in runs]


def repeated(
    options: Options, plan: Callable[[Options], Sequence[Run]], factors: Sequence[float] = FACTORS
) -> list[Run]:
    """Return the runs of a plan at several rates: the recipe's rate times each factor.

    The model of a run at another rate than the recipe's is ARM-RATE-DEPTH.
    Raises: ValueError as the plan does.
    """
    key = "optimizer.learning_rate"
    recipe = options.config(options.networks[0]).optimizer.learning_rate
    runs = []
    for factor in factors:
        rate = float(f"{factor * recipe:.6g}")  # 0.03, and not 0.03 plus a rounding error
        own = plan(options._replace(overrides={**options.overrides, key: f"{rate:g}"}))
        if factor != 1:
            own = [
                run._replace(
                    model=f"{run.arm}-{rate:g}-{run.config.model.depth}",
                    changes={**run.changes, key: rate},
                )
                for run in own
            ]
        runs += own
    return runs


def repeated_if_full(options: Options, plan: Callable[[Options], Sequence[Run]]) -> list[Run]:
    """Return the runs of a plan at all FACTORS with --full, and at the recipe's rate without."""
    return repeated(options, plan, FACTORS if options.full else (1.0,))


def measured(run: Run) -> list[Row]:
    """Return the scores of a run with its learning rate, as the column `rate`."""
    return [row | {"rate": run.config.optimizer.learning_rate} for row in scores(run)]


def best(
    rows: Sequence[Row], column: str = "train_loss", by: Sequence[str] = ("rate",)
) -> list[Row]:
    """Return the rows of the setting at which an arm has its least mean of the column over seeds.

    A setting is a value of each column of `by`. Each arm and depth has its own best setting; the
    first in ascending order is taken if several are equal. A run that diverged has the loss of
    equal probabilities (`results.scores`).
    """
    by_arm: dict[tuple[str, int], dict[tuple[float, ...], list[Row]]] = {}
    for row in rows:
        settings = by_arm.setdefault((row["arm"], row["depth"]), {})
        settings.setdefault(tuple(row[name] for name in by), []).append(row)

    mean = lambda own: fmean(row[column] for row in own)
    least = lambda settings: min((settings[setting] for setting in sorted(settings)), key=mean)
    return [row for settings in by_arm.values() for row in least(settings)]


def told(rows: Sequence[Row]) -> str:
    """Return the rate of each network among rows that `best` chose, in words."""
    chosen = {f"{row['arm']}-{row['depth']}": row["rate"] for row in rows}
    return ", ".join(f"{name} {rate:g}" for name, rate in chosen.items())
