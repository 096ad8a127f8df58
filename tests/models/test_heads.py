"""Heads and pooling against their definitions written out."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models.heads import DenseHead, Head, Pool, adaptive_average


def image(h, w, channels=2):
    return jax.random.normal(jax.random.key(h * w), (2, h, w, channels))


@pytest.mark.parametrize("h,w,size", [(7, 7, 7), (14, 7, 7), (8, 5, 3), (10, 3, 7), (1, 2, 7)])
def test_adaptive_average_is_its_definition(h, w, size):
    x = np.asarray(image(h, w), np.float64)
    window = lambda i, n: slice(math.floor(i * n / size), math.ceil((i + 1) * n / size))
    expected = np.stack(
        [
            np.stack([x[:, window(i, h), window(j, w)].mean((1, 2)) for j in range(size)], 1)
            for i in range(size)
        ],
        1,
    )
    y = adaptive_average(image(h, w), size)
    assert y.shape == (2, size, size, 2)
    np.testing.assert_allclose(y, expected, atol=1e-6)


@pytest.mark.parametrize("h,w", [(4, 4), (5, 7)])
@pytest.mark.parametrize(
    "kind,size,stride,padding",
    [("max", 2, 2, 0), ("max", 3, 2, 1), ("max", 3, 2, 0), ("max", 3, 1, 1)]
    + [("mean", 2, 2, 0), ("mean", 3, 2, 0)],
)
def test_pooling_is_its_definition(h, w, kind, size, stride, padding):
    x = np.asarray(image(h, w)) - 10.0  # padding with zeros would be the maximum
    wide = np.full((2, h + 2 * padding, w + 2 * padding, 2), -np.inf, np.float32)
    wide[:, padding : padding + h, padding : padding + w] = x
    reduce = np.max if kind == "max" else np.mean
    across = lambda n: range(0, n + 2 * padding - size + 1, stride)
    expected = np.stack(
        [
            np.stack([reduce(wide[:, i : i + size, j : j + size], (1, 2)) for j in across(w)], 1)
            for i in across(h)
        ],
        1,
    )
    y = Pool(size, stride, padding, kind).apply({}, jnp.asarray(x))
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("drop_first", [False, True])
def test_dropout_stands_after_each_hidden_layer_or_before_it(drop_first):
    """If everything is dropped, the logits depend on the last one or two biases alone."""
    head = DenseHead((6, 5), 3, dropout=1 - 1e-7, drop_first=drop_first)
    x = image(2, 2)
    params = head.init(jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda a: jax.random.normal(jax.random.key(a.size), a.shape), params)
    y = head.apply({"params": params}, x, rngs={"drop": jax.random.key(1)})
    hidden = nn.relu(params["dense2"]["bias"]) if drop_first else jnp.zeros(5)
    expected = hidden @ params["dense"]["kernel"] + params["dense"]["bias"]
    np.testing.assert_allclose(y, np.broadcast_to(expected, (2, 3)), atol=1e-5)
    assert not jnp.allclose(head.apply({"params": params}, x), y)


def test_a_dense_head_reads_the_image_row_by_row_channels_innermost():
    x = image(3, 2)
    head = DenseHead((), 4)
    params = head.init(jax.random.key(0), x)["params"]
    expected = np.asarray(x).reshape(2, -1) @ params["dense"]["kernel"]
    np.testing.assert_allclose(head.apply({"params": params}, x), expected, atol=1e-5)


@pytest.mark.parametrize("head", [Head(3), DenseHead((4,), 3, 2)])
def test_logits_and_parameters_are_float32_if_activations_are_bfloat16(head):
    x = image(4, 4).astype(jnp.bfloat16)
    y, variables = head.init_with_output(jax.random.key(0), x)
    assert {a.dtype for a in jax.tree.leaves((y, variables))} == {jnp.dtype("float32")}


def test_a_head_averages_the_image_and_may_start_at_zero():
    x = image(3, 5)
    y, variables = Head(4, zero=True).init_with_output(jax.random.key(0), x)
    assert not y.any()
    assert not any(a.any() for a in jax.tree.leaves(variables))
    params = Head(4).init(jax.random.key(0), x)["params"]
    expected = np.asarray(x).mean((1, 2)) @ params["dense"]["kernel"]
    np.testing.assert_allclose(Head(4).apply({"params": params}, x), expected, atol=1e-5)
