"""The reference kernels: every network in forward mode, with the gradients of the fast ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import families
from resnet_jax.models.batch_norm import BatchNorm
from resnet_jax.models.conv import Conv
from tests.recipes import changed
from tests.smallest import drawn, smallest


def like(tree, seed):
    """Return a tree of the same shapes with random numbers."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), tree)


def product(a, b):
    return sum(jnp.vdot(*pair) for pair in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def problem(family, argument="", **changes):
    """Return a function (config) -> loss of the parameters, a config, and parameters."""
    config = smallest(family, argument, dtype="float64", kernels="reference", **changes)
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(2, *config.data.shape)))
    variables = drawn(families.build(config), x)
    params = variables.pop("params")

    def loss(config):
        net = families.build(config)
        apply = lambda p: net.apply({"params": p, **variables}, x, mutable=["batch_stats"])[0]
        return lambda params: jnp.square(apply(params)).sum()

    return loss, config, params


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_slope_by_forward_mode_is_the_fast_gradient_times_the_direction(x64, family):
    stages = {"model__stages": (2,)} if "model.stages" in families.FAMILIES[family].keys else {}
    loss, config, params = problem(family, **stages)
    fast = loss(changed(config, {"kernels": "auto"}))
    way = like(params, 1)
    measured = jax.jit(
        lambda p, v: (jax.jvp(loss(config), (p,), (v,)), jax.value_and_grad(fast)(p))
    )
    (value, slope), (fast_value, gradient) = measured(params, way)
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(slope, product(gradient, way), rtol=1e-9)
    np.testing.assert_allclose(value, fast_value, rtol=1e-12)


def test_both_kernels_have_the_same_gradients_and_the_hessian_is_symmetric(x64):
    """In a network with a strided convolution, a projection and a Stack."""
    loss, config, params = problem("resnet", "skip=B", model__stages=(1, 1))
    fast = loss(changed(config, {"kernels": "auto"}))
    u, v = like(params, 1), like(params, 2)
    times = lambda p, way: jax.jvp(jax.grad(loss(config)), (p,), (way,))
    measured = jax.jit(lambda p, u: (*times(p, u), jax.grad(fast)(p)))
    (gradient, h_u, expected), (_, h_v, _) = measured(params, u), measured(params, v)
    assert abs(product(v, h_u)) > 1e-3
    np.testing.assert_allclose(product(v, h_u), product(u, h_v), rtol=1e-8)
    largest = max(jnp.abs(a).max() for a in jax.tree.leaves(expected))
    for a, b in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12 * largest)


@pytest.mark.parametrize("layer", [Conv(3), BatchNorm()])
def test_the_fast_kernels_refuse_forward_mode_on_the_cpu(layer):
    """If JAX learns to do it, the reference kernels are no longer needed for it."""
    x = jnp.ones((2, 4, 4, 3))
    variables = layer.init(jax.random.key(0), x)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: layer.apply(variables, x, mutable=["batch_stats"])[0], (x,), (x,))
