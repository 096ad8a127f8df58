import json

import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.data import normalise

IMAGES = np.random.default_rng(0).integers(0, 256, (2300, 5, 4, 3)).astype(np.uint8)
IMAGES[..., 1] //= 3


def applied(normalisation, images=IMAGES):
    return np.asarray(normalise.apply(normalisation, jnp.asarray(images)), np.float64)


def test_channel_gives_every_channel_mean_0_and_variance_1():
    x = applied(normalise.statistics("channel", IMAGES))
    np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(x.var((0, 1, 2)), 1, rtol=1e-6)


def test_per_pixel_subtracts_the_mean_image_and_divides_nothing():
    x = applied(normalise.statistics("per_pixel", IMAGES))
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-7)
    np.testing.assert_allclose(x.std(), (IMAGES / 255 - (IMAGES / 255).mean(0)).std(), rtol=1e-6)


def test_constants_are_taken_as_they_are():
    given = normalise.statistics("constants", IMAGES, (0.5, 0.4, 0.3), (0.1, 0.2, 0.25))
    expected = (IMAGES / 255 - [0.5, 0.4, 0.3]) / [0.1, 0.2, 0.25]
    np.testing.assert_allclose(applied(given), expected, atol=1e-6)


def test_a_constant_channel_is_not_divided():
    images = IMAGES.copy()
    images[..., 2] = 7
    normalisation = normalise.statistics("channel", images)
    assert normalisation.std[2] == 1
    np.testing.assert_allclose(applied(normalisation, images)[..., 2], 0, atol=1e-7)


@pytest.mark.parametrize("kind", ["per_pixel", "channel"])
def test_json_keeps_every_bit(kind):
    before = normalise.statistics(kind, IMAGES)
    after = normalise.Normalisation.from_json(
        json.loads(json.dumps(before.to_json())), IMAGES.shape[1:]
    )
    np.testing.assert_array_equal(before.mean, after.mean, strict=True)
    np.testing.assert_array_equal(before.std, after.std, strict=True)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"mean": [0.5]}, r"mean \(1,\) and std \(3,\) do not fit images \("),
        ({"std": [1.0, 1.0]}, "do not fit images"),
        ({"std": [1.0, 0.0, 1.0]}, "std must be positive"),
        ({"mean": [0.5, float("nan"), 0.5]}, "must be finite"),
        ({"std": [1.0, float("inf"), 1.0]}, "must be finite"),
    ],
)
def test_saved_numbers_that_images_cannot_be_normalised_by_are_refused(change, message):
    saved = normalise.statistics("channel", IMAGES).to_json() | change
    with pytest.raises(ValueError, match=message):
        normalise.Normalisation.from_json(saved, IMAGES.shape[1:])


@pytest.mark.parametrize(
    ("mean", "std"),
    [((), ()), ((0.5,), (0.2,)), ((0.5, 0.5, 0.5), (0.2, 0.2, 0.0))],
)
def test_constants_that_do_not_fit_are_refused(mean, std):
    with pytest.raises(ValueError, match="3 channels"):
        normalise.statistics("constants", IMAGES, mean, std)


def test_another_kind_is_refused_with_the_kinds_there_are():
    with pytest.raises(ValueError, match="'pixel' is not per_pixel, channel or constants"):
        normalise.statistics("pixel", IMAGES)
