"""Norms: against autodiff and their definitions, their statistics, and what they refuse."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close

from resnet_jax.models.batch_norm import BatchNorm, normalise
from resnet_jax.models.norm import GroupNorm, LayerNorm, NoNorm, Shift

# Scales and biases of six channels.
RAMP = {
    "params": {
        "scale": np.arange(6, dtype=np.float32),
        "bias": np.arange(-3, 3, dtype=np.float32),
    }
}


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def autodiff(x, scale, bias, relu):
    axes = tuple(range(1, x.ndim - 1))
    mean = x.mean(axes, keepdims=True)
    variance = ((x - mean) ** 2).mean(axes, keepdims=True)
    y = (x - mean) / jnp.sqrt(variance + 1e-5)
    y = y * scale.reshape((1,) * (x.ndim - 1) + (-1,)) + bias.reshape((1,) * (x.ndim - 1) + (-1,))
    return nn.relu(y) if relu else y


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(1, 6, 4, 4, 3), (3, 4, 5, 2, 3), (2, 7, 3)])
def test_gradients_equal_those_of_autodiff(x64, shape, relu):
    keys = jax.random.split(jax.random.key(0), 3)
    x = 3 + 2 * jax.random.normal(keys[0], shape)
    scale, bias = jax.random.normal(keys[1], (2, 3))
    g = jax.random.normal(keys[2], shape)

    @jax.jit
    def both(*inputs):
        y, pull_autodiff = jax.vjp(lambda *a: autodiff(*a, relu), *inputs)
        z, pull = jax.vjp(lambda *a: normalise(*a, 1e-5, relu)[0], *inputs)
        return (y, *pull_autodiff(g)), (z, *pull(g))

    assert_trees_all_close(*both(x, scale, bias), atol=1e-11)


def test_running_statistics_are_used_if_batch_stats_may_not_change():
    norm = BatchNorm(momentum=0.5)
    x = 2 + 3 * normal(64, 4, 4, 5)

    @jax.jit
    def run(x):
        variables = norm.init(jax.random.key(0), x)
        y, changed = norm.apply(variables, x, mutable=["batch_stats"])
        return y, changed["batch_stats"], norm.apply({**variables, **changed}, x)

    y, stats, kept = jax.tree.map(np.asarray, run(x))
    assert np.abs(y.mean((0, 1, 2))).max() < 1e-5
    assert_trees_all_close(stats["mean"], 0.5 * x.mean((0, 1, 2)), rtol=1e-5)
    assert_trees_all_close(stats["var"], 0.5 + 0.5 * x.var((0, 1, 2)), rtol=1e-5)
    expected = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    assert_trees_all_close(kept, expected, atol=1e-5)


def test_a_group_is_normalised_as_a_batch_of_its_own():
    x = normal(8, 4, 4, 3) * np.arange(1, 9, dtype=np.float32).reshape(8, 1, 1, 1)
    whole, grouped = BatchNorm(relu=True), BatchNorm(relu=True, group_size=2)

    @jax.jit
    def run(x):
        apply = lambda norm, x: norm.apply(variables, x, mutable=["batch_stats"])
        variables = whole.init(jax.random.key(0), x)
        return apply(grouped, x), [apply(whole, x[i : i + 2]) for i in range(0, 8, 2)]

    (y, stats), alone = jax.tree.map(np.asarray, run(x))
    assert_trees_all_close(y, np.concatenate([a for a, _ in alone]), atol=1e-6)
    means = np.stack([s["batch_stats"]["mean"] for _, s in alone])
    assert_trees_all_close(stats["batch_stats"]["mean"], means.mean(0), atol=1e-6)


def test_a_group_that_does_not_divide_the_batch_is_refused():
    norm = BatchNorm(group_size=3)
    x = jax.ShapeDtypeStruct((8, 2, 2, 1), jnp.float32)
    variables = jax.eval_shape(norm.init, jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"norm.group_size=3 .* batch of 8; .*: (2|4)"):
        jax.eval_shape(lambda v, x: norm.apply(v, x, mutable=["batch_stats"]), variables, x)


def test_statistics_are_float32_if_activations_are_bfloat16():
    x = (100 + normal(32, 8, 8, 4)).astype(jnp.bfloat16)
    norm = BatchNorm()

    @jax.jit
    def run(x):
        return norm.apply(norm.init(jax.random.key(0), x), x, mutable=["batch_stats"])

    y, changed = run(x)
    mean = changed["batch_stats"]["mean"]
    assert y.dtype == jnp.bfloat16 and mean.dtype == jnp.float32
    np.testing.assert_allclose(mean, 0.1 * x.astype(np.float32).mean((0, 1, 2)), rtol=1e-4)


def grouped(x, groups, epsilon=1e-5):
    """Return Wu & He 2018, eq. 1 and 7, in float64."""
    x = np.asarray(x, np.float64)
    parts = x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean, variance = parts.mean((1, 3), keepdims=True), parts.var((1, 3), keepdims=True)
    return ((parts - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("shift", [0.0, 300.0])
def test_group_norm_is_its_definition_for_small_and_large_means(groups, shift):
    x = np.float32(shift) + 2 * normal(3, 4, 5, 6)
    norm = GroupNorm(groups)
    variables = jax.eval_shape(norm.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables["params"]) == {"scale": (6,), "bias": (6,)}
    norms = (norm, GroupNorm(groups, relu=True))
    y, cut = jax.jit(lambda v, x: [norm.apply(v, x) for norm in norms])(RAMP, x)
    expected = grouped(x, groups) * np.arange(6.0) + np.arange(6.0) - 3
    np.testing.assert_allclose(y, expected, atol=1e-3 if shift else 1e-5)
    np.testing.assert_allclose(cut, np.maximum(y, 0), rtol=1e-5, atol=1e-5)


def test_group_norm_sees_one_example_at_a_time_and_trains_as_it_evaluates():
    norm = GroupNorm(2)

    @jax.jit
    def run(x):
        variables = norm.init(jax.random.key(0), x)
        alone = jnp.concatenate([norm.apply(variables, x[i : i + 1]) for i in range(4)])
        return norm.apply(variables, x), alone, norm.apply(variables, x, mutable=["batch_stats"])

    y, alone, (trained, changed) = run(normal(4, 3, 3, 4))
    np.testing.assert_allclose(y, alone, atol=1e-6)
    np.testing.assert_array_equal(trained, y)
    assert not jax.tree.leaves(changed)


def test_group_norm_keeps_its_statistics_in_float32():
    x = (20 + normal(2, 8, 8, 4)).astype(jnp.bfloat16)
    y, variables = jax.jit(GroupNorm(2).init_with_output)(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    np.testing.assert_allclose(np.asarray(y, np.float32), grouped(x, 2), atol=0.02)


def test_groups_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(ValueError, match=r"norm.groups=8 does not divide 12 channels; .*: 6"):
        jax.eval_shape(GroupNorm(8).init, jax.random.key(0), jnp.ones((1, 2, 2, 12)))


@pytest.mark.parametrize("shift", [0.0, 300.0])
def test_layer_norm_is_its_definition_for_each_token_by_itself(shift):
    """GroupNorm(1) differs: it takes all tokens of an example together."""
    x = np.float32(shift) + 2 * normal(3, 4, 6) * np.arange(1, 5, dtype=np.float32)[:, None]
    norms = (LayerNorm(), GroupNorm(1, 1e-6))
    y, other = jax.jit(lambda v, x: [norm.apply(v, x) for norm in norms])(RAMP, x)
    wide = np.asarray(x, np.float64)
    xhat = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-6)
    expected = xhat * np.arange(6.0) + np.arange(6.0) - 3
    np.testing.assert_allclose(y, expected, atol=1e-3 if shift else 1e-5)
    assert not np.allclose(y, other, atol=0.1)
    start = jax.eval_shape(LayerNorm().init_with_output, jax.random.key(0), x.astype(jnp.bfloat16))
    narrow, variables = start
    assert narrow.dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_no_norm_is_the_relu_alone_and_has_no_variables():
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
    y, variables = NoNorm(relu=True).init_with_output(jax.random.key(0), x)
    assert not variables and jnp.array_equal(y, nn.relu(x))
    assert jnp.array_equal(NoNorm().apply({}, x), x)


def test_a_shift_adds_one_number_to_all_elements():
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
    y, variables = Shift().init_with_output(jax.random.key(0), x)
    assert jnp.array_equal(y, x)
    assert [a.shape for a in jax.tree.leaves(variables)] == [()]
    moved = Shift(relu=True).apply({"params": {"bias": jnp.float32(-0.5)}}, x)
    assert jnp.array_equal(moved, nn.relu(x - 0.5))


@pytest.mark.parametrize(
    "norm,shape",
    [
        (BatchNorm(), (1, 1, 1, 4)),
        (BatchNorm(group_size=1), (3, 1, 1, 4)),
        (BatchNorm(), (1, 4)),
        (GroupNorm(groups=4), (3, 1, 1, 4)),
        (LayerNorm(), (3, 5, 1)),
    ],
)
def test_a_norm_over_one_number_is_refused(norm, shape):
    """Nothing of the input would be left; PyTorch refuses batch norm of one value a channel."""
    with pytest.raises(ValueError, match="gives the same output for every input"):
        norm.init_with_output(jax.random.key(0), jnp.ones(shape))
        variables = norm.init(jax.random.key(0), jnp.ones(shape))
        norm.apply(variables, jnp.ones(shape), mutable=["batch_stats"])


def test_a_norm_over_two_numbers_is_accepted():
    for norm, shape in ((BatchNorm(), (1, 2, 1, 4)), (BatchNorm(group_size=2), (4, 1, 1, 4))):
        variables = norm.init(jax.random.key(0), jnp.ones(shape))
        norm.apply(variables, jnp.ones(shape), mutable=["batch_stats"])
