"""Mixup, cutmix, label smoothing and cutout: what is drawn, by what shares, and for whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.data import augment, mixing
from resnet_jax.tasks import classification, image_inputs
from resnet_jax.tasks.task import Batch
from tests.recipes import recipe

KEYS = jax.random.split(jax.random.key(0), 4000)
# Two images that tell how much of each is in a mixture: all zeros, and all ones.
PAIR = jnp.stack((jnp.zeros((6, 10, 1)), jnp.ones((6, 10, 1))))
ONE_HOT = jnp.eye(2)


@pytest.fixture(scope="module")
def mixtures():
    """Return, by kind, the images and targets of the pair under many keys."""
    kinds = {"mixup": (0.5, 0.0), "cutmix": (0.0, 1.0), "both": (0.5, 1.0)}
    many = lambda alphas: jax.vmap(lambda key: mixing.mix(key, PAIR, ONE_HOT, *alphas))(KEYS)
    return {kind: jax.jit(many, static_argnums=0)(alphas) for kind, alphas in kinds.items()}


def test_a_share_of_mixup_is_betas_and_the_same_in_images_and_targets(mixtures):
    images, targets = map(np.asarray, mixtures["mixup"])
    shares = targets[:, 0, 0]
    np.testing.assert_allclose(images[:, 0], (1 - shares)[:, None, None, None] + 0 * images[:, 0])
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(targets[:, 1, 1], shares, rtol=1e-6)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)): 1/8 at a = 1/2.
    assert shares.mean() == pytest.approx(1 / 2, abs=4 * np.sqrt(1 / 8 / len(KEYS)))
    assert shares.var() == pytest.approx(1 / 8, rel=0.05)


def test_the_targets_of_cutmix_are_shared_as_the_pixels_are(mixtures):
    images, targets = map(np.asarray, mixtures["cutmix"])
    np.testing.assert_allclose(images[:, 0].mean((1, 2, 3)), targets[:, 0, 1], atol=1e-6)
    np.testing.assert_allclose(images[:, 0] + images[:, 1], 1)
    # What is cut is a box: its rows and columns are the same everywhere.
    box = images[:, 0, :, :, 0]
    np.testing.assert_array_equal(box, box.max(2, keepdims=True) * box.max(1, keepdims=True))
    assert set(np.unique(images)) == {0.0, 1.0}


def test_a_box_has_the_area_of_its_share(mixtures):
    """Its sides are sqrt(1 - lambda) of the image's; the mean is over lambda and all centres."""
    part = np.sqrt(1 - (np.arange(2000) + 0.5) / 2000)  # Beta(1, 1) is uniform

    def inside(side):  # (centre, lambda) -> how many rows or columns lie in the image
        centre, half = np.arange(side)[:, None], (side * part).astype(int) // 2
        return np.minimum(centre + half, side) - np.maximum(centre - half, 0)

    area = (inside(6).mean(0) * inside(10).mean(0)).mean() / 60
    assert np.asarray(mixtures["cutmix"][0])[:, 0].mean() == pytest.approx(area, abs=0.02)


def test_the_centre_of_a_box_is_uniform_over_the_pixels():
    """A box of 2 x 2 pixels is cut off around pixel 0, and the last pixel has one chance less."""
    inside = lambda key: mixing.within(
        6, 10, *((c := jax.random.randint(key, (2,), 0, jnp.array([6, 10]), jnp.int32)) - 1, c + 1)
    )
    counts = np.asarray(jax.jit(jax.vmap(inside))(KEYS)).mean(0)
    rows = np.array([2, 2, 2, 2, 2, 1])[:, None] / 6
    columns = np.array([2] * 9 + [1])[None, :] / 10
    np.testing.assert_allclose(counts, rows * columns, atol=0.03)


def test_each_of_two_gets_half_of_the_batches(mixtures):
    images = np.asarray(mixtures["both"][0])
    blended = (images > 0) & (images < 1)
    by_mixup = blended.any((1, 2, 3, 4)).mean()
    assert by_mixup == pytest.approx(1 / 2, abs=0.05)


def test_smoothed_targets_are_distributions():
    targets = np.asarray(mixing.smoothed(jnp.array([0, 3]), 4, 0.1, jnp.float32))
    np.testing.assert_allclose(targets[1], [0.025, 0.025, 0.025, 0.925], rtol=1e-6)
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)


def test_a_square_is_cut_out_around_a_uniform_centre():
    n, side = 4000, 4
    images = jnp.ones((n, 8, 8, 2))
    cut = jax.jit(augment.cut_out, static_argnums=3)
    left = np.asarray(cut(jax.random.key(1), images, jnp.arange(n, dtype=jnp.int32), side))
    gone = left[..., 0] == 0
    np.testing.assert_array_equal(left[..., 0], left[..., 1])
    covering = [sum(c - 2 <= y < c + 2 for c in range(8)) for y in range(8)]
    np.testing.assert_allclose(gone.mean(0), np.outer(covering, covering) / 64, atol=0.03)
    areas = {int(a) for a in gone.sum((1, 2))}
    assert max(areas) == side**2 and min(areas) == (side // 2) ** 2


def batch(n=8):
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 1), np.uint8)
    rows = jnp.arange(n, dtype=jnp.int32)
    return Batch(jnp.asarray(images), rows % 3, rows, jnp.ones(n, bool))


