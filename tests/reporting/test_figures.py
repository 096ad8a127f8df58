import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from resnet_jax.reporting.figures import axis_top, colours, levels, score_curves, seed_mean
from resnet_jax.reporting.tables import Score


def panels_in(path):
    """Return the number of separate horizontal axes, which are runs of dark pixels in one row."""
    dark = np.asarray(Image.open(path).convert("L")) < 120
    row = dark[np.argmax(dark.sum(axis=1))]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]]).astype(int)))
    return int((edges[1::2] - edges[::2] > 0.2 * row.size).sum())


def test_figure_has_a_panel_for_each_family(curves, tmp_path):
    score_curves(curves, tmp_path / "both.png", "Depth")
    score_curves([c for c in curves if c["arm"] == "plain"], str(tmp_path / "plain.png"), "Depth")
    assert panels_in(tmp_path / "both.png") == 2
    assert panels_in(tmp_path / "plain.png") == 1
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_every_depth_is_drawn_in_its_colour(curves, tmp_path):
    score_curves(curves, tmp_path / "figure.png", "Depth")
    pixels = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).astype(int)
    middle = pixels.shape[1] // 2
    for colour in colours([*levels(curves).values()]).values():
        wanted = np.round(255 * np.array(to_rgb(colour)))
        near = np.abs(pixels - wanted).max(axis=-1) < 8
        assert near[:, :middle].sum() > 100
        assert near[:, middle:].sum() > 100


def test_one_evaluation_is_still_visible(curves, tmp_path):
    once = [c | {"step": [300], "error": c["error"][-1:]} for c in curves if c["depth"] == 56]
    score_curves(once, tmp_path / "figure.png", "Depth")
    pixels = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).astype(int)
    wanted = np.round(255 * np.array(to_rgb(colours(["56"])["56"])))
    near = np.abs(pixels - wanted).max(axis=-1) < 8
    # A solid square: letters and leader lines are thinner.
    assert np.lib.stride_tricks.sliding_window_view(near, (9, 9)).all(axis=(-2, -1)).any()


def test_no_finite_error_is_refused(curves, tmp_path):
    lost = [c | {"error": [math.nan] * 3} for c in curves]
    with pytest.raises(ValueError, match="nothing can be drawn"):
        score_curves(lost, tmp_path / "figure.png", "Depth")
    assert not (tmp_path / "figure.png").exists()


def test_seeds_are_averaged_step_by_step_between_their_extremes(curves):
    (mean,) = (m for m in seed_mean(curves) if (m["model"], m["split"]) == ("plain-56", "train"))
    assert (mean["n"], mean["step"]) == (2, [100, 200, 300])
    assert mean["value"][-1] == pytest.approx(0.7)
    assert (mean["low"][-1], mean["high"][-1]) == (0.5, 0.9)


def test_a_seed_that_diverged_counts_up_to_its_last_finite_error(curves):
    (lost,) = (c for c in curves if (c["model"], c["split"]) == ("resnet-56", "test"))
    other = lost | {"seed": 1, "error": [0.7, math.nan, math.inf]}
    (mean,) = seed_mean([lost, other])
    assert mean["value"] == pytest.approx([0.8, *lost["error"][1:]])


@pytest.mark.parametrize("dark", [False, True])
def test_colours_darken_with_depth_and_stand_out_from_the_page(dark):
    curves = [{"model": f"m-{d}", "arm": "resnet", "depth": d} for d in (1026, 18, 34, 66, 130)]
    order = list(dict.fromkeys(levels(curves).values()))
    assert order == ["18", "34", "66", "130", "1026"]
    chosen = colours(order, dark)
    luminance = [float(np.dot(to_rgb(chosen[d]), [0.21, 0.72, 0.07])) for d in order]
    assert luminance == sorted(luminance, reverse=True)
    assert len(set(chosen.values())) == 5
    assert min(luminance) > 0.3 if dark else max(luminance) < 0.7


@pytest.mark.parametrize(
    ("highest", "top"),
    [(0.0, 1), (0.004, 1), (0.093, 10), (0.42, 50), (0.61, 80), (0.95, 100), (1, 100)],
)
def test_error_axis_ends_on_the_tick_above_every_curve(highest, top):
    assert axis_top([{"high": [0.0, highest]}]) == top


def test_networks_of_one_depth_in_one_panel_have_colours_of_their_own():
    curves = [{"model": f"width-{w}", "arm": "resnet", "depth": 8} for w in (4, 16)]
    assert levels(curves) == {"width-4": "width-4", "width-16": "width-16"}
    twins = [{"model": f"{arm}-8", "arm": arm, "depth": 8} for arm in ("plain", "b")]
    assert set(levels(twins).values()) == {"8"}


@pytest.mark.parametrize(
    ("highest", "top"), [(0.0, 1), (2.3, 2.5), (0.031, 0.04), (41.0, 50), (1e-4, 1e-4)]
)
def test_a_loss_has_an_axis_of_its_own_size(highest, top):
    assert axis_top([{"high": [0.0, highest]}], Score("loss", ".4f")) == pytest.approx(top)


def test_another_score_is_drawn_as_it_is(curves, tmp_path):
    score_curves(curves, tmp_path / "loss.png", "Depth", Score("loss", ".4f"))
    assert panels_in(tmp_path / "loss.png") == 2
    assert seed_mean(curves, Score("loss", ".4f"))[0]["value"] == [2.0, 1.0, 0.5]


def test_order_of_the_curves_does_not_matter(curves, tmp_path):
    score_curves(curves, tmp_path / "one.png", "Depth")
    score_curves(curves[::-1], tmp_path / "other.png", "Depth")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
