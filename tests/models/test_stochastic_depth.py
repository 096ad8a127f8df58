"""Stochastic depth: expectations, limits, bodies that are skipped, and the survivals of blocks."""

import functools
from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close, assert_trees_all_equal

from resnet_jax.models.batch_norm import BatchNorm
from resnet_jax.models.bodies import PostActivation, single
from resnet_jax.models.dropout import Dropout
from resnet_jax.models.merges import Scaled
from resnet_jax.models.norm import GroupNorm
from resnet_jax.models.residual import Chain, Remat, Residual, Stack
from resnet_jax.models.resnet import resnet
from resnet_jax.models.stochastic_depth import DROPS, Dropped, survivals

SKIPPED = ("stochastic_depth", "stochastic_depth_rescaled")
PER_SAMPLE = ("drop_path", "drop_path_unscaled")
MANY = 4000


def image(batch=4, size=4, channels=3):
    return jax.random.normal(jax.random.key(9), (batch, size, size, channels))


def applied(net, x, key=None, rows=None, variables=None, **options):
    variables = dict(variables or {})
    if rows is not None:
        variables["batch"] = {"row": jnp.asarray(rows, jnp.int32)}
    rngs = {} if key is None else {"drop": key}
    return net.apply(variables, x, rngs=rngs, **options)


@pytest.mark.parametrize("form", DROPS)
@pytest.mark.parametrize("p", [0.75])
def test_evaluation_is_the_mean_of_training_over_keys(form, p):
    block = Residual(lambda z: 2 + jnp.sin(z), merge=DROPS[form](survival=p))
    x = image(2, 2)
    keys = jax.random.split(jax.random.key(0), MANY)
    outputs = jax.jit(jax.vmap(lambda key: applied(block, x, key)))(keys)
    scale = p if form in ("stochastic_depth_rescaled", "drop_path") else 1
    body = np.abs(2 + np.sin(x)) / scale
    error = 5 * np.sqrt(p * (1 - p) / MANY) * body
    assert np.all(np.abs(outputs.mean(0) - applied(block, x)) < error)


@pytest.mark.parametrize("form", DROPS)
def test_a_block_is_kept_or_left_out_whole(form):
    block = Residual(jnp.ones_like, merge=DROPS[form](survival=0.5))
    x = jnp.zeros((64, 3, 3, 2))
    y = np.asarray(applied(block, x, jax.random.key(3)))
    gains = y.reshape(64, -1)
    assert (gains == gains[:, :1]).all()
    kept = 2.0 if form in ("stochastic_depth_rescaled", "drop_path") else 1.0
    assert set(np.unique(gains)) <= {0.0, kept}
    if form in PER_SAMPLE:
        assert 16 < (gains[:, 0] > 0).sum() < 48
    else:
        assert (gains == gains[0, 0]).all()
        others = [applied(block, x, jax.random.key(k))[0, 0, 0, 0] for k in range(20)]
        assert len({float(a) for a in others}) == 2


