"""Figures of depth: error against step, one panel a family, one colour a depth."""

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
from sklearn.isotonic import isotonic_regression

from resnet_jax.reporting.tables import reading_order

_WIDTH = {"train": 0.9, "test": 2.2}

_STYLE: dict[Any, Any] = {
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


def panel_title(family: str) -> str:
    """What a family is called above its panel."""
    named = {"plain": "Plain networks", "resnet": "Residual networks"}
    return named.get(family, family.replace("-", " ").capitalize())


def depth_colours(depths: Sequence[int], dark: bool = False) -> dict[int, str]:
    """A colour for each depth: from orange (shallow) to blue (deep), darker with every step.

    The part of matplotlib's plasma that stands out from white; for a dark page mixed with white,
    in the same order. Lightness is monotone, so it reads in grey and without colour vision.
    """
    order = sorted(set(depths))
    places = np.linspace(0.74, 0.0, len(order))
    colours = matplotlib.colormaps["plasma"](places)[:, :3]
    if dark:
        colours = 0.6 * colours + 0.4
    return {depth: to_hex(colour) for depth, colour in zip(order, colours, strict=True)}


def seed_mean(curves: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The curves averaged over seeds: one a model and split, in reading order, test error last.

    Returns: dicts of model, family, depth, split, n (seeds) and, for every step at which a seed
    has a finite error, lists step, error (mean), low and high (extremes over the seeds).
    Units: errors are fractions, as in the curves.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for curve in sorted(curves, key=lambda c: (reading_order(c), c["split"] == "test")):
        groups.setdefault((curve["model"], curve["split"]), []).append(curve)
    means = []
    for (model, split), group in groups.items():
        errors: dict[int, list[float]] = {}
        for curve in group:
            for step, error in zip(curve["step"], curve["error"], strict=True):
                if math.isfinite(error):
                    errors.setdefault(step, []).append(error)
        steps = sorted(errors)
        mean = {"model": model, "family": group[0]["family"], "depth": group[0]["depth"]}
        mean |= {"split": split, "n": len({curve["seed"] for curve in group}), "step": steps}
        for name, reduce in (("error", statistics.fmean), ("low", min), ("high", max)):
            mean[name] = [reduce(errors[step]) for step in steps]
        means.append(mean)
    return means


def axis_top(means: Sequence[Mapping[str, Any]]) -> int:
    """The end of an error axis in percent: the first tick at or above every curve and band."""
    highest = max((100 * error for mean in means for error in mean["high"]), default=0)
    gap = next(g for g in (1, 2, 5, 10, 20) if highest <= 6 * g)
    return max(1, math.ceil(highest / gap)) * gap


def error_curves(curves: Sequence[Mapping[str, Any]], path_png: epath.PathLike, title: str) -> None:
    """Draw training (thin) and test error (bold) in percent against the step, as a PNG.

    One panel a family, plain leftmost, with one y axis from 0; one colour a depth; a line is the
    mean over seeds, with a light band from the lowest to the highest seed.
    Raises: ValueError where no curve has a finite error.
    Source: the form of He et al. 2015, arXiv:1512.03385, Fig. 6 (there dashed and bold).
    """
    means = [mean for mean in seed_mean(curves) if mean["step"]]
    if not means:
        raise ValueError("no curve has a finite error; there is nothing to draw")
    families = list(dict.fromkeys(mean["family"] for mean in means))
    colours = depth_colours([mean["depth"] for mean in means])
    top = axis_top(means)
    last = max(mean["step"][-1] for mean in means) or 1
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.4 * len(families), 4), dpi=200, layout="constrained")
        panels = figure.subplots(1, len(families), sharex=True, sharey=True, squeeze=False)[0]
        for family, panel in zip(families, panels, strict=True):
            panel.set_title(panel_title(family), pad=8)
            panel.set(xlabel="step", xlim=(0, last), ylim=(0, top))
            panel.grid(axis="y")
            members = [mean for mean in means if mean["family"] == family]
            for mean in members:
                _draw(panel, mean, colours[mean["depth"]])
            _name_at_end(panel, {mean["model"]: mean for mean in members}, colours)
        panels[0].set_ylabel("error (%)")
        panels[0].yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
        panels[0].xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        panels[0].xaxis.set_major_formatter(EngFormatter(sep=""))
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        key = _key(bands=any(mean["n"] > 1 for mean in means))
        figure.legend(handles=key, loc="outside lower left", ncols=3, frameon=False)
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
    epath.Path(path_png).write_bytes(picture.getvalue())


def _draw(panel: Axes, mean: dict[str, Any], colour: str) -> None:
    step, error, low, high = (np.array(mean[k]) for k in ("step", "error", "low", "high"))
    style = {"color": colour, "zorder": 3 if mean["split"] == "test" else 2}
    if mean["n"] > 1:
        panel.fill_between(step, 100 * low, 100 * high, alpha=0.15, linewidth=0, **style)
    # A line of one point, as after a run with one evaluation, would be invisible.
    marker = "o" if len(step) == 1 else ""
    panel.plot(step, 100 * error, linewidth=_WIDTH[mean["split"]], marker=marker, **style)


def _name_at_end(panel: Axes, models: dict[str, dict[str, Any]], colours: dict[int, str]) -> None:
    """Write each model's name right of its last point, moved apart where they would overlap."""
    (_, last), (_, top) = panel.get_xlim(), panel.get_ylim()
    names = sorted(models, key=lambda model: models[model]["error"][-1])
    ends = np.array([100 * models[name]["error"][-1] for name in names])
    # The nearest positions that are a line of text apart and inside the panel.
    spread = 0.053 * top * np.arange(len(names))
    places = spread + isotonic_regression(ends - spread, y_min=0, y_max=top - spread[-1])
    for name, end, place in zip(names, ends, places, strict=True):
        colour = colours[models[name]["depth"]]
        x = [models[name]["step"][-1], 1.025 * last, 1.045 * last]
        panel.plot(x, [end, place, place], color=colour, linewidth=0.6, clip_on=False)
        panel.text(1.055 * last, place, name, color=colour, va="center_baseline", fontsize=8.5)


def _key(bands: bool) -> list[Artist]:
    lines: list[Artist] = [
        Line2D([], [], color="0.3", linewidth=_WIDTH["train"], label="training error"),
        Line2D([], [], color="0.3", linewidth=_WIDTH["test"], label="test error"),
    ]
    band = Patch(color="0.3", alpha=0.15, linewidth=0, label="lowest to highest seed")
    return [*lines, band] if bands else lines
