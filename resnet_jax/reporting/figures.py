"""Figures of training: the score against the step, a panel for each arm."""

import io
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from etils import epath
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator

from resnet_jax.reporting.tables import ERROR, Score, reading_order

_WIDTH = {"train": 0.9, "test": 2.2}

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.35",
    "axes.linewidth": 0.8,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.axisbelow": True,
    "grid.color": "0.91",
    "grid.linewidth": 0.8,
    "xtick.color": "0.25",
    "ytick.color": "0.25",
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}


def panel_title(arm: str) -> str:
    """Return what an arm is called above its panel."""
    named = {"plain": "Plain networks", "resnet": "Residual networks"}
    return named.get(arm, arm.replace("-", " ").capitalize())


def levels(means: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return each model's level, whose colour it has: {model: level}, the levels in order.

    The level is the depth, and models of one depth in several panels share it. If two models of one
    panel have the same depth, every model is a level of its own.
    """
    models = {mean["model"]: mean for mean in means}
    places = [(mean["arm"], mean["depth"]) for mean in models.values()]
    if len(set(places)) < len(places):
        return {model: model for model in models}
    by_depth = sorted(models.values(), key=lambda mean: mean["depth"])
    return {mean["model"]: str(mean["depth"]) for mean in by_depth}


def colours(order: Sequence[str], dark: bool = False) -> dict[str, str]:
    """Return a colour for each level, from orange (first) to blue (last), darker with every level.

    The colours are the part of matplotlib's plasma that stands out from white; for a dark page they
    are mixed with white, in the same order. Lightness is monotone, so that the figure reads in grey
    and without colour vision.
    """
    order = list(dict.fromkeys(order))
    places = np.linspace(0.74, 0.0, len(order))
    rgb = matplotlib.colormaps["plasma"](places)[:, :3]
    if dark:
        rgb = 0.6 * rgb + 0.4
    return {level: to_hex(colour) for level, colour in zip(order, rgb, strict=True)}


def seed_mean(curves: Sequence[Mapping[str, Any]], score: Score = ERROR) -> list[dict[str, Any]]:
    """Return the curves averaged over seeds, one for each model and split, in reading order.

    Returns: dicts of model, arm, depth, split, n (seeds) and, for every step at which a seed
    has a finite score, lists step, value (mean), low and high (extremes over the seeds). The test
    split comes last. Units are those of the curves: errors are fractions.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for curve in sorted(curves, key=lambda c: (reading_order(c), c["split"] == "test")):
        groups.setdefault((curve["model"], curve["split"]), []).append(curve)
    means = []
    for (model, split), group in groups.items():
        values: dict[int, list[float]] = {}
        for curve in group:
            for step, value in zip(curve["step"], curve[score.name], strict=True):
                if math.isfinite(value):
                    values.setdefault(step, []).append(value)
        steps = sorted(values)
        mean = {"model": model, "arm": group[0]["arm"], "depth": group[0]["depth"]}
        mean |= {"split": split, "n": len({curve["seed"] for curve in group}), "step": steps}
        for name, reduce in (("value", statistics.fmean), ("low", min), ("high", max)):
            mean[name] = [reduce(values[step]) for step in steps]
        means.append(mean)
    return means


def axis_top(means: Sequence[Mapping[str, Any]], score: Score = ERROR) -> float:
    """Return the end of the score's axis: the first tick at or above every curve and band.

    It is at least 1 for a percentage.
    """
    highest = max((score.scale * high for mean in means for high in mean["high"]), default=0)
    power = 0 if score.scale == 100 or highest <= 0 else math.floor(math.log10(highest)) - 1
    gaps = [float(f"{k}e{power + n}") for n in range(3) for k in (1, 2, 5)]
    gap = next(gap for gap in gaps if highest <= 6 * gap)
    return max(1, math.ceil(highest / gap)) * gap


def score_curves(
    curves: Sequence[Mapping[str, Any]],
    path_png: epath.PathLike,
    title: str,
    score: Score = ERROR,
) -> None:
    """Draw the score in training (thin) and in testing (bold) against the step, as a PNG.

    There is a panel for each arm, the plain one leftmost, with one y axis from 0, and a colour
    for each depth. A line is the mean over seeds; a light band reaches from the lowest to the
    highest seed. A percentage is shown for an error.
    Raises: ValueError if no curve has a finite score.
    Source: the form of He et al. 2015, arXiv:1512.03385, Fig. 6, whose lines are dashed and bold.
    """
    means = [mean for mean in seed_mean(curves, score) if mean["step"]]
    if not means:
        raise ValueError(f"no curve has a finite {score.name}; nothing can be drawn")
    arms = list(dict.fromkeys(mean["arm"] for mean in means))
    level = levels(means)
    colour = {model: colours(tuple(level.values()))[level[model]] for model in level}
    top = axis_top(means, score)
    last = max(mean["step"][-1] for mean in means) or 1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * len(arms), 4), dpi=200, layout="constrained")
        panels = figure.subplots(1, len(arms), sharex=True, sharey=True, squeeze=False)[0]
        for arm, panel in zip(arms, panels, strict=True):
            panel.set_title(panel_title(arm), pad=8)
            panel.set(xlabel="step", xlim=(0, last), ylim=(0, top))
            panel.grid(axis="y")
            members = [mean for mean in means if mean["arm"] == arm]
            for mean in members:
                _draw(panel, mean, colour[mean["model"]], score)
            _name_at_end(panel, {mean["model"]: mean for mean in members}, colour, score)
        panels[0].set_ylabel(score.label)
        whole = score.scale == 100
        panels[0].yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=whole))
        panels[0].xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        panels[0].xaxis.set_major_formatter(EngFormatter(sep=""))
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        key = _key(score, bands=any(mean["n"] > 1 for mean in means))
        columns = 3 if len(arms) > 1 else 2  # what fits under the panels
        figure.legend(handles=key, loc="outside lower left", ncols=columns, frameon=False)
        picture = png(figure)
    epath.Path(path_png).write_bytes(picture)


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _draw(panel: Axes, mean: dict[str, Any], colour: str, score: Score) -> None:
    step, value, low, high = (np.array(mean[k]) for k in ("step", "value", "low", "high"))
    style = {"color": colour, "zorder": 3 if mean["split"] == "test" else 2}
    scale = score.scale
    if mean["n"] > 1:
        panel.fill_between(step, scale * low, scale * high, alpha=0.15, linewidth=0, **style)
    # A line of one point, as after a run with one evaluation, would be invisible.
    marker = "o" if len(step) == 1 else ""
    panel.plot(step, scale * value, linewidth=_WIDTH[mean["split"]], marker=marker, **style)


