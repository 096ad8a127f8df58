"""The merges, how skip and body meet, at their limits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close

from resnet_jax.models.conv import Conv
from resnet_jax.models.merges import Gated, Scaled, add, concat, plain
from resnet_jax.models.residual import Residual, Stack
from resnet_jax.models.resnet import resnet
from resnet_jax.models.skips import Projection, ZeroPad
from resnet_jax.models.stochastic_depth import Dropped
from tests.smallest import without_merges

VECTORS, TOKENS, IMAGES = (3, 5), (3, 4, 5), (3, 4, 6, 5)


def paths(shape):
    return list(jnp.asarray(np.random.default_rng(0).normal(size=(3, *shape)), jnp.float32))


def meet(merge, s, f, z):
    """Return the output of a merge as it starts, its parameters and its gains."""

    @jax.jit
    def run(s, f, z):
        weights = {"params": merge.init(jax.random.key(4), s, f, z).get("params", {})}
        y, sown = merge.apply(weights, s, f, z, mutable=["gains"])
        return y, weights["params"], sown["gains"]

    return run(s, f, z)


@pytest.mark.parametrize("shape", [VECTORS, TOKENS, IMAGES])
def test_the_gains_of_a_coupled_gate_add_up_to_one(shape):
    s, f, z = paths(shape)
    merge = Gated(transform_bias=-1.0)
    y, params, gains = meet(merge, s, f, z)
    s, f, z, kernel = (np.asarray(a) for a in (s, f, z, params["gate"]["kernel"].reshape(5, 5)))
    t = 1 / (1 + np.exp(1 - np.einsum("...c,cd->...d", z, kernel)))
    assert_trees_all_close(y, (1 - t) * s + t * f, atol=1e-5)
    assert_trees_all_close(gains["transform"], t.mean(), atol=1e-6)
    assert_trees_all_close(gains["carry"] + gains["transform"], jnp.float32(1), atol=1e-6)


@pytest.mark.parametrize("shape", [VECTORS, TOKENS, IMAGES])
def test_a_shortcut_gate_leaves_the_body_alone(shape):
    s, f, z = paths(shape)
    coupled, _, gains = meet(Gated(-0.5), s, f, z)
    shortcut, _, shortcut_gains = meet(Gated(-0.5, transform=False), s, f, z)
    zeros = jnp.zeros_like(f)
    assert_trees_all_close(shortcut - f, meet(Gated(-0.5), s, zeros, z)[0], atol=1e-5)
    assert not jnp.allclose(shortcut, coupled)
    assert shortcut_gains["transform"] == 1 and shortcut_gains["carry"] == gains["carry"]


@pytest.mark.parametrize("shape", [VECTORS, IMAGES])
@pytest.mark.parametrize(
    "transform,carry,limit",
    [
        (30.0, 30.0, add),
        (30.0, -30.0, plain),
        (-30.0, 30.0, lambda s, f, z: s),
        (-30.0, -30.0, lambda s, f, z: jnp.zeros_like(s)),
        (30.0, None, plain),
        (-30.0, None, lambda s, f, z: s),
    ],
)
def test_open_and_shut_gates_give_the_merges_without_gates(shape, transform, carry, limit):
    s, f, z = paths(shape)
    y, _, gains = meet(Gated(transform, carry), s, f, z)
    assert_trees_all_close(y, limit(s, f, z), atol=1e-6)
    one = jnp.float32(1)
    expected = limit(one, jnp.float32(0), one), limit(jnp.float32(0), one, one)
    assert_trees_all_close((gains["carry"], gains["transform"]), expected, atol=1e-6)


def test_a_network_with_two_open_gates_is_the_resnet_of_the_same_bodies(x64):
    """Outputs and gradients with respect to the image agree."""
    conv = partial(Conv, dtype=jnp.float64)
    make = partial(
        resnet, (1, 1), block="preact_single", skip="B", num_outputs=3, width=4, conv=conv
    )
    gated, residual = make(merge=Gated(30.0, 30.0, conv=conv)), make()
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = jax.jit(gated.init)(jax.random.key(1), x)
    fewer = {**variables, "params": without_merges(variables["params"])}

    @jax.jit
    def both(x):
        y, pull = jax.vjp(lambda x: gated.apply(variables, x), x)
        z, pull_residual = jax.vjp(lambda x: residual.apply(fewer, x), x)
        return (y, pull(jnp.sin(y))[0]), (z, pull_residual(jnp.sin(z))[0])

    of_gated, of_residual = both(x)
    assert jnp.abs(of_gated[1]).max() > 1e-3
    assert_trees_all_close(of_gated, of_residual, atol=1e-6)


@pytest.mark.parametrize("stride,size", [(1, 1), (2, 1), (2, 3), (3, 3)])
@pytest.mark.parametrize("pixels", [4, 5, 7, 8, 9])
def test_a_gate_follows_a_block_that_changes_the_shape(stride, size, pixels):
    x = jnp.ones((2, pixels, pixels, 3))
    for skip in (ZeroPad(6, stride), Projection(6, stride)):
        block = Residual(Projection(6, stride), skip, Gated(-1.0, carry_bias=1.0, size=size))
        y, variables = jax.eval_shape(block.init_with_output, jax.random.key(0), x)
        assert y.shape == (2, -(-pixels // stride), -(-pixels // stride), 6)
        kernel = variables["params"]["merge"]["carry_gate"]["kernel"]
        assert kernel.shape == (size, size, 3, 6)


def test_a_gate_depends_on_the_blocks_input_alone():
    """Only z changes a gate; s and f do not."""
    s, f, z = paths(IMAGES)
    gate = lambda s, f, z: meet(Gated(-1.0, 1.0), s, f, z)[2]
    assert_trees_all_close(gate(s, f, z), gate(2 * s, f - 1, z))
    assert gate(s, f, z)["transform"] != gate(s, f, 2 * z)["transform"]


@pytest.mark.parametrize(
    "merge",
    [Scaled(0.5, 2.0), Gated(-1.0), Dropped(), Dropped(per="sample")],
)
def test_a_stack_sows_the_gains_of_every_layer(merge):
    x = jnp.ones((2, 4, 4, 3))
    stack = Stack(Residual(jnp.sin, merge=merge), 5)

    def run(x):
        variables = stack.init(jax.random.key(0), x)
        rngs = {"drop": jax.random.key(1)}
        return stack.apply(variables, x, mutable=["gains"], rngs=rngs)[1]

    gains = jax.eval_shape(run, x)["gains"]["layers"]["merge"]
    assert jax.tree.map(jnp.shape, gains) == {"carry": (5,), "transform": (5,)}


@pytest.mark.parametrize("merge", [Scaled(0.5, 2.0), Dropped(), add])
def test_paths_of_unequal_shapes_are_refused_in_one_line(merge):
    x = jnp.ones((2, 4, 4, 3))
    block = Residual(lambda z: z[:1], merge=merge)
    with pytest.raises(ValueError, match="skip gives .*ZeroPad or Projection") as error:
        jax.eval_shape(block.init, jax.random.key(0), x)
    assert "\n" not in str(error.value)


def test_a_learned_gain_starts_at_the_given_value_and_learns():
    s, f, z = paths(VECTORS)
    merge = Scaled(1.0, 0.0, learned=True)

    @jax.jit
    def run(s, f, z):
        params = merge.init(jax.random.key(0), s, f, z)["params"]
        slopes = jax.grad(lambda p: merge.apply({"params": p}, s, f, z).sum())(params)
        return merge.apply({"params": params}, s, f, z), slopes["transform"]

    y, slope = run(s, f, z)
    assert jnp.array_equal(y, s)
    assert_trees_all_close(slope, f.sum(), rtol=1e-5)


def test_concat_keeps_the_skip_beside_the_body():
    s, f, z = paths(IMAGES)
    y = concat(s, f[..., :2], z)
    assert jnp.array_equal(y[..., :5], s) and jnp.array_equal(y[..., 5:], f[..., :2])
