"""Every instrument runs on the smallest network of every family, or refuses it in words."""

import jax
import jax.numpy as jnp
import pytest

from resnet_jax import families
from resnet_jax.analysis import gains, landscape, lesions, norms, observe, paths, signal
from resnet_jax.models.residual import stacked_axes
from tests.analysis.networks import square
from tests.smallest import shapes, smallest

NO_RUN = ("lenet", "densenet")
NO_BLOCK = "lstm"  # whose steps have a carry of two arrays


def test_a_network_without_blocks_is_refused_in_words():
    config = smallest(NO_BLOCK)
    net, variables, _ = shapes(config)
    with pytest.raises(ValueError, match="no module of the network is a .*Residual") as error:
        observe.blocks_of(net.apply, variables, jnp.zeros((2, *config.data.shape)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", [name for name in families.FAMILIES if name != NO_BLOCK])
def test_instruments_run_on_every_family(family):
    config = smallest(family)
    net, variables, _ = shapes(config)
    x = jax.ShapeDtypeStruct((2, *config.data.shape), jnp.float32)
    n = len(observe.blocks_of(net.apply, variables, x))

    def of_blocks(v, x):
        on = jnp.ones((2, n))
        return (
            norms.forward_norms(net.apply, v, x, train=True),
            norms.responses(net.apply, v, x),
            norms.gradient_norms(net.apply, v, x, square, train=True),
            signal.skip_shares(net.apply, v, x, square),
            *gains.gains(net.apply, v, x),
        ), (
            lesions.lesions(net.apply, v, x, square, on),
            paths.path_gradients(net.apply, v, x, square, on > 0),
        )

    vectors, numbers = jax.eval_shape(of_blocks, variables, x)
    assert [a.shape for a in vectors] == [(n,)] * 6
    assert [a.shape for a in numbers] == [(2,)] * 2

    def of_runs(v, x):
        return (
            signal.sum_errors(net.apply, v, x),
            signal.gradient_errors(net.apply, v, x, square),
        )

    if family in NO_RUN:
        with pytest.raises(ValueError, match="identity skip"):
            jax.eval_shape(of_runs, variables, x)
    else:
        runs = jax.eval_shape(of_runs, variables, x)
        assert len({tuple(a.shape for a in run) for run in runs}) == 1

    def others(v, x):
        key, axes = jax.random.key(0), stacked_axes(net, v["params"])
        return (
            landscape.random_direction(key, v["params"], axes),
            norms.parameter_gradient_norms(net.apply, v, x, square),
        )

    direction, layers = jax.eval_shape(others, variables, x)
    assert jax.tree.structure(direction) == jax.tree.structure(variables["params"])
    assert layers.shape == (len(norms.layer_names(net.apply, variables, x)),)
