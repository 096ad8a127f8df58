"""The block and its equation, chains of blocks, and skips."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from chex import assert_trees_all_close

from resnet_jax.models.bodies import PostActivation, PreActivation, basic, bottleneck, single
from resnet_jax.models.conv import Conv
from resnet_jax.models.merges import Scaled, add, plain
from resnet_jax.models.residual import Chain, Residual, Stack
from resnet_jax.models.skips import Projection, ZeroPad, identity

DEPTH = 3
conv64 = functools.partial(Conv, dtype=jnp.float64)


def image(channels=4, batch=2, size=6):
    return jax.random.normal(jax.random.key(9), (batch, size, size, channels))


def slice_layer(variables, layer):
    """One layer's variables of a Stack's."""
    return {
        name: jax.tree.map(lambda a: a[layer], tree["layers"]) for name, tree in variables.items()
    }


ZEROABLE = [
    order(shape, **options)
    for shape in (single(4), basic(4), bottleneck(1))
    for order, options in [
        (PreActivation, {}),
        *((PostActivation, {"end": end}) for end in ("conv", "norm", "relu")),
    ]
]


@pytest.mark.parametrize("body", ZEROABLE)
def test_a_zero_body_is_the_identity(body):
    block = Residual(body.copy(zero=True))
    x = image()
    variables = block.init(jax.random.key(0), x)
    assert jnp.array_equal(jax.jit(block.apply)(variables, x), x)
    trained = jax.jit(lambda v: block.apply(v, x, mutable=["batch_stats"])[0])(variables)
    assert jnp.array_equal(trained, x)
    other = Residual(body, merge=plain)
    assert not jnp.allclose(jax.jit(other.apply)(other.init(jax.random.key(0), x), x), x)


def test_a_zero_body_can_learn():
    for body in (PostActivation(basic(4), zero=True), PreActivation(basic(4), zero=True)):
        block = Residual(body)
        variables = block.init(jax.random.key(0), image())

        def loss(params, block=block, variables=variables):
            y, _ = block.apply({**variables, "params": params}, image(), mutable=["batch_stats"])
            return jnp.sin(y).sum()

        grads = jax.jit(jax.grad(loss))(variables["params"])
        assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads)) > 1e-3


def test_identity_blocks_add_up_their_bodies_and_pass_the_gradient_on(x64):
    """x_L = x_0 + sum F_l, dx_L/dx_0 = 1 + sum dF_l/dx_0: He et al. 2016, eq. 4-5."""
    block = Residual(PreActivation(basic(4), conv=conv64))
    x = image()
    variables = jax.jit(Stack(block, DEPTH).init)(jax.random.key(0), x)
    g = jax.random.normal(jax.random.key(5), x.shape)

    def bodies(x):
        total, outputs = jnp.zeros_like(x), x
        for layer in range(DEPTH):
            own = slice_layer(variables, layer)
            body = {name: tree["body"] for name, tree in own.items()}
            f = block.body.apply(body, outputs)
            total, outputs = total + f, outputs + f
        return total

    @jax.jit
    def both(x):
        y, pull = jax.vjp(lambda x: Stack(block, DEPTH).apply(variables, x), x)
        total, pull_bodies = jax.vjp(bodies, x)
        return (y, pull(g)[0]), (x + total, g + pull_bodies(g)[0])

    assert_trees_all_close(*both(x), atol=1e-12)


def test_gradients_equal_finite_differences(x64):
    net = Chain(
        {
            "first": Residual(PreActivation(basic(4, 2), conv=conv64), skip=ZeroPad(4, 2)),
            "rest": Stack(Residual(PreActivation(basic(4), conv=conv64)), 2, remat="block"),
        }
    )
    x = image(channels=2)
    variables = jax.jit(net.init)(jax.random.key(0), x)

    @jax.jit
    def loss(params):
        y, _ = net.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return jnp.sin(y).sum()

    grads = jax.jit(jax.grad(loss))(variables["params"])
    leaves, tree = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(3), len(leaves))
    along = tree.unflatten(
        [jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)]
    )
    step = 1e-6
    moved = lambda by: jax.tree.map(lambda p, d: p + by * d, variables["params"], along)
    numeric = (loss(moved(step)) - loss(moved(-step))) / (2 * step)
    analytic = sum(
        jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (grads, along)), strict=True)
    )
    assert abs(numeric - analytic) < 1e-6 * abs(analytic)


def test_scaled_paths_decay_as_the_product_of_their_gains():
    stack = Stack(Residual(jnp.zeros_like, merge=Scaled(0.5, 1.0)), 10)
    x = jnp.ones((1, 3))
    assert_trees_all_close(stack.apply(stack.init(jax.random.key(0), x), x), x * 0.5**10)


def test_scaled_with_unit_gains_is_add():
    s, f = image(), image() + 1
    assert jnp.array_equal(Scaled(1.0, 1.0).apply({}, s, f, s), add(s, f, s))


def test_a_chain_names_its_blocks():
    chain = Chain({"first": nn.Dense(3), "last": Chain({"inner": nn.Dense(2)})})
    params = chain.init(jax.random.key(0), jnp.ones((1, 4)))["params"]
    assert params["first"]["kernel"].shape == (4, 3)
    assert params["last"]["inner"]["kernel"].shape == (3, 2)


def test_one_merge_in_many_blocks_is_not_shared():
    merge = Scaled(1.0, 0.0, learned=True)
    block = Residual(nn.Dense(3), merge=merge)
    params = Chain({"a": block, "b": block}).init(jax.random.key(0), jnp.ones((1, 3)))["params"]
    assert set(params) == {"a", "b"} and "merge" in params["a"] and "merge" in params["b"]
    assert not jnp.allclose(params["a"]["body"]["kernel"], params["b"]["body"]["kernel"])


def test_option_a_pads_at_the_end_and_split_pads_both_sides():
    x = image(channels=2)
    end, split = ZeroPad(6, 2).apply({}, x), ZeroPad(6, 2, "split").apply({}, x)
    kept = x[:, ::2, ::2]
    assert jnp.array_equal(end[..., :2], kept) and not end[..., 2:].any()
    assert jnp.array_equal(split[..., 2:4], kept)
    assert not split[..., :2].any() and not split[..., 4:].any()
    with pytest.raises(ValueError, match="cannot narrow 2 channels to 1"):
        ZeroPad(1).apply({}, x)


def test_shapes_that_cannot_meet_are_refused():
    with pytest.raises(ValueError, match=r"skip gives \(2, 6, 6, 4\).*ZeroPad or Projection"):
        add(image(4), image(5), image(4))


def test_a_projection_is_a_convolution_of_one_pixel():
    x = image(channels=2)
    y, variables = Projection(5, 2).init_with_output(jax.random.key(0), x)
    kernel = variables["params"]["conv"]["kernel"][0, 0]
    assert_trees_all_close(y, jnp.einsum("bhwc,cd->bhwd", x[:, ::2, ::2], kernel), atol=1e-5)
    assert identity(x) is x
