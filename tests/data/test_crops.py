"""Tests of the position, the distribution and the inputs of random crops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax.data import crops


@settings(max_examples=60, deadline=None)
@given(
    high=st.integers(1, 3000), wide=st.integers(1, 3000), seed=st.integers(0, 2**32 - 1),
    step=st.integers(0, 10**9), row=st.integers(0, 300),
)  # fmt: skip
def test_a_crop_lies_within_the_photograph(high, wide, seed, step, row):
    left, top, right, bottom = crops.box(high, wide, crops.draw(seed, step, np.array([row]))[0])
    assert 0 <= left < right <= wide and 0 <= top < bottom <= high


def boxes(high, wide, n):
    drawn = crops.draw(0, 0, np.arange(n))
    return np.array([crops.box(high, wide, numbers) for numbers in drawn]).T


def test_area_is_uniform_and_the_ratio_as_often_upright_as_lying():
    left, top, right, bottom = boxes(1000, 1000, 4000)
    wide, high = right - left, bottom - top
    ratio = wide / high
    assert ratio.min() > 0.74 and ratio.max() < 1.35
    # A crop of nearly the whole area must be nearly square, so that fewer large crops succeed.
    area = wide * high / 1e6
    assert area.min() > 0.079 and area.max() <= 1
    counts = np.histogram(area, np.linspace(0.08, 0.54, 6))[0]
    assert abs(counts / counts.mean() - 1).max() < 5 / np.sqrt(counts.mean())
    assert abs((ratio > 1).mean() - 0.5) < 0.04


def test_every_place_is_equally_likely():
    left, top, right, bottom = boxes(500, 400, 4000)
    for begin, size, length in ((left, right - left, 400), (top, bottom - top, 500)):
        place = begin / np.maximum(length - size, 1)
        assert abs(place[size < length].mean() - 0.5) < 0.03


@pytest.mark.parametrize(
    ("high", "wide", "expected"),
    [(10, 1000, (493, 0, 506, 10)), (1000, 10, (0, 493, 10, 506)), (1, 1, (0, 0, 1, 1))],
)
def test_if_ten_tries_fail_the_crop_is_the_largest_centred_part(high, wide, expected):
    numbers = np.full((crops.TRIES, 4), 0.99)
    assert crops.box(high, wide, numbers) == expected


def test_numbers_depend_on_seed_step_and_row_alone():
    rows = np.array([5, 2, 9])
    drawn = crops.draw(1, 7, rows)
    assert drawn.shape == (3, crops.TRIES, 4) and drawn.dtype == np.float64
    assert (drawn >= 0).all() and (drawn < 1).all()
    np.testing.assert_array_equal(drawn, crops.draw(1, 7, np.arange(100))[rows])
    for other in (crops.draw(2, 7, rows), crops.draw(1, 8, rows), crops.draw(1, 7, rows + 1)):
        assert (drawn != other).all()


def test_the_numbers_are_the_same_for_ever():
    # If these numbers change, no run of an earlier version can be resumed or repeated.
    golden = [[0.6154811970576356, 0.7030394903916454, 0.9311765271214205, 0.9289854489231167]]
    np.testing.assert_array_equal(crops.draw(2015, 10**7, np.array([3]))[:, 4], golden)


def test_a_crop_is_the_part_resized():
    image = np.zeros((40, 60, 3), np.uint8)
    image[..., 0] = np.arange(60) * 4
    image[..., 1] = np.arange(40)[:, None] * 6
    numbers = crops.draw(0, 0, np.array([0]))[0]
    left, top, right, bottom = crops.box(40, 60, numbers)
    cropped = crops.crop(image, numbers, (8, 8, 3))
    assert cropped.shape == (8, 8, 3) and cropped.dtype == np.uint8
    columns = left + (np.arange(8) + 0.5) * (right - left) / 8 - 0.5
    rows = top + (np.arange(8) + 0.5) * (bottom - top) / 8 - 0.5
    inner = slice(1, -1)  # the filter is cut off at the edges
    np.testing.assert_allclose(cropped[4, inner, 0], columns[inner] * 4, atol=2)
    np.testing.assert_allclose(cropped[inner, 4, 1], rows[inner] * 6, atol=2)
    grey = crops.crop(image[..., :1], numbers, (8, 8, 1))
    np.testing.assert_array_equal(grey[..., 0], cropped[..., 0])
