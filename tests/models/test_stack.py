"""A Stack is the loop over its layers, however it runs."""

import functools
from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from chex import assert_trees_all_close

from resnet_jax.models.bodies import PostActivation, PreActivation, basic
from resnet_jax.models.conv import Conv
from resnet_jax.models.merges import Scaled, plain
from resnet_jax.models.residual import Remat, Residual, Stack

DEPTH = 3
POLICIES = get_args(Remat)
conv64 = functools.partial(Conv, dtype=jnp.float64)


class Noise(nn.Module):
    """A body that depends on its input only through a mask that it draws."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.normal(), (x.shape[-1],))
        mask = jax.random.bernoulli(self.make_rng("drop"), 0.5, x.shape)
        return jnp.where(mask, x * scale.reshape(1, -1), 0)


def image(channels=4, batch=2, size=6):
    return jax.random.normal(jax.random.key(9), (batch, size, size, channels))


def slice_layer(variables, layer):
    """Return the variables of one layer of a Stack."""
    return {
        name: jax.tree.map(lambda a: a[layer], tree["layers"]) for name, tree in variables.items()
    }


def by_hand(block, variables, x):
    """The unrolled loop: the Stack's layers applied one after the other."""
    stats = []
    for layer in range(DEPTH):
        x, changed = block.apply(slice_layer(variables, layer), x, mutable=["batch_stats"])
        stats.append(changed["batch_stats"])
    return x, {"batch_stats": {"layers": jax.tree.map(lambda *a: jnp.stack(a), *stats)}}


@pytest.mark.parametrize(
    "options", [{}, {"remat": "block"}, {"remat": "sqrt"}, {"unroll": 2}, {"unroll": 99}]
)
def test_a_stack_is_the_unrolled_loop(x64, options):
    block = Residual(PreActivation(basic(4), conv=conv64))
    stack = Stack(block, DEPTH, **options)
    x = image()
    variables = jax.jit(stack.init)(jax.random.key(0), x)

    def both(variables):
        y, stats = stack.apply(variables, x, mutable=["batch_stats"])
        z, by_loop = by_hand(block, variables, x)
        return (jnp.sin(y).sum(), stats), (jnp.sin(z).sum(), by_loop)

    ours = jax.value_and_grad(lambda v: both(v)[0], has_aux=True)
    loop = jax.value_and_grad(lambda v: both(v)[1], has_aux=True)
    ours, loop = jax.jit(lambda v: (ours(v), loop(v)))(variables)
    assert_trees_all_close(ours, loop, atol=1e-12)


@pytest.mark.parametrize("remat", POLICIES)
def test_unjitted_a_stack_equals_the_loop_bit_for_bit(remat):
    block = Residual(PreActivation(basic(4)))
    stack = Stack(block, DEPTH, remat=remat)
    x = image()
    variables = jax.jit(stack.init)(jax.random.key(0), x)
    with jax.disable_jit():
        y = stack.apply(variables, x)
        for layer in range(DEPTH):
            x = block.apply(slice_layer(variables, layer), x)
    assert jnp.array_equal(x, y)


def test_layers_are_drawn_independently_and_alike_at_any_depth():
    block = Residual(PostActivation(basic(4)))
    shallow, deep = (Stack(block, n).init(jax.random.key(0), image()) for n in (2, DEPTH))
    kernel = lambda v: v["params"]["layers"]["body"]["conv1"]["kernel"]
    assert jnp.array_equal(kernel(shallow), kernel(deep)[:2])
    assert not jnp.allclose(kernel(deep)[0], kernel(deep)[1])


def test_draws_depend_on_the_layer_and_not_on_how_the_stack_is_run():
    x = jnp.ones((4, 8))
    run = lambda **options: Stack(Residual(Noise()), DEPTH, **options)
    variables = run().init({"params": jax.random.key(0), "drop": jax.random.key(1)}, x)
    apply = lambda stack: stack.apply(variables, x, rngs={"drop": jax.random.key(2)})
    options = ({"unroll": DEPTH}, {"remat": "block"}, {"remat": "sqrt"})
    assert_trees_all_close(apply(run()), *(apply(run(**option)) for option in options))
    layer = lambda i: Residual(Noise()).apply(
        slice_layer(variables, 0), x, rngs={"drop": jax.random.fold_in(jax.random.key(2), i)}
    )
    assert not jnp.allclose(layer(0), layer(1))


