"""Residual networks: depths, skips, twins. test_published.py has their counts."""

import math

import jax
import jax.numpy as jnp
import pytest

from resnet_jax.models import resnet
from resnet_jax.models.merges import Scaled
from resnet_jax.models.stages import (
    default_block,
    default_skip,
    depth_of,
    ladder_stages,
    resnet_stages,
)
from tests.smallest import drawn

IMAGE = jnp.zeros((1, 32, 32, 3))


def parameters(net, size, channels=3):
    variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, size, size, channels)))
    return sum(math.prod(a.shape) for a in jax.tree.leaves(variables["params"]))


def cifar(depth, block="basic", skip="A", **options):
    stages = resnet_stages(depth, block, 32)
    return resnet.resnet(stages, block=block, skip=skip, num_outputs=10, **options)


def imagenet(depth, block, **options):
    stages = resnet_stages(depth, block, 224)
    return resnet.resnet(
        stages, block=block, skip="B", num_outputs=1000, width=64, stem="7x7", **options
    )


@pytest.mark.parametrize("stride_at", ["1x1", "3x3"])
def test_the_convolution_that_has_the_stride_changes_no_parameter(stride_at):
    assert parameters(imagenet(50, "bottleneck", stride_at=stride_at), 224) == 25_557_032


def test_the_plain_twin_has_no_weights_on_skips():
    params = jax.eval_shape(cifar(110, "basic", "none").init, jax.random.key(0), IMAGE)["params"]
    paths = jax.tree_util.tree_leaves_with_path(params)
    assert not any("skip" in jax.tree_util.keystr(path) for path, _ in paths)


def test_only_a_skip_passes_the_image_by_a_body_that_is_zero():
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    for skip, passes in (("none", False), ("A", True)):
        options = {"block": "preact_basic", "skip": skip, "zero": True, "width": 4}
        net = resnet.resnet((1, 1), num_outputs=10, **options)
        logits = jax.jit(net.init_with_output)(jax.random.key(0), x)[0]
        assert bool(jnp.abs(logits[0] - logits[1]).max() > 1e-6) is passes


def test_every_pixel_and_every_stage_reaches_the_logits():
    net = cifar(8, "basic", "A", width=4)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    variables = jax.tree.map(jnp.abs, drawn(net, x))  # statistics and all scales are positive
    grad = jax.jit(jax.grad(lambda x: net.apply(variables, x)[:, 0].sum()))(x)
    assert (jnp.abs(grad) > 0).mean() > 0.9


def test_a_learned_gain_is_one_parameter_of_each_block():
    scaled = cifar(14, "basic", "A", merge=Scaled(0.5, 0.5, learned=True))
    assert parameters(scaled, 32) == parameters(cifar(14, "basic", "A"), 32) + 6


@pytest.mark.parametrize(
    "depth,block,image,message",
    [
        (111, "basic", 32, "depth 111 is not 6n+2 (basic blocks); nearest 110 and 116"),
        (7, "basic", 32, "depth 7 is not 6n+2 (basic blocks); nearest 8 and 14"),
        (1000, "preact_bottleneck", 32, "depth 1000 is not 9n+2 (bottleneck blocks); nearest 992"),
        (110, "bottleneck", 224, "(50, 101, 152, 200); nearest 101 and 152"),
        (20, "basic", 224, "(18, 34); nearest 18 and 34"),
    ],
)
def test_a_depth_that_does_not_exist_is_refused_with_its_neighbours(depth, block, image, message):
    with pytest.raises(ValueError) as error:
        resnet_stages(depth, block, image)
    assert message in str(error.value)


def test_a_shape_that_no_imagenet_network_has_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="has single blocks: use basic or bottleneck, or "):
        resnet_stages(34, "preact_single", 224)


@pytest.mark.parametrize("depth", [17, 19, 1203, 1204, 16, 0])
def test_the_ladder_refuses_other_depths_with_two_that_it_has(depth):
    with pytest.raises(ValueError) as error:
        ladder_stages(depth, 32)
    for near in str(error.value).split("nearest ")[1].split(" and "):
        ladder_stages(int(near), 32)


@pytest.mark.parametrize("image,stages", [(32, 3), (63, 3), (64, 4), (224, 4)])
def test_the_ladder_shares_its_blocks_evenly_and_gives_the_rest_to_the_earliest(image, stages):
    for depth in range(18, 1203, 2):
        blocks = ladder_stages(depth, image)
        assert len(blocks) == stages
        assert depth_of(blocks, "basic") == depth
        assert max(blocks) - min(blocks) <= 1
        assert list(blocks) == sorted(blocks, reverse=True)


def test_published_depths_on_the_ladder_are_the_published_networks():
    assert ladder_stages(110, 32) == resnet_stages(110, "basic", 32)
    assert ladder_stages(18, 224) == resnet_stages(18, "basic", 224)


def test_the_defaults_of_depths_that_fit_two_rules():
    assert default_block(110, 32) == "basic"  # also 9 * 12 + 2
    assert default_block(164, 32) == "basic"  # also 9 * 18 + 2
    assert default_block(1001, 32) == "bottleneck"
    assert default_block(34, 224) == "basic"
    assert default_block(50, 224) == "bottleneck"
    assert default_skip("basic", 32) == "A"
    assert default_skip("basic", 224) == default_skip("preact_bottleneck", 32) == "B"


def test_a_tied_network_has_as_many_parameters_at_any_depth_and_statistics_for_every_step():
    shapes = [
        jax.eval_shape(cifar(depth, tied=True).init, jax.random.key(0), IMAGE)
        for depth in (14, 110)
    ]
    assert shapes[0]["params"] == shapes[1]["params"]
    mean = lambda of: of["batch_stats"]["stage1"]["layers"]["body"]["norm1"]["mean"].shape
    assert [mean(of) for of in shapes] == [(2, 16), (18, 16)]
    stage = shapes[0]["params"]["stage1"]["layers"]["body"]["conv1"]["kernel"]
    assert stage.shape == (3, 3, 16, 16)


def test_a_tied_network_is_the_network_whose_blocks_have_equal_weights():
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    tied, free = (
        resnet.resnet((3, 2), block="basic", skip="A", num_outputs=3, width=2, tied=tied)
        for tied in (True, False)
    )
    variables = jax.jit(tied.init)(jax.random.key(0), x)
    copies = lambda path, a, like: (
        jnp.broadcast_to(a, like.shape) if "layers" in jax.tree_util.keystr(path) else a
    )
    shapes = jax.eval_shape(free.init, jax.random.key(0), x)["params"]
    params = jax.tree_util.tree_map_with_path(copies, variables["params"], shapes)

    def loss(net, params):
        y, _ = net.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return jnp.sin(y).sum()

    (own, grads), (other, of_copies) = (
        jax.jit(jax.value_and_grad(lambda p, net=net: loss(net, p)))(p)
        for net, p in ((tied, variables["params"]), (free, params))
    )
    assert float(own) == pytest.approx(float(other), rel=1e-5)
    kernel = lambda tree: tree["stage1"]["layers"]["body"]["conv1"]["kernel"]
    summed = kernel(of_copies).sum(0)
    assert jnp.allclose(kernel(grads), summed, atol=1e-4 * jnp.abs(summed).max())
