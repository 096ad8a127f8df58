import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.data import augment

pad_crop_flip = jax.jit(augment.pad_crop_flip, static_argnums=(3, 4))

PAD = 1
IMAGE = np.arange(1, 13, dtype=np.float32).reshape(3, 2, 2)  # not square, and all pixels differ


def variants(image, pad, flip):
    """A Counter of the draws that give each image; its keys are the bytes of images."""
    h, w, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    crops = [
        padded[y : y + h, x : x + w]
        for y, x in itertools.product(range(2 * pad + 1), range(2 * pad + 1))
    ]
    return Counter(c.tobytes() for c in crops + ([c[:, ::-1] for c in crops] if flip else []))


def many(pad, flip, n=4000, seed=0):
    images = jnp.broadcast_to(IMAGE, (n, *IMAGE.shape))
    rows = jnp.arange(n)
    return np.asarray(pad_crop_flip(jax.random.key(seed), images, rows, pad, flip))


@pytest.mark.parametrize(("pad", "flip"), [(PAD, True), (PAD, False), (0, True), (2, False)])
def test_every_crop_and_mirror_image_is_equally_likely(pad, flip):
    n = 4000
    expected = variants(IMAGE, pad, flip)
    made = Counter(image.tobytes() for image in many(pad, flip, n))
    assert set(made) == set(expected)
    for image, ways in expected.items():
        mean = n * ways / expected.total()
        assert abs(made[image] - mean) < 5 * np.sqrt(mean)


def test_without_padding_and_flips_nothing_happens():
    assert (many(0, False, 5) == IMAGE).all()


def test_what_happens_to_an_image_depends_on_its_row_and_not_on_the_split_over_devices():
    key = jax.random.key(3)
    images = jax.random.normal(key, (8, 6, 5, 3))
    rows = jnp.arange(8)
    whole = pad_crop_flip(key, images, rows, 2, True)
    halves = [
        pad_crop_flip(key, images[half], rows[half], 2, True) for half in (slice(0, 4), slice(4, 8))
    ]
    np.testing.assert_array_equal(whole, np.concatenate(halves))
    assert (whole[4:] != pad_crop_flip(key, images[4:], rows[:4], 2, True)).any()


def test_the_key_decides():
    assert (many(PAD, True, 50, seed=0) == many(PAD, True, 50, seed=0)).all()
    assert (many(PAD, True, 50, seed=0) != many(PAD, True, 50, seed=1)).any()


def test_a_float64_run_draws_what_a_float32_run_draws():
    single = many(2, True, 50)
    with jax.enable_x64(True):
        double = jnp.asarray(IMAGE, jnp.float64)
        images = jnp.broadcast_to(double, (50, *IMAGE.shape))
        rows = jnp.arange(50, dtype=jnp.int32)
        moved = np.asarray(pad_crop_flip(jax.random.key(0), images, rows, 2, True))
    assert moved.dtype == np.float64
    np.testing.assert_array_equal(moved, single)
