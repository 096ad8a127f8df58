"""Jacobians and gradients of networks whose products of matrices are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.analysis import jacobian, support
from resnet_jax.models.conv import Conv
from resnet_jax.models.merges import plain
from resnet_jax.models.residual import Chain, Residual, Stack
from tests.analysis.networks import begin, kernels, square, stack


def test_singular_values_are_those_of_the_product_of_the_layers(x64):
    net = stack(4)
    variables, x = begin(net, examples=1)
    one, two = np.eye(3) + np.asarray(kernels(variables))[1:3]
    expected = np.linalg.svd(one @ two, compute_uv=False)
    function, start = jacobian.part(net.apply, variables, x, 1, 2)
    np.testing.assert_allclose(start, x + x @ kernels(variables)[0])
    np.testing.assert_allclose(function(start), start @ one @ two)
    np.testing.assert_allclose(jacobian.singular_values(function, start), expected)
    largest = jacobian.spectral_norm(function, start, jax.random.key(0))
    np.testing.assert_allclose(largest, expected[0], rtol=1e-8)
    with pytest.raises(ValueError, match="blocks 2 to 1 of a network of 4"):
        jacobian.part(net.apply, variables, x, 2, 1)


def test_small_bodies_leave_a_residual_gradient_and_no_plain_one(x64):
    scales = jnp.array([1.0, 1e-3, 1e-6])
    net, twin = stack(3), stack(3, plain)
    variables, x = begin(net)
    ratios = jacobian.scaled_gradients(net.apply, variables, x, square, scales)
    np.testing.assert_allclose(ratios[1:, 0], 1, atol=1e-2)
    np.testing.assert_allclose(ratios[2, 0], 1, atol=1e-5)
    ratios = jacobian.scaled_gradients(twin.apply, variables, x, square, scales)
    np.testing.assert_allclose(ratios[1] / ratios[0], 1e-9, rtol=1e-6)


def test_bodies_that_cancel_the_skip_leave_no_gradient(x64):
    net = stack(3)
    variables, x = begin(net)
    variables = jax.tree.map(lambda a: -jnp.broadcast_to(jnp.eye(3), a.shape), variables)
    starts = jacobian.scaled_gradients(net.apply, variables, x + 1, lambda y: y.sum(), (1.0, 0.5))
    np.testing.assert_allclose(starts[:, 0], [0, 0.125], atol=1e-12)


@pytest.mark.parametrize("layers,size,seen", [(3, 3, 7), (1, 3, 3), (2, 5, 9)])
def test_three_small_kernels_see_what_one_large_kernel_sees(layers, size, seen):
    net = Chain({"stack": Stack(Residual(Conv(1, size), merge=plain), layers)})
    x = jnp.ones((1, 11, 12, 1))
    variables = jax.jit(net.init)(jax.random.key(0), x)
    find = functools.partial(support.receptive_field, net.apply, block=layers - 1, pixel=(5, 5))
    field = jax.jit(lambda v: find(v, x))(variables)
    assert field.sum() == seen**2
    assert support.extent(field) == (seen, seen)
    assert field[5 - seen // 2, 5 + seen // 2]
    with pytest.raises(ValueError, match="no pixel"):
        support.receptive_field(net.apply, variables, x, 0, (11, 0))


def test_no_pixel_has_no_extent():
    assert support.extent(jnp.zeros((3, 4), bool)) == (0, 0)
