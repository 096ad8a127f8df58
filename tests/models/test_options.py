"""Choices of the papers' codes that are values here: shortcuts, starts, dropout, first units."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models import bodies
from resnet_jax.models.batch_norm import BatchNorm
from resnet_jax.models.dense import Dense
from resnet_jax.models.merges import Gated
from resnet_jax.models.pooled_highway import CeilPool
from resnet_jax.models.skips import ZeroPad
from resnet_jax.models.stochastic_depth import survivals
from tests.recipes import recipe
from tests.smallest import parameters, shapes


@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_option_a_may_average_pixels_and_keeps_the_shape_of_subsampling(size):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    kept, averaged = ZeroPad(5, 2)(x), ZeroPad(5, 2, average=True)(x)
    assert averaged.shape == kept.shape
    np.testing.assert_array_equal(averaged[..., 3:], 0)
    for i in range(averaged.shape[1]):
        for j in range(averaged.shape[2]):
            window = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((1, 2))
            np.testing.assert_allclose(averaged[:, i, j, :3], window, rtol=1e-5, atol=1e-6)


def test_scales_may_start_uniform_and_bodies_that_start_at_zero_still_do():
    x = jnp.ones((2, 4, 4, 2000))
    start = lambda **options: BatchNorm(**options).init(jax.random.key(0), x)["params"]["scale"]
    scales = np.asarray(start(scale="uniform"))
    assert 0 <= scales.min() < 0.01 and 0.99 < scales.max() < 1
    assert scales.mean() == pytest.approx(1 / 2, abs=0.03)
    assert not start(scale="uniform", zero=True).any() and (start() == 1).all()


@pytest.mark.parametrize("fan,n", [("in", 9 * 4), ("out", 9 * 32), ("auto", 9 * 32)])
def test_kernels_start_by_the_fan_that_is_asked_for(fan, n):
    from resnet_jax import families

    config = recipe("digits", "depth=8", model__width=32, model__fan=fan, data__shape=(8, 8, 4))
    kernel = families.build(config).init(jax.random.key(0), jnp.ones((1, 8, 8, 4)))["params"]
    assert np.std(kernel["stem"]["conv"]["kernel"]) == pytest.approx((2 / n) ** 0.5, rel=0.08)


def test_dropout_stands_between_the_convolutions_of_a_wide_body():
    """With the second convolution as the identity, the body's zeros are what was dropped."""
    plain = functools.partial(bodies.PreActivation, bodies.basic(8), norm=Nothing)
    x = jnp.abs(jax.random.normal(jax.random.key(0), (64, 4, 4, 8))) + 1
    variables = plain().init(jax.random.key(1), x)
    identity = jnp.zeros((3, 3, 8, 8)).at[1, 1].set(jnp.eye(8))
    variables = {"params": {"conv1": {"kernel": identity}, "conv2": {"kernel": identity}}}
    body = plain(between=0.25)
    np.testing.assert_allclose(body.apply(variables, x), x)
    trained = np.asarray(body.apply(variables, x, rngs={"drop": jax.random.key(2)}))
    dropped = trained == 0
    assert dropped.mean() == pytest.approx(0.25, abs=0.02)
    np.testing.assert_allclose(trained[~dropped], np.asarray(x)[~dropped] / 0.75, rtol=1e-6)


class Nothing(BatchNorm):
    """A norm that changes nothing."""

    def __call__(self, x):
        """Return `x`."""
        return x


def test_the_first_unit_of_a_wide_network_of_width_1_keeps_the_raw_image_of_its_stem():
    wide = recipe("cifar10", "family=wide,depth=10", model__widen=1)
    net, variables, _ = shapes(wide)
    assert "stage1_first" not in net.blocks and "stage2_first" in net.blocks
    shared, others, _ = shapes(recipe("cifar10", "depth=8,block=preact_basic,skip=B"))
    assert "stage1_first" in shared.blocks
    assert parameters(variables) == parameters(others)


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_linspace_keeps_the_first_block_and_ends_at_the_last(blocks):
    rates = survivals("linspace", 0.75, blocks)
    np.testing.assert_allclose(rates, 1 - np.linspace(0, 0.25, blocks) if blocks > 1 else [0.75])


def test_highway_layers_may_have_tanh_and_gates_that_start_as_the_authors_do():
    x = jax.random.normal(jax.random.key(0), (4, 400))
    layer = Dense(400, "tanh")
    variables = layer.init(jax.random.key(1), x)
    kernel = variables["params"]["dense"]["kernel"]
    assert np.std(kernel) == pytest.approx(400**-0.5, rel=0.02)
    np.testing.assert_allclose(
        layer.apply(variables, x), jnp.tanh(x @ kernel), rtol=1e-4, atol=1e-5
    )
    for start, variance in (("he", 2), ("lecun", 1)):
        gate = Gated(-2.0, kernel_start=start).init(jax.random.key(1), x, x, x)["params"]["gate"]
        assert np.std(gate["kernel"]) == pytest.approx((variance / 400) ** 0.5, rel=0.02)


def test_the_plain_twin_of_a_pooled_highway_has_about_as_many_parameters():
    argument = "family=highway,block=pooled,depth=19"
    gated, plain = (
        parameters(shapes(recipe("cifar10", f"{argument}{skip}"))[1]) for skip in ("", ",skip=none")
    )
    assert plain == pytest.approx(gated, rel=0.05)


def test_the_last_window_of_caffes_pooling_reaches_beyond_the_image():
    x = jnp.arange(24.0).reshape(1, 24, 1, 1) * jnp.ones((1, 1, 24, 1))
    pooled = CeilPool(3)(x)
    assert pooled.shape == (1, 12, 12, 1) and CeilPool(3)(pooled).shape == (1, 6, 6, 1)
    np.testing.assert_array_equal(pooled[0, :, 0, 0], [*range(2, 24, 2), 23])
