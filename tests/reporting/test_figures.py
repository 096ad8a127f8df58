import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from resnet_jax.reporting.figures import axis_top, depth_colours, error_curves, seed_mean


def panels_in(path):
    """How many separate horizontal axes the picture has: runs of one long dark row of pixels."""
    dark = np.asarray(Image.open(path).convert("L")) < 120
    row = dark[np.argmax(dark.sum(axis=1))]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], row, [0]]).astype(int)))
    return int((edges[1::2] - edges[::2] > 0.2 * row.size).sum())


def test_figure_has_a_panel_for_each_family(curves, tmp_path):
    error_curves(curves, tmp_path / "both.png", "Depth")
    error_curves(
        [c for c in curves if c["family"] == "plain"], str(tmp_path / "plain.png"), "Depth"
    )
    assert panels_in(tmp_path / "both.png") == 2
    assert panels_in(tmp_path / "plain.png") == 1
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_every_depth_is_drawn_in_its_colour(curves, tmp_path):
    error_curves(curves, tmp_path / "figure.png", "Depth")
    pixels = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).astype(int)
    middle = pixels.shape[1] // 2
    for colour in depth_colours([20, 56]).values():
        wanted = np.round(255 * np.array(to_rgb(colour)))
        near = np.abs(pixels - wanted).max(axis=-1) < 8
        assert near[:, :middle].sum() > 100
        assert near[:, middle:].sum() > 100


def test_one_evaluation_is_still_visible(curves, tmp_path):
    once = [c | {"step": [300], "error": c["error"][-1:]} for c in curves if c["depth"] == 56]
    error_curves(once, tmp_path / "figure.png", "Depth")
    pixels = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).astype(int)
    wanted = np.round(255 * np.array(to_rgb(depth_colours([56])[56])))
    near = np.abs(pixels - wanted).max(axis=-1) < 8
    # A solid square: letters and leader lines are thinner.
    assert np.lib.stride_tricks.sliding_window_view(near, (9, 9)).all(axis=(-2, -1)).any()


def test_no_finite_error_is_refused(curves, tmp_path):
    lost = [c | {"error": [math.nan] * 3} for c in curves]
    with pytest.raises(ValueError, match="nothing to draw"):
        error_curves(lost, tmp_path / "figure.png", "Depth")
    assert not (tmp_path / "figure.png").exists()


def test_seeds_are_averaged_step_by_step_between_their_extremes(curves):
    (mean,) = (m for m in seed_mean(curves) if (m["model"], m["split"]) == ("plain-56", "train"))
    assert (mean["n"], mean["step"]) == (2, [100, 200, 300])
    assert mean["error"][-1] == pytest.approx(0.7)
    assert (mean["low"][-1], mean["high"][-1]) == (0.5, 0.9)


def test_a_seed_that_diverged_counts_up_to_its_last_finite_error(curves):
    (lost,) = (c for c in curves if (c["model"], c["split"]) == ("resnet-56", "test"))
    other = lost | {"seed": 1, "error": [0.7, math.nan, math.inf]}
    (mean,) = seed_mean([lost, other])
    assert mean["error"] == pytest.approx([0.8, *lost["error"][1:]])


@pytest.mark.parametrize("dark", [False, True])
def test_colours_darken_with_depth_and_stand_out_from_the_page(dark):
    colours = depth_colours([1026, 18, 34, 66, 130, 258, 514], dark)
    luminance = [float(np.dot(to_rgb(colours[d]), [0.21, 0.72, 0.07])) for d in sorted(colours)]
    assert luminance == sorted(luminance, reverse=True)
    assert len(set(colours.values())) == 7
    assert min(luminance) > 0.3 if dark else max(luminance) < 0.7


@pytest.mark.parametrize(
    ("highest", "top"),
    [(0.0, 1), (0.004, 1), (0.093, 10), (0.42, 50), (0.61, 80), (0.95, 100), (1, 100)],
)
def test_error_axis_ends_on_the_tick_above_every_curve(highest, top):
    assert axis_top([{"high": [0.0, highest]}]) == top


def test_order_of_the_curves_does_not_matter(curves, tmp_path):
    error_curves(curves, tmp_path / "one.png", "Depth")
    error_curves(curves[::-1], tmp_path / "other.png", "Depth")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()
