"""Equations 4 and 5 of He et al. 2016 hold in pre-activation networks, and nowhere else."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.analysis import signal
from resnet_jax.analysis.gains import carried, gains
from resnet_jax.models.conv import Conv
from resnet_jax.models.merges import Gated, Scaled, concat, plain
from resnet_jax.models.residual import Chain, Residual
from resnet_jax.models.resnet import resnet
from tests.analysis.networks import Linear, begin, scalars, stack, total
from tests.smallest import drawn


@pytest.mark.parametrize("block,train", [("preact_basic", True), ("basic", False)])
def test_both_sums_are_exact_in_a_preactivation_network_and_not_in_the_first_form(
    x64, block, train
):
    conv = functools.partial(Conv, dtype=jnp.float64)
    net = resnet((3, 2), block=block, skip="B", num_outputs=2, width=2, conv=conv)
    x = jax.random.normal(jax.random.key(0), (3, 4, 4, 1), float)
    variables = jax.tree.map(lambda a: a.astype(float), drawn(net, x))

    @jax.jit
    def errors(v):
        return (
            signal.sum_errors(net.apply, v, x, train=train),
            signal.gradient_errors(net.apply, v, x, lambda y: jnp.sin(y).sum(), train=train),
        )

    for of_equation in errors(variables):
        assert [len(run) for run in of_equation] == ([2, 1] if train else [3, 1])
        for run in of_equation:
            assert run.max() < 1e-10 if block == "preact_basic" else run.min() > 1e-3


def test_a_relu_between_blocks_that_cuts_nothing_breaks_nothing(x64):
    net = stack(3, after=nn.relu)
    variables, x = scalars(0.5, 1.0, 2.0)
    assert signal.sum_errors(net.apply, variables, x)[0].max() < 1e-12
    variables, x = scalars(0.5, -3.0, 2.0)
    (errors,) = signal.sum_errors(net.apply, variables, -x)
    assert not (errors < 1e-3).any()


def test_the_share_of_the_input_is_the_reciprocal_of_the_growth(x64):
    variables, x = scalars(0.5, 1.0, 3.0)
    growth = np.array([1.5 * 2 * 4, 2 * 4, 4])
    net = stack(3)
    np.testing.assert_allclose(signal.dilution(net.apply, variables, x)[0], 1 / growth)
    # One gradient passes along the skips, and `growth` along all paths.
    shares = signal.skip_shares(net.apply, variables, x, total)
    np.testing.assert_allclose(shares, 1 / growth)
    half = stack(3, Scaled(0.5, 1.0))
    growth = np.array([1 * 1.5 * 3.5, 1.5 * 3.5, 3.5])
    shares = signal.dilution(half.apply, variables, x)[0]
    np.testing.assert_allclose(shares, 0.5 ** np.arange(3, 0, -1) / growth)


def test_a_plain_network_has_no_identity_term(x64):
    net = stack(3, plain)
    variables, x = scalars(0.5, 1.0, 3.0)
    assert not signal.dilution(net.apply, variables, x)[0].any()
    assert not signal.skip_shares(net.apply, variables, x, total).any()
    assert signal.sum_errors(net.apply, variables, x)[0].min() > 0.1


def test_a_network_without_a_run_of_blocks_is_refused():
    net = Chain({"dense": Residual(Linear(), merge=concat)})
    variables, x = begin(net)
    for measure in (signal.sum_errors, signal.dilution):
        with pytest.raises(ValueError, match="identity skip"):
            measure(net.apply, variables, x)


@pytest.mark.parametrize(
    "merge,carry,transform",
    [
        (concat, 1, 1),
        (plain, 0, 1),
        (Scaled(0.5, 2.0), 0.5, 2),
        (Gated(-1.0), 1 - 1 / (1 + np.e), 1 / (1 + np.e)),
    ],
)
def test_gains_are_those_of_the_merge(merge, carry, transform):
    net = Chain({name: Residual(Linear(), merge=merge) for name in ("a", "b")})
    variables, x = begin(net)
    ours = gains(net.apply, variables, x * 0)
    np.testing.assert_allclose(ours.carry, [carry] * 2, rtol=1e-6)
    np.testing.assert_allclose(ours.transform, [transform] * 2, rtol=1e-6)
    np.testing.assert_allclose(carried(ours.carry), [carry**2, carry], rtol=1e-6)


def test_a_merge_whose_gains_are_not_known_is_refused():
    net = stack(2, lambda s, f, z: s - f)
    variables, x = begin(net)
    with pytest.raises(ValueError, match="sows no gains"):
        gains(net.apply, variables, x)
