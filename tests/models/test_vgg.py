"""VGG on images of any size, with and without skip connections, which the paper does not have."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models import measure
from resnet_jax.models.batch_norm import BatchNorm
from resnet_jax.models.vgg import vgg, vgg_stages
from tests.smallest import drawn


def narrow(stages=(1, 1, 2, 2, 2), image=32, **options):
    pool = 7 if image >= 64 else 1
    return vgg(stages, num_outputs=5, image=image, width=2, hidden=8, pool=pool, **options)


def shapes(net, size):
    x = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    return jax.eval_shape(net.init_with_output, jax.random.key(0), x)


@pytest.mark.parametrize("size", [1, 2, 8, 28, 31, 32, 33, 224])
def test_images_of_any_size_have_logits(size):
    y, _ = shapes(narrow(image=size), size)
    assert y.shape == (2, 5)


def test_every_stage_of_a_small_image_reaches_the_logits():
    net = narrow((1, 1, 1, 1, 1), image=8, norm=BatchNorm)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 3)), jnp.float32)

    def loss(variables):
        y, _ = net.apply(variables, x, mutable=["batch_stats"])
        return jnp.square(y).sum()

    grads = jax.jit(jax.grad(loss))(drawn(net, x))["params"]
    for name in ("stage1_first", "stage5", "head"):
        assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads[name])) > 0


@pytest.mark.parametrize("depth", [11, 13, 34])
@pytest.mark.parametrize("skip", ["none", "A", "B"])
def test_the_weighted_layers_are_the_depth_with_every_skip(depth, skip):
    stages = vgg_stages(depth)
    net = narrow(stages, skip=skip)
    assert measure.layers(net, shapes(net, 32)[1]["params"]) == sum(stages) + 3 == depth


@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_the_plain_network_has_the_parameters_of_option_a_and_option_b_projects(norm):
    options = {} if norm is None else {"norm": partial(norm)}
    plain, option_a, option_b = (
        shapes(narrow(skip=skip, **options), 32)[1]["params"] for skip in ("none", "A", "B")
    )
    assert plain == option_a
    assert {name for name, block in option_b.items() if "skip" in block} == {
        "stage2_first",
        "stage3_first",
        "stage4_first",
    }


def test_every_convolution_but_the_first_has_a_skip():
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    counts = lambda skip: measure.count(narrow(skip=skip), x)[0]
    assert counts("none").identity_skips == 0
    assert counts("A").identity_skips == counts("B").identity_skips == 8 - 1 - 3
    assert counts("A").blocks == 8


@pytest.mark.parametrize(
    "depth,near", [(12, (11, 13)), (0, (11, 13)), (17, (16, 19)), (35, (34, 37))]
)
def test_a_depth_that_does_not_exist_is_refused_with_its_neighbours(depth, near):
    with pytest.raises(ValueError, match=f"depth {depth} is no VGG .*; nearest {near[0]} and"):
        vgg_stages(depth)
    assert [sum(vgg_stages(d)) + 3 for d in near] == list(near)