def test_a_tied_stack_owns_one_layer():
    x = jnp.ones((2, 5))
    tied = Stack(Residual(nn.Dense(5)), DEPTH, tied=True)
    variables = tied.init(jax.random.key(0), x)
    assert variables["params"]["layers"]["body"]["kernel"].shape == (5, 5)
    expected = x
    for _ in range(DEPTH):
        expected = expected + expected @ variables["params"]["layers"]["body"]["kernel"]
    assert_trees_all_close(tied.apply(variables, x), expected, rtol=1e-5)


def test_what_a_merge_sows_comes_back_with_one_row_for_each_layer():
    stack = Stack(Residual(nn.Dense(5), merge=Scaled(0.5, 0.25, learned=True)), DEPTH)
    x = jnp.ones((2, 5))
    variables = stack.init(jax.random.key(0), x)
    _, sown = stack.apply(variables, x, mutable=["gains"])
    gains = sown["gains"]["layers"]["merge"]
    assert_trees_all_close(gains["carry"], jnp.full(DEPTH, 0.5))
    assert_trees_all_close(gains["transform"], jnp.full(DEPTH, 0.25))


def test_a_block_that_changes_the_shape_is_refused_by_a_stack():
    stack = Stack(Residual(nn.Dense(7), merge=plain), DEPTH)
    variables = Stack(Residual(nn.Dense(5)), DEPTH).init(jax.random.key(0), jnp.ones((2, 5)))
    wide = jax.tree.map(lambda a: jnp.ones((*a.shape[:-1], 7)), variables)
    with pytest.raises(ValueError, match="must keep the shape and type .*Chain"):
        stack.apply(wide, jnp.ones((2, 5)))


def test_a_block_that_changes_the_type_is_refused_when_the_network_is_initialised():
    half = Stack(Residual(lambda x: x.astype(jnp.bfloat16), merge=plain), DEPTH)
    with pytest.raises(ValueError, match=r"turns float32\[2, 5\] into bfloat16\[2, 5\]") as error:
        half.init(jax.random.key(0), jnp.ones((2, 5)))
    assert "\n" not in str(error.value)


class Cell(nn.Module):
    """A recurrent cell with the carry (c, h) and one input for each step: LSTM, eq. 1-6."""

    inputs = ("x",)

    @nn.compact
    def __call__(self, carry, x):
        c, h = carry
        gates = nn.Dense(4 * c.shape[-1])(jnp.concatenate((h, x), -1))
        i, f, o, g = jnp.split(gates, 4, -1)
        c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
        return c, nn.sigmoid(o) * jnp.tanh(c)


@pytest.mark.parametrize(
    "options", [{"tied": True}, {"remat": "block", "unroll": 99}, {"tied": True, "remat": "sqrt"}]
)
def test_a_carry_may_be_a_tree_and_every_step_may_have_an_output(options):
    """An LSTM over a sequence is a tied Stack whose outputs are the h of every step."""
    steps = 5
    sequence = jnp.sin(jnp.arange(steps * 2 * 3.0).reshape(steps, 2, 3))
    start = (jnp.zeros((2, 4)), jnp.ones((2, 4)))
    stack = Stack(Cell(), steps, outputs=lambda carry: {"h": carry[1]}, **options)
    init = jax.jit(lambda key: stack.init_with_output(key, start, x=sequence))
    result, variables = init(jax.random.key(0))
    assert jax.tree.map(jnp.shape, result) == (((2, 4), (2, 4)), {"h": (steps, 2, 4)})

    def loop(variables):
        carry, hidden = start, []
        for t in range(steps):
            own = variables["params"]["layers"]
            own = own if stack.tied else jax.tree.map(lambda a, t=t: a[t], own)
            carry = Cell().apply({"params": own}, carry, sequence[t])
            hidden.append(carry[1])
        return carry, {"h": jnp.stack(hidden)}

    def with_gradient(run):
        total = lambda v: sum(jnp.sin(a).sum() for a in jax.tree.leaves(run(v)))
        return run(variables), jax.grad(total)(variables)

    fold = lambda v: stack.apply(v, start, x=sequence)
    assert_trees_all_close(
        *jax.jit(lambda: [with_gradient(run) for run in (fold, loop)])(), atol=1e-5
    )


def test_a_carry_that_changes_its_tree_is_refused():
    class Grow(nn.Module):
        @nn.compact
        def __call__(self, carry):
            return {**carry, "new": carry["old"]}

    with pytest.raises(ValueError, match="must keep the shape and type of its input, but Grow"):
        Stack(Grow(), DEPTH).init(jax.random.key(0), {"old": jnp.ones(2)})
