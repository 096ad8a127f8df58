"""How the kernels of convolutions start: what each start keeps, and in which kernels."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import families
from resnet_jax.models import highway
from resnet_jax.models.conv import Conv
from resnet_jax.models.dense import Dense
from tests.recipes import recipe
from tests.smallest import smallest


def started(width, channels, start, **options):
    """Return a layer that starts in this way, its variables and an input."""
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, channels))
    layer = Conv(width, kernel_start=start, **options)
    return layer, layer.init(jax.random.key(1), x), x


def squares(x, groups=1):
    """Return the squared length of each pixel's channels, group by group."""
    return np.square(x).reshape(*x.shape[:3], groups, -1).sum(-1)


@pytest.mark.parametrize("width,groups,size", [(6, 1, 3), (9, 1, 4), (12, 3, 5)])
def test_a_delta_orthogonal_layer_doubles_the_squared_length_of_every_pixel(width, groups, size):
    layer, variables, x = started(width, 6, "delta_orthogonal", size=size, groups=groups)
    y = layer.apply(variables, x)
    np.testing.assert_allclose(squares(y, groups), 2 * squares(x, groups), rtol=1e-5)


def test_a_delta_orthogonal_layer_that_narrows_keeps_the_gradient_and_the_mean_square():
    layer, variables, x = started(16, 64, "delta_orthogonal")
    y, pull = jax.vjp(lambda x: layer.apply(variables, x), x)
    g = jax.random.normal(jax.random.key(2), y.shape)
    np.testing.assert_allclose(squares(pull(g)[0]), 2 * squares(g), rtol=1e-5)
    assert np.square(y).mean() == pytest.approx(2 * np.square(x).mean(), rel=0.15)


def test_looks_linear_layers_with_relus_are_linear_and_keep_the_length():
    layers = [Conv(12, kernel_start="looks_linear") for _ in range(20)]
    x = jax.random.normal(jax.random.key(0), (3, 5, 4, 3))
    key, y, weights = jax.random.key(1), x[:1], []
    for layer in layers:
        weights.append(layer.init(key, y))
        y = layer.apply(weights[-1], y)
        key = jax.random.fold_in(key, 0)

    def signal(x):
        for layer, variables in zip(layers, weights, strict=True):
            x = jax.nn.relu(layer.apply(variables, x))
        return x[..., :6] - x[..., 6:]

    z = signal(x)
    np.testing.assert_allclose(signal(x[:1] - 2 * x[1:2])[0], z[0] - 2 * z[1], atol=1e-4)
    np.testing.assert_allclose(squares(z), squares(x), rtol=1e-4)


def test_orthogonal_kernels_of_many_layers_are_drawn_with_two_threads():
    """XLA:CPU waits without an end for batches of QR decompositions that share two threads."""
    script = """
import jax
from resnet_jax import trained
from tests.recipes import recipe
config = recipe("digits", "depth=56,skip=none", model__kernel_start="delta_orthogonal")
jax.block_until_ready(trained.init(config))
"""
    environment = os.environ | {"NPROC": "2", "XLA_FLAGS": ""}
    root = Path(__file__).parent.parent.parent
    subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=root, check=True, timeout=120
    )


@pytest.mark.parametrize("width,groups", [(9, 1), (12, 2)])
def test_looks_linear_channels_are_pairs_of_one_group(width, groups):
    with pytest.raises(ValueError, match="looks_linear for .* choose an even model.width"):
        started(width, 6, "looks_linear", groups=groups)


@pytest.mark.parametrize("groups,size,stride", [(1, 3, 1), (2, 3, 1), (6, 2, 1), (1, 5, 2)])
def test_a_dirac_layer_passes_its_input_on(groups, size, stride):
    options = {"size": size, "groups": groups, "stride": stride}
    layer, variables, x = started(6, 6, "dirac", **options)
    np.testing.assert_array_equal(layer.apply(variables, x), x[:, ::stride, ::stride])


def test_a_dirac_layer_of_another_width_starts_by_hes_rule():
    assert jnp.array_equal(*(started(9, 6, s)[1]["params"]["kernel"] for s in ("dirac", "he")))


def test_xaviers_kernels_are_uniform_with_the_variance_of_the_mean_fan():
    kernel = np.asarray(started(64, 16, "xavier")[1]["params"]["kernel"])
    variance = 2 / (9 * 64 + 9 * 16)
    assert kernel.var() == pytest.approx(variance, rel=0.05)
    assert np.abs(kernel).max() == pytest.approx((3 * variance) ** 0.5, rel=0.01)


@pytest.mark.parametrize(
    "family,argument,stages",
    [("resnet", "block=bottleneck", (1, 1)), ("vgg", "skip=B", (1, 2))],
)
def test_every_convolution_of_a_network_starts_as_the_config_says(family, argument, stages):
    """A delta-orthogonal kernel has one tap, and gates start by He's rule."""
    argument += ",merge=exclusive_gate"
    start = {"model__kernel_start": "delta_orthogonal", "model__stages": stages}
    config = smallest(family, argument, **start)
    init = jax.jit(families.build(config).init)
    params = init(jax.random.key(0), jnp.ones((1, *config.data.shape)))["params"]
    leaves = jax.tree_util.tree_leaves_with_path(params)
    made = {jax.tree_util.keystr(path): a[(0,) * (a.ndim - 4)] for path, a in leaves if a.ndim > 3}
    gates = {name: kernel for name, kernel in made.items() if "gate" in name}
    assert gates and len(made) - len(gates) > 2
    assert all(np.count_nonzero(kernel) == kernel.size for kernel in gates.values())
    for kernel in (kernel for name, kernel in made.items() if name not in gates):
        matrix = kernel[tuple((n - 1) // 2 for n in kernel.shape[:2])]
        assert np.count_nonzero(kernel) <= matrix.size
        np.testing.assert_allclose(np.linalg.svd(matrix)[1], 2**0.5, rtol=1e-5)


@pytest.mark.parametrize("argument", ["", "family=resnet,depth=20,norm=none,"])
def test_the_layers_of_a_plain_reconstruction_may_start_as_the_identity(argument):
    """They are the identity on what a ReLU gives."""
    config = recipe("reconstruction", argument + "skip=none", model__kernel_start="dirac")
    net = families.build(config)
    stage, width = net.blocks.get("layers") or net.blocks["stage1"], config.model.width
    shape = (5, 5, width) if argument else (highway.plain_width(width),)
    x = jax.nn.relu(jax.random.normal(jax.random.key(0), (2, *shape)))
    run = lambda key: stage.apply(stage.init(key, x), x)
    np.testing.assert_allclose(x, jax.jit(run)(jax.random.key(1)), rtol=1e-6)


def test_a_dense_layer_may_start_orthogonal():
    x = jax.random.normal(jax.random.key(0), (4, 25))
    for activation, square in (("relu", 2), ("tanh", 1)):
        layer = Dense(50, activation, "delta_orthogonal")
        kernel = layer.init(jax.random.key(1), x)["params"]["dense"]["kernel"]
        np.testing.assert_allclose(kernel @ kernel.T, square * np.eye(25), atol=1e-5)


def test_a_fan_is_refused_for_a_start_that_has_none():
    with pytest.raises(ValueError) as error:
        recipe("digits", "depth=8", True, model__fan="in", model__kernel_start="xavier")
    assert str(error.value) == (
        "model.fan=in with model.kernel_start=xavier, which has no choice of fan; use "
        "--config.model.fan=auto"
    )