@pytest.mark.parametrize("form", DROPS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_survival_one_is_the_residual_block_in_training_and_evaluation(form, dtype):
    x = image().astype(dtype)
    block = Residual(jnp.sin, merge=DROPS[form](survival=1.0))
    for key in (None, jax.random.key(1)):
        y = applied(block, x, key)
        assert y.dtype == x.dtype and jnp.array_equal(y, x + jnp.sin(x))


@pytest.mark.parametrize("form", ["drop_path", "stochastic_depth"])
def test_survival_one_is_the_resnet_in_training_and_evaluation(form):
    make = functools.partial(resnet, (2,), block="preact_single", skip="A", num_outputs=3, width=4)
    net, residual = make(merge=DROPS[form](), per_layer={"survival": (1.0,) * 2}), make()
    x = image(4, 8)
    variables = jax.jit(residual.init)(jax.random.key(0), x)

    @jax.jit
    def both(key):
        train = lambda net: net.apply(variables, x, mutable=["batch_stats"], rngs={"drop": key})
        return [(net.apply(variables, x), train(net)) for net in (net, residual)]

    assert_trees_all_close(*both(jax.random.key(5)), atol=1e-6)


@pytest.mark.parametrize("form", DROPS)
def test_survival_of_nearly_zero_is_the_skip_path(form):
    x = image()
    block = Residual(jnp.sin, merge=DROPS[form](survival=1e-9))
    assert jnp.array_equal(applied(block, x, jax.random.key(1)), x)
    if DROPS[form]().rescale == "test":
        assert jnp.allclose(applied(block, x), x, atol=1e-8)


@pytest.mark.parametrize("form,p", [("drop_path", 0.9985), ("stochastic_depth", 0.503)])
def test_draws_do_not_depend_on_the_activations_type(form, p):
    """bfloat16 has no number between 0.996 and 1: a rounded survival would never drop."""
    merge = DROPS[form](survival=p)
    draw = lambda dtype, key: applied(
        Residual(jnp.ones_like, merge=merge), jnp.zeros((50, 1), dtype), key
    )
    keys = jax.random.split(jax.random.key(0), 200)
    narrow, wide = (jax.vmap(lambda k, d=d: draw(d, k))(keys) > 0 for d in ("bfloat16", "float32"))
    assert not wide.all()
    assert jnp.array_equal(narrow, wide)


def test_remat_and_unrolling_change_no_draw_of_the_gradient():
    block = Residual(
        PostActivation(single(3), norm=functools.partial(GroupNorm, groups=1)),
        skip=Dropout(0.3),
        merge=DROPS["drop_path"](survival=0.5),
    )
    x = image()
    variables = jax.jit(Stack(block, 3).init)(jax.random.key(0), x)

    def gradient(options):
        stack = Stack(block, 3, **options)
        loss = lambda x: jnp.sin(applied(stack, x, jax.random.key(1), None, variables)).sum()
        return jax.jit(jax.grad(loss))(x)

    plainly = gradient({})
    for options in ({"remat": "block", "unroll": 3}, {"remat": "sqrt"}):
        assert_trees_all_close(gradient(options), plainly, atol=1e-5)


def chain(depth, **options):
    """(a network of one Stack of bodies with batch norm, its variables and an input)."""
    block = Residual(PostActivation(single(3), norm=BatchNorm), **options.pop("block", {}))
    net, x = Chain({"stack": Stack(block, depth, **options)}), image()
    return net, jax.jit(net.init)(jax.random.key(0), x), x


def trained(net, variables, x, mutable=("batch_stats",)):
    """(gradients, (output, the collections that changed)) of a training step."""

    def loss(params):
        given = {**variables, "params": params}
        y, changed = applied(net, x, jax.random.key(1), None, given, mutable=mutable)
        return jnp.sin(y).sum(), (y, changed)

    return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])


@pytest.mark.parametrize(
    "form,remat",
    [("stochastic_depth", remat) for remat in get_args(Remat)]
    + [("stochastic_depth_rescaled", "none")],
)
def test_a_network_trains_as_if_its_dropped_bodies_were_not_there(form, remat):
    """Outputs, gradients and statistics, which do not move in a dropped body."""
    p = 0.5
    net, variables, x = chain(8, block={"merge": DROPS[form](survival=p)}, remat=remat)
    grads, (y, changed) = trained(net, variables, x, ("batch_stats", "gains"))
    gains = changed["gains"]["stack"]["layers"]["merge"]["transform"]
    kept, gain = np.flatnonzero(gains), gains.max()
    assert 1 < len(kept) < 7 and gain == (1 / p if form == "stochastic_depth_rescaled" else 1)
    rest, _, _ = chain(len(kept), block={"merge": Scaled(1.0, float(gain))})
    few = jax.tree.map(lambda a: a[kept], variables)
    expected_grads, (expected_y, expected_changed) = trained(rest, few, x)
    assert_trees_all_close(y, expected_y, atol=1e-5)
    of_kept = jax.tree.map(lambda a: a[kept], (grads, changed["batch_stats"]))
    assert_trees_all_close(of_kept, (expected_grads, expected_changed["batch_stats"]), atol=1e-5)
    dropped = lambda tree: jax.tree.map(lambda a: np.delete(a, kept, 0), tree)
    assert not any(a.any() for a in jax.tree.leaves(dropped(grads)))
    assert_trees_all_equal(dropped(changed["batch_stats"]), dropped(variables["batch_stats"]))


class Computed(Residual):
    """A block that computes every body and multiplies by the draw."""

    @nn.compact
    def __call__(self, x, /, **inputs):
        """x_l -> x_l+1."""
        return self.merge(self.skip(x), self.body(x), x, **inputs)


@pytest.mark.parametrize("form,stacked", [(SKIPPED[0], True), (SKIPPED[1], False)])
def test_without_batch_norm_a_skipped_body_is_one_multiplied_by_zero(form, stacked):
    """The draws are the same: of the block and of each example in the body's dropout."""
    norm = functools.partial(GroupNorm, groups=1)
    body, x = Chain({"body": PostActivation(single(3), norm=norm), "drop": Dropout(0.3)}), image()
    rows = {"row": jnp.arange(4, dtype=jnp.int32) + 7}

    def outcome(kind):
        block = kind(body, merge=DROPS[form](survival=0.6))
        net = Chain({"stack": Stack(block, 4)} if stacked else {"1": block, "2": block})
        variables = jax.jit(net.init)(jax.random.key(0), x)
        return trained(net, {**variables, "batch": rows}, x, ("gains",))

    (grads, (y, changed)), expected = outcome(Residual), outcome(Computed)
    draws = np.ravel(jax.tree.leaves(changed["gains"]))
    assert_trees_all_close((grads, (y, changed)), expected, atol=1e-5)
    assert len(set(draws)) == 2


