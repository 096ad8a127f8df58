"""Gradients of neighbouring inputs, and the rank of tokens."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.analysis import shattering, tokens
from resnet_jax.models.merges import plain
from resnet_jax.models.residual import Chain, Residual, Stack
from tests.analysis.networks import begin, kernels, stack


def test_a_linear_networks_gradients_are_all_the_same(x64):
    net = stack(2)
    variables, x = begin(net)
    grid = shattering.line(x[0], x[1], 7)
    np.testing.assert_allclose(grid[3], (x[0] + x[1]) / 2)
    gradients = shattering.input_gradients(net.apply, variables, grid)
    one, two = np.eye(3) + np.asarray(kernels(variables))
    np.testing.assert_allclose(gradients, [(one @ two).sum(1)] * 7)
    np.testing.assert_allclose(shattering.correlations(gradients), np.ones((7, 7)))


def test_autocorrelation_is_that_of_the_series():
    series = np.sin(np.arange(20.0))[:, None].astype(np.float32)
    ours = shattering.autocorrelation(jnp.asarray(series), 4)
    centred = (series - series.mean())[:, 0]
    expected = np.correlate(centred, centred, "full")[19:23] / (centred**2).sum()
    np.testing.assert_allclose(ours, expected, rtol=1e-4)
    assert shattering.correlations(jnp.zeros((2, 3))).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(ValueError, match="20 lags of 20 inputs"):
        shattering.autocorrelation(jnp.asarray(series), 20)


def test_expected_correlations_are_the_closed_forms():
    expected = shattering.expected_correlation
    assert expected("plain", 10) == 2.0**-10
    np.testing.assert_allclose(expected("residual", 10), 0.75**10)
    np.testing.assert_allclose(expected("normalised", 1000), 2 / np.sqrt(np.pi * 1000), rtol=1e-3)


@pytest.mark.parametrize("kind,depth", [("plain", 3), ("residual", 3), ("normalised", 6)])
def test_expected_correlations_are_those_of_layers_with_independent_relus(kind, depth):
    rng, width = np.random.default_rng(0), 512
    pair = np.ones((2, width)) * rng.choice([-1, 1], width)
    for l in range(1, depth + 1):
        w = rng.normal(0, np.sqrt(2 / width), (width, width))
        open_relus = rng.random((2, width)) < 0.5
        body = (pair @ w) * open_relus / (np.sqrt(l) if kind == "normalised" else 1)
        pair = body + (pair if kind != "plain" else 0)
    ours = pair[0] @ pair[1] / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1])
    assert abs(ours - shattering.expected_correlation(kind, depth)) < 0.1


class Mean(nn.Module):
    """Attention that weighs all tokens equally."""

    def __call__(self, x):
        return jnp.broadcast_to(x.mean(1, keepdims=True), x.shape)


@pytest.mark.parametrize("merge,left", [(plain, 0.0), (None, 1.0)])
def test_equal_attention_makes_all_tokens_equal_and_a_skip_keeps_them_apart(merge, left):
    block = Residual(Mean()) if merge is None else Residual(Mean(), merge=merge)
    net = Chain({"stack": Stack(block, 2)})
    # The mean token is 0, so that attention adds nothing.
    x = jnp.array([[[1.0, 2.0], [-1.0, -2.0]]])
    x = x if merge is None else x + 1
    np.testing.assert_allclose(tokens.rank_residuals(net.apply, {}, x), [left] * 2, atol=1e-6)


def test_residual_is_the_share_of_the_deviations_from_the_mean_token():
    x = jnp.array([[[3.0], [1.0]]])
    np.testing.assert_allclose(tokens.rank_residual(x), np.sqrt(2 / 10), rtol=1e-6)
    np.testing.assert_allclose(tokens.rank_residual(x, "1-inf"), np.sqrt(2 / 12), rtol=1e-6)


def test_what_is_no_token_is_refused():
    net = stack(2)
    variables, x = begin(net)
    with pytest.raises(ValueError, match="no tokens"):
        tokens.rank_residuals(net.apply, variables, x)


def test_statistics_of_the_batch_are_used_in_training():
    net = Chain({"norm": nn.BatchNorm(use_running_average=False)})
    x = jax.random.normal(jax.random.key(0), (4, 3))
    variables = net.init(jax.random.key(0), x)
    gradients = shattering.input_gradients(net.apply, variables, x, train=True)
    # The sum of a normalised batch is constant.
    np.testing.assert_allclose(gradients, np.zeros((4, 3)), atol=1e-5)