SOFT = {"data__mixup": 0.2, "data__cutmix": 1.0, "data__label_smoothing": 0.1, "data__cutout": 4}
SAVED = {"mean": [0.5], "std": [0.25]}


def test_the_share_of_a_device_is_prepared_as_the_whole_batch_is():
    config = recipe("digits", batch_size=8, data__pad=2, data__padding="reflect", **SOFT)
    prepare = jax.jit(image_inputs.prepare(config, SAVED))
    whole = prepare(jax.random.key(3), batch())
    shares = [
        prepare(jax.random.key(3), jax.tree.map(lambda a, s=s: a[s], batch()))
        for s in (slice(0, 4), slice(4, 8))
    ]
    together = jax.tree.map(lambda *parts: jnp.concatenate(parts), *shares)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), together, whole
    )
    assert whole.target.shape == (8, 10)
    np.testing.assert_allclose(whole.target.sum(-1), 1, rtol=1e-5)


def test_evaluation_has_hard_labels_and_whole_images():
    config = recipe("digits", batch_size=8, **SOFT)
    made = image_inputs.prepare(config, SAVED)(None, batch())
    np.testing.assert_array_equal(made.target, batch().target)
    np.testing.assert_allclose(
        made.input, (np.asarray(batch().input) / 255 - 0.5) / 0.25, atol=1e-5
    )


@pytest.mark.parametrize("padding,outside", [("mean", 0.0), ("black", -2.0), ("reflect", None)])
def test_what_is_padded(padding, outside):
    """An image of the mean's level 255 * 0.75 has the normalised level 1 everywhere."""
    config = recipe("digits", data__pad=3, data__padding=padding, batch_size=50)
    level = Batch(
        jnp.full((50, 8, 8, 1), 191, jnp.uint8), *[jnp.arange(50, dtype=jnp.int32)] * 2, None
    )
    level = level.replace(mask=jnp.ones(50, bool))
    levels = np.unique(
        np.asarray(image_inputs.prepare(config, SAVED)(jax.random.key(0), level).input)
    )
    inside = (191 / 255 - 0.5) / 0.25
    expected = [inside] if outside is None else sorted([outside, inside])
    np.testing.assert_allclose(levels, expected, atol=1e-5)


def test_a_reflection_leaves_out_the_edge():
    image = jnp.arange(4.0)[None, :, None, None] * jnp.ones((200, 1, 4, 1))
    rows = jnp.arange(200, dtype=jnp.int32)
    made = augment.pad_crop_flip(jax.random.key(0), image, rows, 2, False, True)
    columns = {tuple(column) for column in np.asarray(made[:, :, 0, 0]).tolist()}
    padded = [2.0, 1.0, 0.0, 1.0, 2.0, 3.0, 2.0, 1.0]
    assert columns == {tuple(padded[i : i + 4]) for i in range(5)}


def test_an_image_with_its_contrast_normalised_has_mean_0_and_variance_1():
    from resnet_jax.data import normalise

    images = np.random.default_rng(0).integers(100, 140, (4, 8, 8, 3), np.uint8)
    made = np.asarray(normalise.contrast(jnp.asarray(images)))
    np.testing.assert_allclose(made.mean((1, 2, 3)), 0, atol=1e-4)
    variance = images.reshape(4, -1).astype(float).var(-1)
    np.testing.assert_allclose(made.reshape(4, -1).var(-1), variance / (10 + variance), rtol=1e-4)
    flat = normalise.contrast(jnp.full((1, 8, 8, 3), 7, jnp.uint8))
    assert not np.asarray(flat).any()


def test_the_loss_of_a_distribution_is_the_written_out_sum(x64):
    random = np.random.default_rng(0)
    logits, targets = random.normal(size=(6, 4)), random.dirichlet(np.ones(4), 6)
    mask = np.arange(6) < 5
    rows = jnp.arange(6, dtype=jnp.int32)
    soft = Batch(None, jnp.asarray(targets), rows, jnp.asarray(mask))
    sums = classification.measure(jnp.asarray(logits), soft)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = sum(-targets[i, k] * log_p[i, k] for i in range(5) for k in range(4))
    assert sums["loss"] == pytest.approx(expected, rel=1e-12)
    assert float(sums["error"]) == (logits.argmax(-1) != targets.argmax(-1))[:5].sum()
    # A label is the distribution that is certain of it.
    hard = Batch(None, jnp.asarray(targets.argmax(-1), jnp.int32), rows, jnp.asarray(mask))
    certain = soft.replace(target=jnp.eye(4)[targets.argmax(-1)])
    for name, value in classification.measure(jnp.asarray(logits), hard).items():
        assert classification.measure(jnp.asarray(logits), certain)[name] == pytest.approx(value)