def test_replicas_under_vmap_draw_their_own_and_are_right():
    """Under vmap both branches are computed and selected."""
    net, variables, x = chain(4, block={"merge": DROPS["stochastic_depth"](survival=0.5)})
    step = lambda key: applied(net, x, key, None, variables, mutable=["batch_stats", "gains"])
    keys = jax.random.split(jax.random.key(2), 4)
    together, alone = jax.jit(jax.vmap(step))(keys), jax.jit(lambda: jax.lax.map(step, keys))()
    assert_trees_all_close(together, alone, atol=1e-5)
    gains = together[1]["gains"]["stack"]["layers"]["merge"]["transform"]
    assert len({tuple(own) for own in gains.tolist()}) > 1


@pytest.mark.parametrize("remat", get_args(Remat))
def test_every_convolution_of_a_body_is_in_a_branch(remat):
    def convolutions(jaxpr, branch=False):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "conv_general_dilated":
                yield branch
            inner = branch or eqn.primitive.name == "cond"
            for value in jax.tree.leaves(list(eqn.params.values())):
                if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                    yield from convolutions(getattr(value, "jaxpr", value), inner)

    def found(**block):
        net, variables, x = chain(3, block=block, remat=remat)
        return list(convolutions(jax.make_jaxpr(lambda v: trained(net, v, x))(variables).jaxpr))

    skipped, plain = found(merge=DROPS["stochastic_depth"](survival=0.5)), found()
    assert skipped == [True] * len(plain) and plain == [False] * len(plain)
    assert len(plain) >= 3  # forward, and the gradients of the input and of the kernel
    assert found(merge=DROPS["drop_path"](survival=0.5)) == plain


@pytest.mark.parametrize("survival", [1e-9, 1.0])
def test_zeros_are_captured_of_a_dropped_body(survival):
    net, variables, x = chain(2, block={"merge": DROPS["stochastic_depth"](survival=survival)})
    capture = {"capture_intermediates": True, "mutable": ["batch_stats", "intermediates"]}
    y, changed = applied(net, x, jax.random.key(1), None, variables, **capture)
    captured = changed["intermediates"]["stack"]["layers"]["body"]
    _, expected = applied(chain(2)[0], x, None, None, variables, **capture)
    expected = expected["intermediates"]["stack"]["layers"]["body"]
    expected = jax.tree.map(lambda a: a if survival == 1 else jnp.zeros_like(a), expected)
    assert_trees_all_close(captured, expected, atol=1e-5)


@pytest.mark.parametrize("blocks", [1, 3, 54, 600])
@pytest.mark.parametrize("last", [0.5, 0.2, 1.0])
def test_survivals_fall_from_one_to_the_last(blocks, last):
    """Huang et al. 2016, eq. 4; the expected depth is (3L - 1) / 4 if p_L is a half."""
    linear, uniform = (survivals(rule, last, blocks) for rule in ("linear", "uniform"))
    assert len(linear) == len(uniform) == blocks
    assert set(uniform) == {last}
    assert linear[0] == pytest.approx(1 - (1 - last) / blocks)
    assert linear[-1] == pytest.approx(last)
    assert np.allclose(np.diff(linear), -(1 - last) / blocks)
    if last == 0.5:
        assert sum(linear) == pytest.approx((3 * blocks - 1) / 4)


@pytest.mark.parametrize("block", ["single", "preact_bottleneck"])
def test_every_block_of_a_network_has_its_own_survival(block):
    """In evaluation the gains of all blocks, first blocks included, are the survivals in order."""
    rule = survivals("linear", 0.4, 6)
    net = resnet(
        (3, 2, 1),
        block=block,
        skip="B",
        num_outputs=3,
        width=4,
        merge=Dropped(),
        per_layer={"survival": rule},
    )
    x = image(2, 8)
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), variables)
    _, sown = jax.jit(lambda x: net.apply(variables, x, mutable=["gains"]))(x)
    gains_of_blocks = []
    for name in net.blocks:
        if name in sown["gains"]:
            gains = sown["gains"][name]
            gains = gains.get("layers", gains)
            gains_of_blocks += np.ravel(gains["merge"]["transform"]).tolist()
    assert gains_of_blocks == pytest.approx(rule)
