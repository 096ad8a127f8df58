"""Every order of activation of He et al. 2016, Fig. 4, and Fixup, against numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models.bodies import (
    Fixup,
    Layer,
    PostActivation,
    PreActivation,
    basic,
    bottleneck,
    quadruple,
    single,
    triple,
)
from resnet_jax.models.conv import Conv
from resnet_jax.models.merges import Scaled
from resnet_jax.models.norm import NoNorm
from resnet_jax.models.residual import Residual
from resnet_jax.models.resnet import resnet
from resnet_jax.models.stages import BLOCKS, form_and_shape


def conv(weights, x, stride=1, groups=1):
    """Output group k sees input group k: numpy's loop over taps and groups."""
    kernel = weights["kernel"]
    size = len(kernel)
    ends = (0, 0), ((size - 1) // 2, size // 2), ((size - 1) // 2, size // 2), (0, 0)
    wide, (h, w) = np.pad(x, ends), x.shape[1:3]
    outputs = []
    for part, own in zip(np.split(wide, groups, -1), np.split(kernel, groups, -1), strict=True):
        assert own.shape[2] == part.shape[-1]
        taps = [
            part[:, i : i + h : stride, j : j + w : stride] @ own[i, j]
            for i in range(size)
            for j in range(size)
        ]
        outputs.append(sum(taps))
    return np.concatenate(outputs, -1)


def norm(weights, x):
    mean, variance = weights["mean"], weights["var"]
    return (x - mean) / np.sqrt(variance + 1e-5) * weights["scale"] + weights["bias"]


def relu(x):
    return np.maximum(x, 0)


def block(form, w, x, z=None):
    """Fig. 4: (a) '', (b) norm_after, (c) relu_before, (d) relu_preact, (e) preact; `z` shared.

    The number of groups follows from the channels that a kernel sees.
    """
    body, n = w["body"], sum(name.startswith("conv") for name in w["body"])
    groups = lambda i, x: x.shape[-1] // body[f"conv{i}"]["kernel"].shape[2]
    c = lambda i, x: conv(body[f"conv{i}"], x, groups=groups(i, x))
    m = lambda i, x: norm(body[f"norm{i}"], x)
    keep = lambda z: z
    if "skip" in w:
        keep = lambda z: conv(w["skip"]["conv"], z)
        if form in ("", "relu_before", "relu_preact"):
            keep = lambda z: norm(w["skip"]["norm"], conv(w["skip"]["conv"], z))
    if form == "preact":
        f = c(1, relu(m(1, x)) if z is None else z)
        for i in range(2, n + 1):
            f = c(i, relu(m(i, f)))
        return keep(x if z is None else z) + f
    if form == "fixup":
        f = x
        for i in range(1, n + 1):
            f = c(i, f + body[f"before{i}"])
            f = relu(f + body[f"after{i}"]) if i < n else f * body["gain"] + body[f"after{i}"]
        return relu(keep(x) + f)
    f = relu(x) if form == "relu_preact" else x
    for i in range(1, n):
        f = relu(m(i, c(i, f)))
    f = c(n, f)
    if form == "norm_after":
        return relu(norm(w["after"], keep(x) + f))
    f = m(n, f)
    if form == "relu_before":
        return keep(x) + relu(f)
    return relu(keep(x) + f) if form == "" else keep(x) + f


def network(form, weights, x):
    """A stage of two blocks behind the stem, and the classifier."""
    x = conv(weights["stem"]["conv"], x)
    if form == "fixup":
        x = relu(x + weights["stem"]["norm"]["bias"])
    elif form != "preact":
        x = relu(norm(weights["stem"]["norm"], x))
    if "stage1_first" in weights:
        first = weights["stage1_first"]
        x = block(form, first, x, relu(norm(first["before"], x)) if form == "preact" else None)
    stack = weights["stage1"]["layers"]
    for i in range(len(stack["body"]["conv1"]["kernel"])):
        x = block(form, jax.tree.map(lambda a, i=i: a[i], stack), x)
    if form == "preact":
        x = relu(norm(weights["norm"], x))
    if form == "relu_preact":
        x = relu(x)
    if form == "fixup":
        x = x + weights["shift"]["bias"]
    dense = weights["head"]["dense"]
    return x.mean((1, 2)) @ dense["kernel"] + dense["bias"]


def together(*trees):
    """One tree of several that share their inner nodes."""
    merged = {}
    for tree in trees:
        for key, value in tree.items():
            both = isinstance(value, dict) and key in merged
            merged[key] = together(merged[key], value) if both else value
    return merged


@pytest.mark.parametrize(
    "name,options",
    [(name, {}) for name in BLOCKS]
    + [(name, {"groups": 2, "widen": 2}) for name in ("bottleneck", "preact_bottleneck")],
)
def test_a_network_of_every_form_and_shape_is_its_figure_written_in_numpy(name, options):
    net = resnet((2,), block=name, skip="B", num_outputs=3, width=2, **options)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)
    draw = lambda a: jnp.asarray(rng.uniform(0.3, 1.3, a.shape) * rng.choice((-1, 1), a.shape))
    variables = jax.tree.map(lambda a: draw(a).astype(a.dtype), shapes)
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    weights = jax.tree.map(np.asarray, together(*variables.values()))
    y = jax.jit(net.apply)(variables, x)
    expected = network(form_and_shape(name)[0], weights, np.asarray(x, np.float64))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(y, expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())


def positive(shape=(2, 4, 4, 8)):
    return jnp.abs(jax.random.normal(jax.random.key(1), shape))


