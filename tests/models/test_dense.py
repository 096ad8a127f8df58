"""Layers of vectors against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models.dense import Classifier, Dense, Flatten

VECTORS = jnp.sin(jnp.arange(6.0)).reshape(2, 3)


def test_a_dense_layer_is_its_definition_and_starts_as_he_does():
    y, variables = Dense(500).init_with_output(jax.random.key(0), VECTORS)
    dense = variables["params"]["dense"]
    assert float(dense["kernel"].std()) == pytest.approx((2 / 3) ** 0.5, rel=0.1)
    assert not dense["bias"].any()
    shifted = {"params": {"dense": {**dense, "bias": jnp.full(500, 0.25)}}}
    expected = np.maximum(np.asarray(VECTORS) @ np.asarray(dense["kernel"]) + 0.25, 0)
    np.testing.assert_allclose(Dense(500).apply(shifted, VECTORS), expected, atol=1e-6)
    assert jnp.array_equal(y, jax.nn.relu(VECTORS @ dense["kernel"]))


def test_flatten_reads_an_image_row_by_row_and_leaves_a_vector_as_it_is():
    image = jnp.arange(24.0).reshape(2, 2, 3, 2)
    assert jnp.array_equal(Flatten().apply({}, image), jnp.arange(24.0).reshape(2, 12))
    assert jnp.array_equal(Flatten().apply({}, VECTORS), VECTORS)
    assert Flatten(jnp.bfloat16).apply({}, VECTORS).dtype == jnp.bfloat16


def test_a_classifier_computes_in_float32():
    x = VECTORS.astype(jnp.bfloat16)
    y, variables = Classifier(4).init_with_output(jax.random.key(0), x)
    kernel = variables["params"]["dense"]["kernel"]
    assert y.dtype == kernel.dtype == jnp.float32
    np.testing.assert_allclose(y, x.astype(jnp.float32) @ kernel, rtol=1e-5)
