"""A column of the rows against another: every seed is a point, and means have intervals."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from resnet_jax.reporting.figures import STYLE, colours, panel_title

LEVEL = 0.99  # of the intervals


def figure(
    rows: Sequence[Mapping[str, Any]],
    x: str,
    y: str,
    shown: str = ".3g",
    *,
    group: str = "family",
    log_x: bool = True,
    log_y: bool = False,
) -> Figure:
    """Return a figure of column `y` against column `x`, with a line for each value of `group`.

    The line joins the means over seeds; a bar is the 99 % interval of a mean by Student's t, for
    three seeds or more; each row is a point. `shown` is the format of y's values. Rows whose note
    is "diverged" are crosses. Rows without a number in one of the columns are left out.
    """
    from scipy import stats  # late: its import takes a second

    number = lambda value: isinstance(value, Real) and math.isfinite(value)
    rows = [row for row in rows if number(row.get(x)) and number(row.get(y))]
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
                if len(value) >= 3:
                    reach = stats.t.ppf((1 + LEVEL) / 2, len(value) - 1)
                    reach *= value.std(ddof=1) / np.sqrt(len(value))
                    axes.errorbar(place, mean, reach, capsize=3, linewidth=1, **style)
            for row in own:
                marker = "x" if row.get("note") == "diverged" else "o"
                axes.plot(row[x], row[y], marker, markersize=4, alpha=0.65, **style)
        if log_x and all(row[x] > 0 for row in rows):
            axes.set_xscale("log", base=2)
        if log_y and all(row[y] > 0 for row in rows):
            axes.set_yscale("log")
        else:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:{shown}}"))
        ticks = sorted({row[x] for row in rows})
        if len(ticks) <= 8:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(x.replace("_", " "))
        axes.set_ylabel(y.replace("_", " "))
        axes.grid(axis="y")
        if len(names) > 1:
            axes.legend(frameon=False, fontsize=8.5)
    return drawn
