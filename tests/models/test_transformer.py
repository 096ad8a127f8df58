"""A Transformer's layer against its definition, and the encoder as a fold."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close

from resnet_jax.models.merges import plain
from resnet_jax.models.norm import NoNorm
from resnet_jax.models.residual import Stack
from resnet_jax.models.stochastic_depth import DROPS, survivals
from resnet_jax.models.transformer import Attention, Mlp, layer

TOKENS, WIDTH, DEPTH = 5, 6, 2


def tokens(batch=2, places=TOKENS, dtype=jnp.float64):
    return jnp.asarray(np.random.default_rng(3).normal(size=(batch, places, WIDTH)), dtype)


def drawn(net, x):
    """Return parameters for the network that are all drawn at random."""
    rng = np.random.default_rng(1)
    draw = lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype)
    return jax.tree.map(draw, jax.eval_shape(net.init, jax.random.key(0), x))


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_attention_is_its_definition_written_out(x64, heads):
    x, d = tokens(), WIDTH // heads
    variables = drawn(Attention(heads), x)
    y = jax.jit(Attention(heads).apply)(variables, x)
    p = jax.tree.map(np.asarray, variables["params"])
    for image, ours in zip(np.asarray(x), y, strict=True):
        q, k, v = np.split(image @ p["qkv"]["kernel"] + p["qkv"]["bias"], 3, axis=1)
        outputs = []
        for head in range(heads):
            part = slice(head * d, (head + 1) * d)
            e = np.exp(q[:, part] @ k[:, part].T / math.sqrt(d))
            outputs.append(e / e.sum(1, keepdims=True) @ v[:, part])
        expected = np.concatenate(outputs, 1) @ p["out"]["kernel"] + p["out"]["bias"]
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-10)


def test_an_mlp_is_its_definition_with_the_exact_gelu_and_sees_each_token_by_itself(x64):
    x = tokens()
    variables = drawn(Mlp(), x)
    apply = jax.jit(Mlp().apply)
    p = jax.tree.map(np.asarray, variables["params"])
    hidden = np.asarray(x) @ p["dense1"]["kernel"] + p["dense1"]["bias"]
    assert hidden.shape[-1] == 4 * WIDTH
    hidden *= (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
    expected = hidden @ p["dense2"]["kernel"] + p["dense2"]["bias"]
    np.testing.assert_allclose(apply(variables, x), expected, rtol=1e-10, atol=1e-10)
    moved = apply(variables, x.at[:, 2].add(1.0)) != apply(variables, x)
    assert moved.any((0, 2)).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("options", [{}, {"merge": plain, "norm": NoNorm}])
def test_permuted_tokens_give_permuted_outputs(x64, options):
    """An encoder knows the place of a token only from what was added to it."""
    encoder = Stack(layer(2, **options), DEPTH)
    x, order = tokens(), jnp.array([3, 0, 4, 1, 2])
    variables = drawn(encoder, x)
    y, moved = jax.jit(
        lambda x: (encoder.apply(variables, x), encoder.apply(variables, x[:, order]))
    )(x)
    assert_trees_all_close(moved, y[:, order], rtol=1e-10)
    assert jnp.abs(moved - y).max() > 1e-3


def test_an_encoder_is_the_unrolled_loop_of_its_layers_with_their_survivals(x64):
    block, x = layer(2, merge=DROPS["drop_path_unscaled"]()), tokens()
    rule = survivals("linear", 0.4, DEPTH)
    variables = drawn(Stack(block, DEPTH, per_layer={"survival": rule}), x)

    def by_hand(variables):
        y = x
        for i, p in enumerate(rule):
            own = jax.tree.map(lambda a, i=i: a[i], variables["params"]["layers"])
            y = block.apply({"params": own}, y, survival=jnp.float32(p))
        return jnp.sin(y).sum()

    expected = jax.jit(jax.value_and_grad(by_hand))(variables)
    for options in ({}, {"remat": "block", "unroll": 9}):
        encoder = Stack(block, DEPTH, per_layer={"survival": rule}, **options)
        folded = lambda v, encoder=encoder: jnp.sin(encoder.apply(v, x)).sum()
        result = jax.jit(jax.value_and_grad(folded))(variables)
        assert_trees_all_close(result, expected, rtol=1e-9, atol=1e-9)


def test_both_blocks_of_a_layer_have_its_survival_and_draw_apart():
    rule = (0.9, 0.5)
    encoder = Stack(
        layer(2, merge=DROPS["drop_path_unscaled"]()), DEPTH, per_layer={"survival": rule}
    )
    x = tokens(200, 2, jnp.float32)
    variables = drawn(encoder, x[:1])

    @jax.jit
    def gains(rngs):
        sown = encoder.apply(variables, x, mutable=["gains"], rngs=rngs)[1]["gains"]["layers"]
        return [sown[block]["merge"]["transform"] for block in ("attention", "mlp")]

    for survival in gains({}):
        np.testing.assert_allclose(survival, rule, rtol=1e-6)
    attention, mlp = gains({"drop": jax.random.key(1)})
    np.testing.assert_allclose(attention, rule, atol=0.15)
    np.testing.assert_allclose(mlp, rule, atol=0.15)
    assert (attention != mlp).any()


def test_dropout_of_nearly_everything_leaves_the_skip_path_alone():
    """Dropout follows the last dense layer of both bodies, with its bias."""
    net, x = layer(2, dropout=1 - 1e-7), tokens(dtype=jnp.float32)
    variables = drawn(net, x)
    dropped = lambda v: net.apply(v, x, rngs={"drop": jax.random.key(0)})
    assert jnp.array_equal(jax.jit(dropped)(variables), x)
    assert not jnp.allclose(jax.jit(net.apply)(variables, x), x)


@pytest.mark.parametrize("dtype,wide", [("bfloat16", "float32"), ("float64", "float64")])
def test_a_layer_keeps_its_inputs_type_and_wide_parameters_with_their_gradients(x64, dtype, wide):
    net, x = layer(2), tokens(dtype=jnp.dtype(dtype))
    variables = drawn(net, x)
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype(wide)}
    loss = lambda v: jnp.square(net.apply(v, x).astype(wide)).sum()
    grads = jax.jit(jax.grad(loss))(variables)
    assert all(a.dtype == wide and jnp.isfinite(a).all() for a in jax.tree.leaves(grads))
    assert jax.eval_shape(net.apply, variables, x).dtype == dtype


def test_attention_to_scores_beyond_exps_range_is_finite():
    x = 1e3 * tokens(dtype=jnp.float32)
    variables = drawn(Attention(2), x)
    for dtype in ("float32", "bfloat16"):
        y = jax.jit(Attention(2).apply)(variables, x.astype(dtype))
        assert jnp.isfinite(y.astype(jnp.float32)).all()