def started(stack, x):
    """Return the output of a Stack as it starts; a Stack's `init_with_output` returns its input."""
    return jax.jit(lambda key: stack.apply(stack.init(key, x), x))(jax.random.key(0))


@pytest.mark.parametrize(
    "name",
    ["basic", "single", "bottleneck", "relu_before_basic", "relu_preact_basic", "preact_basic"],
)
def test_zero_initialised_blocks_are_the_identity(name):
    """If `after` is a ReLU, the block is the identity on what a ReLU gives."""
    form, shape = form_and_shape(name)
    width = 2 if shape == "bottleneck" else 8
    stage = resnet((3,), block=name, skip="A", num_outputs=3, width=width, zero=True)
    x = positive() if form == "" else jax.random.normal(jax.random.key(1), (2, 4, 4, 8))
    assert jnp.array_equal(started(stage.blocks["stage1"], x), x)


@pytest.mark.parametrize("shape", ["basic", "bottleneck"])
def test_fixup_blocks_start_as_the_identity_and_their_network_with_no_opinion(shape):
    width = 2 if shape == "bottleneck" else 8
    net = resnet((3,), block=f"fixup_{shape}", skip="A", num_outputs=3, width=width)
    x = positive()
    assert jnp.array_equal(started(net.blocks["stage1"], x), x)
    assert not jax.jit(net.init_with_output)(jax.random.key(0), x)[0].any()


@pytest.mark.parametrize("layers,power", [(basic(64), -1 / 2), (bottleneck(32), -1 / 4)])
def test_fixup_scales_its_first_kernels_by_the_number_of_blocks(layers, power):
    x = positive((1, 4, 4, 64))
    params = Fixup(layers, 100).init(jax.random.key(0), x)["params"]
    for i, layer in enumerate(layers, 1):
        he = (2 / (layer.size**2 * layer.width)) ** 0.5
        kernel = params[f"conv{i}"]["kernel"]
        expected = 0.0 if i == len(layers) else he * 100**power
        assert float(kernel.std()) == pytest.approx(expected, rel=0.05)
    scalars = {name for name, value in params.items() if not isinstance(value, dict)}
    m = len(layers)
    assert scalars == {"gain"} | {f"{at}{i}" for at in ("before", "after") for i in range(1, m + 1)}


@pytest.mark.parametrize("order", [PostActivation, PreActivation])
def test_rezero_blocks_start_as_the_identity_without_norms(order):
    body = order(basic(8), norm=NoNorm, conv=functools.partial(Conv, bias=True))
    block = Residual(body, merge=Scaled(1.0, 0.0, learned=True))
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 8))
    assert jnp.array_equal(block.init_with_output(jax.random.key(0), x)[0], x)


def test_rows_of_layers_are_the_papers():
    assert [layer.size for layer in bottleneck(4)] == [1, 3, 1]
    assert [layer.width for layer in bottleneck(4, widen=2, groups=2)] == [8, 8, 16]
    assert [layer.groups for layer in bottleneck(4, widen=2, groups=2)] == [1, 2, 1]
    assert [layer.stride for layer in bottleneck(4, 2)] == [2, 1, 1]
    assert [layer.stride for layer in bottleneck(4, 2, "3x3")] == [1, 2, 1]
    assert [layer.stride for layer in basic(4, 2)] == [2, 1]
    assert single(4, 2) == basic(4, 2)[:1]
    assert [layer.stride for layer in quadruple(4, 2)] == [2, 1, 1, 1]
    assert triple(4, 2) == quadruple(4, 2)[:3] and {layer.size for layer in triple(4)} == {3}


def separable(width, stride=1):
    """A depthwise 3x3 convolution of any number of channels, then a 1x1 convolution."""
    return lambda channels: (Layer(channels, 3, stride, channels), Layer(width, 1))


@pytest.mark.parametrize("form", ["", "preact", "fixup"])
def test_a_row_of_layers_may_depend_on_the_inputs_channels(form):
    """A depthwise-separable body follows its input's channels, against numpy."""
    orders = {"": PostActivation, "preact": PreActivation}
    body = Fixup(separable(5), 4) if form == "fixup" else orders[form](separable(5))
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    shapes = jax.eval_shape(body.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda a: jnp.asarray(rng.uniform(0.3, 1.3, a.shape), a.dtype), shapes)
    assert variables["params"]["conv1"]["kernel"].shape == (3, 3, 1, 3)
    assert variables["params"]["conv2"]["kernel"].shape == (1, 1, 3, 5)
    weights = jax.tree.map(np.asarray, together(*variables.values()))
    c = lambda i, x: conv(weights[f"conv{i}"], x, groups=3 if i == 1 else 1)
    m = lambda i, x: norm(weights[f"norm{i}"], x)
    z = np.asarray(x, np.float64)
    if form == "":
        expected = m(2, c(2, relu(m(1, c(1, z)))))
    elif form == "preact":
        expected = c(2, relu(m(2, c(1, relu(m(1, z))))))
    else:
        hidden = relu(c(1, z + weights["before1"]) + weights["after1"])
        expected = c(2, hidden + weights["before2"]) * weights["gain"] + weights["after2"]
    np.testing.assert_allclose(body.apply(variables, x), expected, rtol=2e-4)


def test_one_body_fits_every_stage_if_its_row_depends_on_the_channels():
    body = PreActivation(separable(8), norm=NoNorm)
    for channels in (2, 8):
        x = jnp.ones((1, 4, 4, channels))
        params = body.init(jax.random.key(0), x)["params"]
        assert params["conv1"]["kernel"].shape == (3, 3, 1, channels)
