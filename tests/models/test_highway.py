"""Highway networks at their limits, and their plain twins."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from chex import assert_trees_all_close

from resnet_jax.models import measure
from resnet_jax.models.conv import Conv
from resnet_jax.models.highway import conv_highway, dense_highway, highway_stages, plain_width
from resnet_jax.models.merges import Gated, add
from resnet_jax.models.norm import NoNorm
from resnet_jax.models.resnet import resnet


def image(size=8, channels=3, batch=2):
    return jax.random.normal(jax.random.key(0), (batch, size, size, channels))


def shapes(net, x):
    return jax.eval_shape(net.init, jax.random.key(0), x)["params"]


def parameters(net, x):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(net, x)))


def test_a_highway_with_both_gates_open_is_the_resnet_of_the_same_bodies(x64):
    """Outputs and gradients with respect to the image agree.

    The highway's plain first layer is the stem of the ResNet.
    """
    conv = partial(Conv, dtype=jnp.float64, bias=True)
    highway = conv_highway(
        (4,), num_outputs=3, width=4, merge=Gated(30.0, 30.0, size=3, conv=conv), conv=conv
    )
    residual = resnet(
        (3,), block="relu_before_single", skip="A", num_outputs=3, width=4, conv=conv, norm=NoNorm
    )
    x = image().astype(jnp.float64)
    params = jax.jit(highway.init)(jax.random.key(1), x)["params"]
    same = {
        "stem": {"conv": params["stage1_first"]["body"]["conv1"]},
        "stage1": {"layers": {"body": params["stage1"]["layers"]["body"]}},
        "head": params["head"],
    }

    @jax.jit
    def both(x):
        y, pull = jax.vjp(lambda x: highway.apply({"params": params}, x), x)
        z, pull_residual = jax.vjp(lambda x: residual.apply({"params": same}, x), x)
        return (y, pull(jnp.sin(y))[0]), (z, pull_residual(jnp.sin(z))[0])

    of_highway, of_residual = both(x)
    assert jnp.abs(of_highway[1]).max() > 1e-3
    assert_trees_all_close(of_highway, of_residual, atol=1e-6)


def test_a_highway_with_its_coupled_gates_shut_carries_the_first_layer_through():
    deep = dense_highway(30, num_outputs=3, width=6, merge=Gated(-30.0))
    x = image()
    params = jax.jit(deep.init)(jax.random.key(1), x)["params"]
    first = dense_highway(2, num_outputs=3, width=6, merge=Gated(-30.0))
    alone = params | {"layers": jax.tree.map(lambda a: a[:1], params["layers"])}
    y = jax.jit(deep.apply)({"params": params}, x)
    assert_trees_all_close(y, jax.jit(first.apply)({"params": alone}, x), atol=1e-6)
    dense = params["first"]["body"]["dense"]
    h = jax.nn.relu(x.reshape(2, -1) @ dense["kernel"])
    assert_trees_all_close(y, h @ params["head"]["dense"]["kernel"], atol=1e-5)


@pytest.mark.parametrize("width,twin", [(50, 71), (10, 14), (1, 2)])
def test_the_plain_twin_is_as_wide_as_its_parameters_allow(width, twin):
    """It has 71 units for the highway's 50: Srivastava et al. 2015, 1505.00387, sec. 3."""
    assert plain_width(width) == twin
    size = lambda v: v**2 + v
    missed = lambda v: abs(size(v) - 2 * size(width))
    assert missed(twin) == min(missed(v) for v in range(1, 4 * width))


def test_highway_layers_of_the_paper_have_about_five_thousand_parameters():
    x = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    of_layer = lambda merge: (
        parameters(dense_highway(11, num_outputs=10, merge=merge), x)
        - parameters(dense_highway(10, num_outputs=10, merge=merge), x)
    )
    assert of_layer(Gated(-2.0)) == 2 * (50 * 50 + 50) == 5100
    assert of_layer(None) == 71 * 71 + 71 == 5112


@pytest.mark.parametrize("depth", [4, 5, 6, 19, 100])
def test_a_conv_highways_depth_is_its_weighted_layers_without_gates(depth):
    stages = highway_stages(depth)
    assert sum(stages) + 1 == depth and max(stages) - min(stages) <= 1
    assert list(stages) == sorted(stages, reverse=True)
    for merge in (Gated(-2.0, size=3), None):
        net = conv_highway(stages, num_outputs=3, width=2, merge=merge)
        assert measure.layers(net, shapes(net, image())) == depth


@pytest.mark.parametrize("depth", [2, 10, 50])
def test_a_dense_highways_depth_leaves_the_classifier_out(depth):
    """1505.00387, Fig. 1 counts in this way."""
    net = dense_highway(depth, num_outputs=3, merge=Gated(-2.0))
    assert measure.layers(net, shapes(net, image())) == depth + 1


def test_only_the_plain_twin_is_wider_and_only_the_highway_has_gates():
    plain, residual, gated = (
        shapes(conv_highway((2, 1, 1), num_outputs=3, width=4, merge=merge), image())
        for merge in (None, add, Gated(-2.0, size=3))
    )
    assert "merge" not in plain["stage1"]["layers"] and "merge" not in residual["stage1"]["layers"]
    width = lambda params: params["stage1_first"]["body"]["conv1"]["kernel"].shape[-1]
    assert (width(plain), width(residual), width(gated)) == (plain_width(4, 9), 4, 4)
    assert gated["stage1"]["layers"]["merge"]["gate"]["kernel"].shape == (1, 3, 3, 4, 4)