def _name_at_end(
    panel: Axes, models: dict[str, dict[str, Any]], colour: dict[str, str], score: Score
) -> None:
    """Write each model's name right of its last point, and keep the names a line apart."""
    from scipy.optimize import isotonic_regression  # late: its import takes a second

    (_, last), (_, top) = panel.get_xlim(), panel.get_ylim()
    names = sorted(models, key=lambda model: models[model]["value"][-1])
    ends = np.array([score.scale * models[name]["value"][-1] for name in names])
    # The nearest positions that are a line of text apart and inside the panel.
    spread = 0.053 * top * np.arange(len(names))
    places = spread + np.clip(isotonic_regression(ends - spread).x, 0, max(0, top - spread[-1]))
    for name, end, place in zip(names, ends, places, strict=True):
        x = [models[name]["step"][-1], 1.025 * last, 1.045 * last]
        panel.plot(x, [end, place, place], color=colour[name], linewidth=0.6, clip_on=False)
        panel.text(
            1.055 * last, place, name, color=colour[name], va="center_baseline", fontsize=8.5
        )


def _key(score: Score, bands: bool) -> list[Artist]:
    name = score.name.replace("_", " ")
    lines: list[Artist] = [
        Line2D([], [], color="0.3", linewidth=_WIDTH["train"], label=f"training {name}"),
        Line2D([], [], color="0.3", linewidth=_WIDTH["test"], label=f"test {name}"),
    ]
    band = Patch(color="0.3", alpha=0.15, linewidth=0, label="lowest to highest seed")
    return [*lines, band] if bands else lines
