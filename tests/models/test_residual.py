"""The equation, and the folds."""

from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from chex import assert_trees_all_close

from resnet_jax.models import measure, residual
from resnet_jax.models.bodies import PostActivation, PreActivation, basic, bottleneck, single
from resnet_jax.models.merges import Scaled, add, plain
from resnet_jax.models.norm import BatchNorm
from resnet_jax.models.residual import Chain, Remat, Residual, Stack
from resnet_jax.models.skips import Projection, ZeroPad, identity

DEPTH = 3
POLICIES = get_args(Remat)


class Noise(nn.Module):
    """A body that draws: what it adds depends on its layer's randomness alone."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.normal(), (x.shape[-1],))
        mask = jax.random.bernoulli(self.make_rng("drop"), 0.5, x.shape)
        return jnp.where(mask, x * scale.reshape(1, -1), 0)


def image(channels=4, batch=2, size=6):
    return jax.random.normal(jax.random.key(9), (batch, size, size, channels))


def slice_layer(variables, layer):
    """One layer's variables of a Stack's."""
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


def conv64(*args, **kwargs):
    from resnet_jax.models.conv import Conv

    return Conv(*args, dtype=jnp.float64, **kwargs)


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


class Everything(nn.Module):
    """A block that draws, learns, sows, counts and takes a number of its layer's."""

    @nn.compact
    def __call__(self, x, weight):
        f = BatchNorm()(nn.Dense(3, param_dtype=x.dtype)(x)) + Noise()(x)
        self.sow("intermediates", "f", f)
        return Scaled(0.5, 0.25, learned=True)(x, weight * f, x)


# One segment, segments that leave a layer over, and equal ones that keep their blocks' inputs.
@pytest.mark.parametrize("depth,whole", [(1, 6), (7, 6), (9, 0)])
def test_segments_change_nothing_that_comes_out(monkeypatch, x64, depth, whole):
    monkeypatch.setattr(residual, "WHOLE", whole)
    x, weights = jnp.sin(jnp.arange(12.0).reshape(4, 3)), jnp.linspace(1, 2, depth)
    keys = {"params": jax.random.key(0), "drop": jax.random.key(1)}
    variables = jax.jit(Stack(Everything(), depth).init)(keys, x, weights)

    def everything(remat):
        stack = Stack(Everything(), depth, remat=remat)

        def loss(params, x, weights):
            y, changed = stack.apply(
                {**variables, "params": params},
                x,
                weights,
                mutable=["batch_stats", "gains", "intermediates"],
                rngs={"drop": jax.random.key(2)},
            )
            sown = sum(jnp.cos(a).sum() for a in jax.tree.leaves(changed))
            return jnp.sin(y).sum() + sown, (y, changed)

        return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(variables["params"], x, weights)

    plainly, by_segments = everything("none"), everything("sqrt")
    assert_trees_all_close(plainly, by_segments, atol=1e-12)
    assert all(a.shape[0] == depth for a in jax.tree.leaves(by_segments[1][1]))


def test_segments_of_a_tied_stack_add_their_gradients_up():
    x = jnp.ones((2, 5))
    tied = lambda **options: Stack(Residual(nn.Dense(5)), 7, tied=True, **options)
    variables = tied().init(jax.random.key(0), x)
    gradient = lambda stack: jax.grad(lambda v: jnp.sin(stack.apply(v, x)).sum())(variables)
    assert_trees_all_close(gradient(tied(remat="sqrt")), gradient(tied()), rtol=1e-4)


def wide_gradient(remat, depth, width, batch):
    """The gradient of a deep dense stack, its parameters, and its input."""
    stack = Stack(Residual(nn.Dense(width), after=jnp.tanh), depth, remat=remat)
    x = jax.ShapeDtypeStruct((batch, width), jnp.float32)
    variables = jax.eval_shape(stack.init, jax.random.key(0), x)
    return lambda v, x: stack.apply(v, x).sum(), variables, x


@pytest.mark.parametrize("depth,segments", [(16, 4), (64, 8), (70, 7), (67, 6)])
def test_a_policy_keeps_its_inputs_and_no_more(depth, segments):
    held = {remat: measure.held_bytes(*wide_gradient(remat, depth, 8, 100)) for remat in POLICIES}
    image = 100 * 8 * 4
    left = depth - segments * (depth // segments)
    assert held["block"] == depth * image
    # And the index of each; what is left over keeps what a segment does when it is at hand.
    rest = held["sqrt"] - segments * (image + 4)
    assert left * image <= rest < (left + 1) * image, held
    assert held["none"] >= 2 * held["block"]


def temporary_bytes(remat, depth, width, batch):
    loss, *inputs = wide_gradient(remat, depth, width, batch)
    used = jax.jit(jax.grad(loss)).lower(*inputs).compile().memory_analysis()
    assert used is not None
    return used.temp_size_in_bytes


def test_the_compiled_gradient_takes_less_with_every_policy():
    none, block, by_segments = (temporary_bytes(remat, 101, 4, 1000) for remat in POLICIES)
    image = 1000 * 4 * 4
    assert none > 1.5 * block
    # 10 segments, 10 blocks of one, and the block at hand.
    assert block > 101 * image > 30 * image > by_segments


def test_segments_copy_no_parameters():
    depth, width = 101, 64
    kernels = depth * width * width * 4
    assert temporary_bytes("sqrt", depth, width, 1) < kernels / 2


def test_a_tied_stack_owns_one_layer():
    x = jnp.ones((2, 5))
    tied = Stack(Residual(nn.Dense(5)), DEPTH, tied=True)
    variables = tied.init(jax.random.key(0), x)
    assert variables["params"]["layers"]["body"]["kernel"].shape == (5, 5)
    expected = x
    for _ in range(DEPTH):
        expected = expected + expected @ variables["params"]["layers"]["body"]["kernel"]
    assert_trees_all_close(tied.apply(variables, x), expected, rtol=1e-5)


def test_per_layer_inputs_reach_their_layer():
    weigh = lambda s, f, z, weight: s + weight * f
    stack = Stack(Residual(jnp.ones_like, merge=weigh), DEPTH)
    x, weights = jnp.zeros((2, 5)), jnp.array([1.0, 10.0, 100.0])
    variables = stack.init(jax.random.key(0), x, weights)
    assert jnp.array_equal(stack.apply(variables, x, weights), jnp.full((2, 5), 111.0))


def test_what_a_merge_sows_comes_back_a_row_a_layer():
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
    with pytest.raises(ValueError, match="must keep its input's shape .*Chain"):
        stack.apply(wide, jnp.ones((2, 5)))


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
            one = slice_layer(variables, layer)
            body = {name: tree["body"] for name, tree in one.items()}
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
