import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close

from resnet_jax.models.norm import BatchNorm, normalise


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
        y, theirs = jax.vjp(lambda *a: autodiff(*a, relu), *inputs)
        z, ours = jax.vjp(lambda *a: normalise(*a, 1e-5, relu)[0], *inputs)
        return (y, *theirs(g)), (z, *ours(g))

    assert_trees_all_close(*both(x, scale, bias), atol=1e-11)


def test_running_statistics_are_used_where_batch_stats_may_not_change():
    norm = BatchNorm(momentum=0.5)
    x = 2 + 3 * jax.random.normal(jax.random.key(0), (64, 4, 4, 5))
    variables = norm.init(jax.random.key(0), x)
    y, changed = jax.jit(lambda x: norm.apply(variables, x, mutable=["batch_stats"]))(x)
    assert jnp.abs(y.mean((0, 1, 2))).max() < 1e-5
    stats = changed["batch_stats"]
    assert_trees_all_close(stats["mean"], 0.5 * x.mean((0, 1, 2)), rtol=1e-5)
    assert_trees_all_close(stats["var"], 0.5 + 0.5 * x.var((0, 1, 2)), rtol=1e-5)
    kept = norm.apply({**variables, **changed}, x)
    expected = (np.asarray(x) - np.asarray(stats["mean"])) / np.sqrt(stats["var"] + 1e-5)
    assert_trees_all_close(kept, expected, atol=1e-5)


def test_a_group_is_normalised_as_if_alone():
    x = jax.random.normal(jax.random.key(0), (8, 4, 4, 3)) * jnp.arange(1.0, 9).reshape(8, 1, 1, 1)
    whole, grouped = BatchNorm(relu=True), BatchNorm(relu=True, group_size=2)
    variables = whole.init(jax.random.key(0), x)
    y, stats = grouped.apply(variables, x, mutable=["batch_stats"])
    one = jax.jit(lambda x: whole.apply(variables, x, mutable=["batch_stats"]))
    alone = [one(x[i : i + 2]) for i in range(0, 8, 2)]
    assert_trees_all_close(y, jnp.concatenate([a for a, _ in alone]), atol=1e-6)
    means = jnp.stack([s["batch_stats"]["mean"] for _, s in alone])
    assert_trees_all_close(stats["batch_stats"]["mean"], means.mean(0), atol=1e-6)


def test_a_group_that_does_not_divide_the_batch_is_refused():
    norm = BatchNorm(group_size=3)
    x = jnp.ones((8, 2, 2, 1))
    variables = norm.init(jax.random.key(0), x[:1])
    with pytest.raises(ValueError, match=r"norm.group_size=3 .* batch of 8; .*: (2|4)"):
        norm.apply(variables, x, mutable=["batch_stats"])


def test_statistics_are_float32_where_activations_are_bfloat16():
    x = (100 + jax.random.normal(jax.random.key(0), (32, 8, 8, 4))).astype(jnp.bfloat16)
    norm = BatchNorm()
    y, changed = norm.apply(norm.init(jax.random.key(0), x), x, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert changed["batch_stats"]["mean"].dtype == jnp.float32
    wide = x.astype(jnp.float32)
    assert_trees_all_close(changed["batch_stats"]["mean"], 0.1 * wide.mean((0, 1, 2)), rtol=1e-4)
