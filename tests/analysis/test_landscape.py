"""Slices and curvature of losses whose values and Hessians are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.analysis import landscape, sharpness
from resnet_jax.models.conv import Conv
from resnet_jax.models.residual import Chain, Residual, Stack, stacked_axes

A = np.array([[2.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, -1.0]])


def quadratic(w):
    """w' A w / 2 of all numbers of a tree."""
    flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(w)])
    return flat @ jnp.asarray(A, flat.dtype) @ flat / 2


def test_filters_of_a_direction_are_as_long_as_those_of_the_kernels():
    conv = Residual(Conv(4, bias=True))
    net = Chain({"stem": Conv(4), "stack": Stack(conv, 2)})
    params = net.init(jax.random.key(0), jnp.ones((1, 3, 3, 4)))["params"]
    params = jax.tree.map(lambda a: a + 0.1, params)
    draw = lambda key: landscape.random_direction(key, params, stacked_axes(net, params))
    d = draw(jax.random.key(1))
    assert not d["stack"]["layers"]["body"]["bias"].any()
    length = lambda a: np.linalg.norm(np.asarray(a).reshape(-1, 36, 4), axis=1)
    for tree in (lambda t: t["stem"], lambda t: t["stack"]["layers"]["body"]):
        ours, theirs = tree(d)["kernel"], tree(params)["kernel"]
        np.testing.assert_allclose(length(ours), length(theirs), rtol=1e-5)
    other = draw(jax.random.key(2))
    assert not jnp.allclose(other["stem"]["kernel"], d["stem"]["kernel"])


def test_slices_of_a_quadratic_are_its_values(x64):
    params = {"a": jnp.array([1.0, -1.0]), "b": jnp.array([2.0])}
    one = {"a": jnp.array([1.0, 0.0]), "b": jnp.array([0.5])}
    two = {"a": jnp.array([0.0, 2.0]), "b": jnp.array([-1.0])}
    numbers = jnp.array([-1.0, 0.0, 2.0])
    flat = lambda t: np.concatenate([t["a"], t["b"]])
    at = lambda a, b=0.0: flat(params) + a * flat(one) + b * flat(two)
    value = lambda w: w @ A @ w / 2
    line = landscape.slice_1d(quadratic, params, one, numbers)
    np.testing.assert_allclose(line, [value(at(a)) for a in numbers])
    plane = landscape.slice_2d(quadratic, params, (one, two), (numbers, numbers[:2]))
    np.testing.assert_allclose(plane, [[value(at(a, b)) for b in numbers[:2]] for a in numbers])


def test_a_product_with_the_hessian_goes_through_convolutions_and_norms(x64):
    from resnet_jax.models.bodies import PreActivation, single

    block = Residual(
        PreActivation(single(2), conv=lambda *a, **k: Conv(*a, dtype=jnp.float64, **k))
    )
    net, x = Chain({"stack": Stack(block, 2)}), jax.random.normal(jax.random.key(0), (2, 4, 4, 2))
    variables = jax.tree.map(lambda a: a.astype(float), net.init(jax.random.key(1), x))
    keys = jax.random.key(2)

    def loss(params):
        given = {**variables, "params": params}
        return jnp.square(net.apply(given, x, mutable=["batch_stats"])[0]).sum()

    v = jax.tree.map(lambda a: jax.random.normal(keys, a.shape, a.dtype), variables["params"])
    slope = jax.jit(jax.grad(loss))
    ours = jax.jit(lambda p: sharpness.hessian_product(loss, p)(v))(variables["params"])
    ahead, behind = (slope(landscape.moved(variables["params"], (s, v))) for s in (1e-5, -1e-5))
    expected = jax.tree.map(lambda a, b: (a - b) / 2e-5, ahead, behind)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, expected
    )


@pytest.fixture
def matfree():
    """The library is an extra, and does not promote types and ranks as strictly as the tests."""
    pytest.importorskip("matfree")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


W = {"a": jnp.array([1.0, -1.0]), "b": jnp.array([2.0])}


def test_eigenvalues_are_those_of_the_matrix(matfree):
    ours = sharpness.largest_eigenvalues(quadratic, W, jax.random.key(0), 2, steps=3)
    np.testing.assert_allclose(ours, np.linalg.eigvalsh(A)[::-1][:2], rtol=1e-4)
    with pytest.raises(ValueError, match="of a Hessian of 3 parameters"):
        sharpness.largest_eigenvalues(quadratic, W, jax.random.key(0), steps=4)


def test_the_trace_of_a_diagonal_is_exact_and_the_spectrum_has_its_mean(matfree):
    loss = lambda w: sum(n * (x**2).sum() for n, x in zip((1, 5), w.values(), strict=True)) / 2
    np.testing.assert_allclose(sharpness.trace(loss, W, jax.random.key(0), 2), 7, rtol=1e-6)
    points, weights = sharpness.spectrum(loss, W, jax.random.key(0), steps=2, samples=400)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-4)
    np.testing.assert_allclose(jnp.sort(points)[0], [1, 5], rtol=1e-4)
    np.testing.assert_allclose((points * weights).sum(1).mean(), 7 / 3, rtol=0.1)
