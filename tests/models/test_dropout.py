"""Dropout, and what the draws of an example depend on."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from chex import assert_trees_all_close

from resnet_jax.models.dropout import Dropout
from resnet_jax.models.norm import GroupNorm
from resnet_jax.models.residual import Chain, Residual, Stack
from resnet_jax.models.resnet import resnet
from resnet_jax.models.stochastic_depth import DROPS, survivals


def image(batch=4, size=4, channels=3):
    return jax.random.normal(jax.random.key(9), (batch, size, size, channels))


def applied(net, x, key=None, rows=None, variables=None, **options):
    variables = dict(variables or {})
    if rows is not None:
        variables["batch"] = {"row": jnp.asarray(rows, jnp.int32)}
    rngs = {} if key is None else {"drop": key}
    return net.apply(variables, x, rngs=rngs, **options)


SAMPLED = {
    **{form: Residual(jnp.sin, merge=DROPS[form](survival=0.5)) for form in DROPS},
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
    """Parts of the batch with their rows equal the whole batch, bit for bit, in any order."""
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
        num_outputs=3,
        width=4,
        norm=make,
        merge=DROPS["drop_path"](),
        per_layer={"survival": survivals("linear", 0.3, 3)},
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


def test_a_stream_is_needed_by_name():
    """Dropout ignores a stream of another name."""

    class Other(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Dropout(0.5)(x)

    x = image()
    assert jnp.array_equal(Other().apply({}, x, rngs={"dropout": jax.random.key(0)}), x)
