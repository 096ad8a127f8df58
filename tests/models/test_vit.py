"""Patches, positions, the class token, and how a Vision Transformer starts."""

import jax
import jax.numpy as jnp
import numpy as np
from chex import assert_trees_all_close

from resnet_jax.models import vit
from resnet_jax.models.conv import lax_conv
from tests.smallest import drawn


def image(height=8, width=12, batch=2):
    return jnp.asarray(np.random.default_rng(0).normal(size=(batch, height, width, 3)), jnp.float32)


def test_tokens_are_the_class_token_and_a_convolution_read_row_by_row_with_positions_added():
    net, x = vit.Embedding(4, 5), image()
    params = drawn(net, x)["params"]
    y = jax.jit(net.apply)({"params": params}, x)
    assert y.shape == (2, 1 + 2 * 3, 5)
    kernel, bias = params["patches"]["kernel"].reshape(4, 4, 3, 5), params["patches"]["bias"]
    patches = lax_conv(x, kernel, 4, ((0, 0), (0, 0))) + bias.reshape(1, 1, 1, -1)
    positions = params["positions"]
    assert_trees_all_close(y[:, 1:], patches.reshape(2, 6, 5) + positions[:, 1:], atol=1e-4)
    first = params["class_token"][:, 0] + positions[:, 0]
    assert_trees_all_close(y[:, 0], jnp.broadcast_to(first, (2, 5)), atol=1e-6)


def test_the_classifier_reads_the_class_token_alone():
    head, x = vit.TokenHead(3), image()[0]
    params = drawn(head, x)["params"]
    y = head.apply({"params": params}, x)
    expected = x[:, 0] @ params["dense"]["kernel"] + params["dense"]["bias"].reshape(1, -1)
    assert_trees_all_close(y, expected, atol=1e-5)


def test_every_patch_reaches_the_logits_and_images_do_not_see_each_other():
    net, x = vit.vit(1, num_outputs=3, patch=4, width=8, heads=2), image()
    variables = drawn(net, x)
    slopes = jax.jit(jax.grad(lambda x: net.apply(variables, x)[0].sum()))(x)
    assert (slopes[0] != 0).all() and not slopes[1].any()


def test_a_network_starts_as_torchvisions_does():
    """Each tensor has the standard deviation of torchvision's rule, within four standard errors."""
    width = 96
    net = vit.vit(2, num_outputs=10, patch=4, width=width, heads=3)
    params = jax.jit(net.init)(jax.random.key(0), image(16, 16))["params"]
    for leaf in jax.tree.leaves(params["head"]):
        assert not leaf.any()
    stem, layers = params["stem"], params["encoder"]["layers"]
    assert not stem["class_token"].any() and not stem["patches"]["bias"].any()
    attention = layers["attention"]["body"]["attention"]
    mlp = layers["mlp"]["body"]["mlp"]
    uniform = lambda limit: limit / np.sqrt(3)
    for leaf, deviation in [
        (stem["patches"]["kernel"], (4 * 4 * 3) ** -0.5),
        (stem["positions"], 0.02),
        (attention["qkv"]["kernel"], uniform((6 / (4 * width)) ** 0.5)),
        (attention["out"]["kernel"], uniform(width**-0.5)),
        (mlp["dense1"]["kernel"], uniform((6 / (5 * width)) ** 0.5)),
        (mlp["dense2"]["kernel"], uniform((6 / (5 * width)) ** 0.5)),
        (mlp["dense1"]["bias"], 1e-6),
        (mlp["dense2"]["bias"], 1e-6),
    ]:
        error = 4 / np.sqrt(2 * leaf.size)
        np.testing.assert_allclose(np.std(leaf), deviation, rtol=error)
    assert not attention["qkv"]["bias"].any() and not attention["out"]["bias"].any()
    for norm in (
        layers["mlp"]["body"]["norm"],
        layers["attention"]["body"]["norm"],
        params["norm"],
    ):
        assert (norm["scale"] == 1).all() and not norm["bias"].any()
