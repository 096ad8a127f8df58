"""A figure whose points are the rows, with intervals of means."""

import math

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from resnet_jax.reporting import figures, points


def rows(values, arm="plain", depth=8, **more):
    own = {"arm": arm, "depth": depth} | more
    return [own | {"seed": seed, "error": value} for seed, value in enumerate(values)]


def drawn(figure):
    """Return the axes, and what stands in them: {marker: [(x, y), ...]}."""
    (axes,) = figure.axes
    marks = {}
    for line in axes.lines:
        if line.get_linestyle() == "None" and line.get_marker() in ("o", "x"):
            marks.setdefault(line.get_marker(), []).extend(line.get_xydata().tolist())
    return axes, marks


def intervals(axes):
    """Return (x, low, high) of every error bar."""
    bars = [item for item in axes.containers if isinstance(item, ErrorbarContainer)]
    ends = [bar.lines[2][0].get_segments()[0] for bar in bars]
    return [(low[0], low[1], high[1]) for low, high in ends]


def test_each_row_is_a_point_and_each_group_a_line():
    data = rows([0.1, 0.2]) + rows([0.3], depth=20) + rows([0.4, 0.5], "resnet")
    axes, marks = drawn(points.figure(data, "depth", "error"))
    assert sorted(marks["o"]) == [[8, 0.1], [8, 0.2], [8, 0.4], [8, 0.5], [20, 0.3]]
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    np.testing.assert_allclose(lines["Plain networks"], [[8, 0.15], [20, 0.3]])
    np.testing.assert_allclose(lines["Residual networks"], [[8, 0.45]])
    assert axes.get_legend() is not None
    assert axes.get_xscale() == "log" and list(axes.get_xticks()) == [8, 20]


def test_numbers_that_are_too_near_for_their_labels_have_the_axis_own_ticks():
    at = lambda *depths: [row for depth in depths for row in rows([0.1], depth=depth)]
    axes, _ = drawn(points.figure(at(71_254, 75_002, 269_434), "depth", "error"))
    assert 71_254 not in axes.get_xticks()
    axes, _ = drawn(points.figure(at(71_254, 90_000), "depth", "error"))
    assert list(axes.get_xticks()) == [71_254, 90_000]


def test_a_mean_has_its_interval_with_three_seeds_or_more():
    data = rows([0.1, 0.3]) + rows([0.2, 0.3, 0.4], depth=20)
    axes, _ = drawn(points.figure(data, "depth", "error"))
    ((x, low, high),) = intervals(axes)
    reach = 9.925 * 0.1 / math.sqrt(3)  # Student's t of two degrees of freedom, at 99.5 %
    assert x == 20 and (low, high) == pytest.approx((0.3 - reach, 0.3 + reach), abs=1e-4)


def test_the_interval_of_a_fraction_ends_at_0_and_at_1():
    low, high, other = rows([0.0, 0.05, 0.1]), rows([0.9, 1.0, 0.95], "resnet"), rows([-1, 0, 1])
    axes, _ = drawn(points.figure(low + high, "depth", "error", ".0%"))
    (_, zero, above), (_, below, one) = intervals(axes)
    reach = 9.925 * 0.05 / math.sqrt(3)
    assert (zero, above) == (0, pytest.approx(0.05 + reach, abs=1e-4))
    assert (below, one) == (pytest.approx(0.95 - reach, abs=1e-4), 1)
    for given, shown in ((low, ".2f"), (other, ".0%")):  # no fraction
        ((_, least, _),) = intervals(drawn(points.figure(given, "depth", "error", shown))[0])
        assert least < min(row["error"] for row in given)


def test_what_diverged_is_a_cross_and_counts_in_the_mean():
    data = rows([0.1, 0.2]) + [rows([0.9], note="diverged")[0] | {"seed": 2}]
    axes, marks = drawn(points.figure(data, "depth", "error"))
    assert marks["x"] == [[8, 0.9]] and len(marks["o"]) == 2
    assert axes.lines[0].get_ydata() == pytest.approx([0.4])


def test_rows_without_a_number_are_left_out():
    data = rows([0.1, None, math.nan, math.inf, "none", np.float32(0.5)])
    data += [{"arm": "plain", "depth": 20}, {"arm": "plain", "error": 0.2}]
    _, marks = drawn(points.figure(data, "depth", "error"))
    assert marks == {"o": [[8, 0.1], [8, 0.5]]}


def test_without_a_number_there_is_an_empty_figure():
    axes, marks = drawn(points.figure(rows([None]), "depth", "error"))
    assert not marks and axes.get_xlabel() == "depth"
    assert figures.png(points.figure([], "depth", "error")).startswith(b"\x89PNG")


def test_an_axis_is_logarithmic_only_if_its_values_are_positive():
    data = rows([0.1, 0.2], share=0.0) + rows([0.0], depth=20, share=0.5)
    axes, _ = drawn(points.figure(data, "share", "error", ".0%", log_y=True))
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")
    assert axes.yaxis.get_major_formatter()(0.25) == "25%"
    axes, _ = drawn(points.figure(data[:2], "depth", "error", log_y=True, log_x=False))
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
