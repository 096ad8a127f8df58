"""Stochastic depth: expectations, limits, and the survivals of a network's blocks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close

from resnet_jax.models.bodies import PostActivation, single
from resnet_jax.models.dropout import Dropout
from resnet_jax.models.norm import GroupNorm
from resnet_jax.models.residual import Residual, Stack
from resnet_jax.models.resnet import resnet
from resnet_jax.models.stochastic_depth import DROPS, Dropped, survivals

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


@pytest.mark.parametrize("form", ["drop_path"])
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
