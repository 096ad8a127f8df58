"""Stochastic depth and dropout: expectations, what a draw depends on, and the limits."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close

from resnet_jax.models.bodies import PostActivation, single
from resnet_jax.models.drop import FORMS, Dropout, Dropped, survivals
from resnet_jax.models.norm import GroupNorm
from resnet_jax.models.residual import Chain, Residual, Stack
from resnet_jax.models.resnet import resnet

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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p", [0.75])
def test_evaluation_is_the_mean_of_training_over_keys(form, p):
    block = Residual(lambda z: 2 + jnp.sin(z), merge=FORMS[form].copy(survival=p))
    x = image(2, 2)
    keys = jax.random.split(jax.random.key(0), MANY)
    outputs = jax.jit(jax.vmap(lambda key: applied(block, x, key)))(keys)
    scale = p if form in ("stochastic_depth_rescaled", "drop_path") else 1
    body = np.abs(2 + np.sin(x)) / scale
    error = 5 * np.sqrt(p * (1 - p) / MANY) * body
    assert np.all(np.abs(outputs.mean(0) - applied(block, x)) < error)


@pytest.mark.parametrize("form", FORMS)
def test_a_block_is_kept_or_left_out_whole(form):
    block = Residual(jnp.ones_like, merge=FORMS[form].copy(survival=0.5))
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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_survival_one_is_the_residual_block_in_training_and_evaluation(form, dtype):
    x = image().astype(dtype)
    block = Residual(jnp.sin, merge=FORMS[form].copy(survival=1.0))
    for key in (None, jax.random.key(1)):
        y = applied(block, x, key)
        assert y.dtype == x.dtype and jnp.array_equal(y, x + jnp.sin(x))


@pytest.mark.parametrize("form", ["drop_path"])
def test_survival_one_is_the_resnet_in_training_and_evaluation(form):
    make = functools.partial(resnet, (2,), block="preact_single", skip="A", num_classes=3, width=4)
    net, residual = make(merge=FORMS[form], survivals=(1.0,) * 2), make()
    x = image(4, 8)
    variables = jax.jit(residual.init)(jax.random.key(0), x)

    @jax.jit
    def both(key):
        train = lambda net: net.apply(variables, x, mutable=["batch_stats"], rngs={"drop": key})
        return [(net.apply(variables, x), train(net)) for net in (net, residual)]

    assert_trees_all_close(*both(jax.random.key(5)), atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_survival_of_nearly_zero_is_the_skip_path(form):
    x = image()
    block = Residual(jnp.sin, merge=FORMS[form].copy(survival=1e-9))
    assert jnp.array_equal(applied(block, x, jax.random.key(1)), x)
    if FORMS[form].rescale == "test":
        assert jnp.allclose(applied(block, x), x, atol=1e-8)


@pytest.mark.parametrize("form,p", [("drop_path", 0.9985), ("stochastic_depth", 0.503)])
def test_draws_do_not_depend_on_the_activations_type(form, p):
    """bfloat16 has no number between 0.996 and 1: a rounded survival would never drop."""
    merge = FORMS[form].copy(survival=p)
    draw = lambda dtype, key: applied(
        Residual(jnp.ones_like, merge=merge), jnp.zeros((50, 1), dtype), key
    )
    keys = jax.random.split(jax.random.key(0), 200)
    narrow, wide = (jax.vmap(lambda k, d=d: draw(d, k))(keys) > 0 for d in ("bfloat16", "float32"))
    assert not wide.all()
    assert jnp.array_equal(narrow, wide)


SAMPLED = {
    **{form: Residual(jnp.sin, merge=FORMS[form].copy(survival=0.5)) for form in FORMS},
    "dropout": Dropout(0.5),
    "dropout_skip": Residual(jnp.sin, skip=Dropout(0.5)),
}


@pytest.mark.parametrize(
    "name,fold",
    [(name, None) for name in ("stochastic_depth", "drop_path_unscaled", "dropout")]
    + [("drop_path", {}), ("drop_path", {"unroll": 9}), ("dropout_skip", {"unroll": 2})]
    + [(name, {"remat": "block"}) for name in ("stochastic_depth_rescaled", "drop_path")]
    + [("drop_path_unscaled", {"remat": "sqrt"})],
)
def test_what_an_example_draws_depends_on_its_row_and_not_on_where_it_is_computed(name, fold):
    """Two halves with their rows are the whole batch, bit for bit, and so is any order."""
    block = SAMPLED[name]
    net = block if fold is None else Chain({"stack": Stack(block, 3, **fold)})
    x, key = jnp.broadcast_to(image(1), (8, 4, 4, 3)), jax.random.key(2)
    whole = jax.jit(lambda x: applied(net, x, key))(x)
    some = jax.jit(lambda rows: applied(net, x[:4], key, rows))
    for rows in ([0, 1, 2, 3], [4, 5, 6, 7], [5, 0, 7, 7]):
        assert jnp.array_equal(some(jnp.array(rows)), whole[jnp.array(rows)])
    differ = not all(jnp.array_equal(row, whole[0]) for row in whole)
    assert differ is (name not in ("stochastic_depth", "stochastic_depth_rescaled"))


def test_a_network_that_shares_its_batch_out_draws_what_it_draws_for_the_whole():
    make = functools.partial(GroupNorm, groups=2)
    net = resnet(
        (3,),
        block="preact_basic",
        skip="A",
        num_classes=3,
        width=4,
        norm=make,
        merge=FORMS["drop_path"],
        survivals=survivals("linear", 0.3, 3),
        skip_dropout=0.2,
        remat="block",
    )
    x = image(6, 8)
    variables = jax.jit(net.init)(jax.random.key(0), x)
    run = jax.jit(lambda x, rows: applied(net, x, jax.random.key(7), rows, variables))
    whole = jax.jit(lambda x: applied(net, x, jax.random.key(7), None, variables))(x)
    halves = jnp.concatenate([run(x[:3], jnp.arange(3)), run(x[3:], jnp.arange(3, 6))])
    assert_trees_all_close(halves, whole, atol=1e-5)
    assert jnp.abs(run(x[:3], jnp.arange(6, 9)) - whole[:3]).max() > 1e-3


def test_every_layer_and_every_place_draws_its_own():
    x = jnp.ones((4, 50))
    drop = Dropout(0.5)
    net = Chain({"a": drop, "b": drop})
    twice = applied(net, x, jax.random.key(0))
    once = applied(Chain({"a": drop}), x, jax.random.key(0))
    kept = lambda y: float((y > 0).mean())
    assert 0.4 < kept(once) < 0.6 and 0.15 < kept(twice) < 0.35
    deep = applied(Stack(drop, 5), x, jax.random.key(0))
    assert kept(deep) < 0.1


def test_remat_and_unrolling_change_no_draw_of_the_gradient():
    block = Residual(
        PostActivation(single(3), norm=functools.partial(GroupNorm, groups=1)),
        skip=Dropout(0.3),
        merge=FORMS["drop_path"].copy(survival=0.5),
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


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_zeroes_its_rate_and_keeps_the_mean(rate):
    x = jnp.full((20, 500), 3.0)
    y = applied(Dropout(rate), x, jax.random.key(0))
    error = 5 * math.sqrt(rate * (1 - rate) / x.size)
    assert abs(float((y == 0).mean()) - rate) < error
    assert_trees_all_close(y[y != 0], jnp.full(int((y != 0).sum()), 3 / (1 - rate)), rtol=1e-6)
    assert abs(float(y.mean()) - 3) < 3 * error / (1 - rate)


def test_dropout_is_nothing_without_a_stream_or_a_rate():
    x = image()
    assert jnp.array_equal(applied(Dropout(0.5), x), x)
    assert jnp.array_equal(applied(Dropout(0.0), x, jax.random.key(0)), x)
    y = applied(Dropout(0.5), x.astype(jnp.bfloat16), jax.random.key(0))
    assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize("blocks", [1, 3, 54, 600])
@pytest.mark.parametrize("last", [0.5, 0.2, 1.0])
def test_survivals_fall_from_one_to_the_last(blocks, last):
    """Huang et al. 2016, eq. 4: p_0 = 1 is the input's; E = (3L - 1) / 4 where p_L is a half."""
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
    """First blocks of stages too: the gains of evaluation are the survivals, in order."""
    rule = survivals("linear", 0.4, 6)
    net = resnet(
        (3, 2, 1),
        block=block,
        skip="B",
        num_classes=3,
        width=4,
        merge=Dropped(),
        survivals=rule,
    )
    x = image(2, 8)
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), variables)
    _, sown = jax.jit(lambda x: net.apply(variables, x, mutable=["gains"]))(x)
    found = []
    for name in net.blocks:
        if name in sown["gains"]:
            gains = sown["gains"][name]
            gains = gains.get("layers", gains)
            found += np.ravel(gains["merge"]["transform"]).tolist()
    assert found == pytest.approx(rule)


def test_a_stream_is_needed_by_name():
    """Another module's stream is none of ours."""

    class Other(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Dropout(0.5)(x)

    x = image()
    assert jnp.array_equal(Other().apply({}, x, rngs={"dropout": jax.random.key(0)}), x)
