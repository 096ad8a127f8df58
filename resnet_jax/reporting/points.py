"""A column of the rows against another: every seed is a point, and means have intervals."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from resnet_jax.reporting.figures import STYLE, colours, panel_title

LEVEL = 0.99  # of the intervals
NEAR = 1.15  # the labels of two numbers overlap on a log axis if their ratio is less


def figure(
    rows: Sequence[Mapping[str, Any]],
    x: str,
    y: str,
    shown: str = ".3g",
    *,
    group: str = "arm",
    log_x: bool = True,
    log_y: bool = False,
) -> Figure:
    """Return a figure of column `y` against column `x`, with a line for each value of `group`.

    The line joins the means over seeds; a bar is the 99 % interval of a mean by Student's t, for
    three seeds or more, cut at 0 and 100 % for fractions; each row is a point. `shown` is the
    format of y's values. Rows whose note is "diverged" are crosses. Rows without a number in one of
    the columns are left out.
    """
    rows = [row for row in rows if _is_number(row.get(x)) and _is_number(row.get(y))]
    names = list(dict.fromkeys(str(row[group]) for row in rows))
    colour = colours(names)
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(4.6, 3.1), dpi=160, layout="constrained")
        axes = drawn.subplots()
        for name in names:
            own = [row for row in rows if str(row[group]) == name]
            places = sorted({row[x] for row in own})
            values = [np.array([row[y] for row in own if row[x] == place]) for place in places]
            means = [value.mean() for value in values]
            style: dict[str, Any] = {"color": colour[name]}
            axes.plot(places, means, linewidth=1.6, label=panel_title(name), **style)
            for place, value, mean in zip(places, values, means, strict=True):
                if (reach := _reach(value, shown)) is not None:
                    axes.errorbar(place, mean, reach, capsize=3, linewidth=1, **style)
            for row in own:
                axes.plot(row[x], row[y], _marker(row), markersize=4, alpha=0.65, **style)
        if log_x and all(row[x] > 0 for row in rows):
            axes.set_xscale("log", base=2)
        if log_y and all(row[y] > 0 for row in rows):
            axes.set_yscale("log")
        else:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:{shown}}"))
        ticks = sorted({row[x] for row in rows})
        near = any(a > 0 and b / a < NEAR for a, b in pairwise(ticks)) if log_x else False
        if len(ticks) <= 8 and not near:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(x.replace("_", " "))
        axes.set_ylabel(y.replace("_", " "))
        axes.grid(axis="y")
        if len(names) > 1:
            axes.legend(frameon=False, fontsize=8.5)
    return drawn


def by_group(
    rows: Sequence[Mapping[str, Any]], y: str, shown: str = ".3g", *, group: str = "arm"
) -> Figure:
    """Return a figure of column `y` for each value of `group`: a row each, named at the left.

    Every row of the table is a point, the bar is the 99 % interval of the mean by Student's t, for
    three seeds or more. `shown` is the format of y's values. Rows without a number are left out.
    """
    rows = [row for row in rows if _is_number(row.get(y))]
    names = list(dict.fromkeys(str(row[group]) for row in rows))
    colour = colours(names)
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(4.6, 0.9 + 0.3 * len(names)), dpi=160, layout="constrained")
        axes = drawn.subplots()
        for place, name in enumerate(names):
            own = [row for row in rows if str(row[group]) == name]
            values = np.array([row[y] for row in own])
            style: dict[str, Any] = {"color": colour[name]}
            axes.errorbar(
                values.mean(), place, xerr=_reach(values, shown), fmt="|", capsize=3, **style
            )
            for row in own:
                axes.plot(row[y], place, _marker(row), markersize=4, alpha=0.65, **style)
        axes.set_yticks(range(len(names)), [name.replace("-", " ") for name in names])
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:{shown}}"))
        axes.set_xlabel(y.replace("_", " "))
        axes.grid(axis="x")
    return drawn


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _marker(row: Mapping[str, Any]) -> str:
    return "x" if row.get("note") == "diverged" else "o"


def _reach(values: np.ndarray, shown: str) -> list[list[float]] | None:
    """Return how far the interval of a mean reaches to both sides, as matplotlib takes it.

    It is None for fewer than three values. The interval of a fraction, which is shown in per cent,
    is cut at 0 and 1 if the values are between them.
    """
    from scipy import stats  # late: its import takes a second

    if len(values) < 3:
        return None
    quantile = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1))
    reach, mean = quantile * float(values.std(ddof=1)) / len(values) ** 0.5, float(values.mean())
    if shown.endswith("%") and values.min() >= 0 and values.max() <= 1:
        return [[min(reach, mean)], [min(reach, 1 - mean)]]
    return [[reach], [reach]]


def by_block(
    rows: Sequence[Mapping[str, Any]],
    y: str,
    label: str,
    *,
    x: str = "block",
    log_y: bool = False,
) -> Figure:
    """Return a figure with a line for each row: the list in column `y` against its index.

    Lines have the names of the models. Several seeds of a model have the same colour. Rows without
    a list, as of a run that diverged, are left out.
    """
    rows = [row for row in rows if row.get(y)]
    names = list(dict.fromkeys(row["model"] for row in rows))
    colour = colours(names)
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(4.6, 3.1), dpi=160, layout="constrained")
        axes = drawn.subplots()
        for row in rows:
            first = row is next(other for other in rows if other["model"] == row["model"])
            name = row["model"] if first else None
            style: dict[str, Any] = {"color": colour[row["model"]], "linewidth": 1.4}
            axes.plot(range(len(row[y])), row[y], label=name, **style)
        if log_y:
            axes.set_yscale("log")
        axes.set_xlabel(x)
        axes.set_ylabel(label)
        axes.grid(axis="y")
        if rows:
            axes.legend(frameon=False, fontsize=8.5)
    return drawn
