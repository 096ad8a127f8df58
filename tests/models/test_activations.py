"""Activations: a network has no ReLU beside its own, and TAT's slope follows from the depth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import families, layouts
from resnet_jax.models.activations import (
    ETA,
    RELU,
    TANH,
    Activation,
    LeakyReLU,
    cosine,
    tailored_slope,
)
from resnet_jax.models.batch_norm import BatchNorm
from resnet_jax.models.conv import Conv
from resnet_jax.models.heads import Pool
from resnet_jax.models.norm import NoNorm
from resnet_jax.models.residual import Chain
from resnet_jax.models.resnet import resnet
from resnet_jax.models.stages import BLOCKS
from tests.recipes import recipe
from tests.smallest import drawn, smallest

FORMS = [name for name in BLOCKS if name.endswith("basic") and not name.startswith("fixup")]
NETWORKS = [
    ("resnet", f"block={block},norm={norm}")
    for block, norm in zip(FORMS, ("batch", "group", "layer", "none", "batch"), strict=True)
]


@pytest.mark.parametrize(
    "family,argument", [*NETWORKS, ("vgg", ""), ("vgg_bn", "skip=B"), ("alexnet", "")]
)
def test_a_network_with_tanh_and_without_biases_is_odd(family, argument):
    """f(-x) = -f(x): a ReLU anywhere would cut one sign off. Max pooling is left out."""
    stages = {"model__stages": (1, 2)} if family != "alexnet" else {}
    config = smallest(family, argument, model__activation="tanh", **stages)
    blocks = families.build(config).blocks
    net = Chain({name: part for name, part in blocks.items() if not isinstance(part, Pool)})
    x = jax.random.normal(jax.random.key(1), (2, *config.data.shape))
    centred = lambda path, a: jnp.zeros_like(a) if path[-1].key in ("bias", "mean") else a
    variables = jax.tree_util.tree_map_with_path(centred, drawn(net, x))
    y, other = jax.jit(lambda x: (net.apply(variables, x), net.apply(variables, -x)))(x)
    assert jnp.abs(y).max() > 1e-3
    np.testing.assert_allclose(other, -y, rtol=1e-4, atol=1e-5)


def test_the_default_network_keeps_the_fused_norm():
    """The ReLU is a field of the norm, and nothing follows it."""
    assert RELU.behind(BatchNorm) is BatchNorm and RELU.kernels(Conv) is Conv


def test_a_network_with_tanh_has_the_variables_of_one_with_relu():
    nets = (families.build(smallest("resnet", model__activation=a)) for a in ("relu", "tanh"))
    shapes = [jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 8, 8, 1))) for net in nets]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("c,slope", [(0.0, 0.0), (0.5, 0.0), (0.5, 0.3), (0.9, 0.7)])
def test_the_cosine_behind_a_layer_is_that_of_correlated_numbers(c, slope):
    """C(c) = E[f(u) f(v)] for normal u and v with correlation c, and E[f(u)^2] = 1."""
    z = np.random.default_rng(0).normal(size=(2, 400_000)).astype(np.float32)
    u, v = (LeakyReLU(slope)(jnp.asarray(a)) for a in (z[0], c * z[0] + (1 - c * c) ** 0.5 * z[1]))
    assert float((u * v).mean()) == pytest.approx(cosine(c, slope), abs=0.01)
    assert float((u * u).mean()) == pytest.approx(1, abs=0.01)


def test_the_slope_brings_orthogonal_inputs_to_eta_at_every_depth():
    slopes = [tailored_slope(layers) for layers in (5, 20, 56, 110, 1000)]
    assert slopes[0] == 0 and slopes == sorted(slopes) and slopes[-1] < 1
    for layers, slope in zip((20, 56, 110, 1000), slopes[1:], strict=True):
        c = 0.0
        for _ in range(layers):
            c = cosine(c, slope)
        assert c == pytest.approx(ETA, abs=1e-6)


def test_a_deep_plain_network_with_tat_tells_its_inputs_apart():
    """Behind 40 layers the cosine of two orthogonal pixels is 0.9; with the ReLU it is near 1.

    The kernels are delta-orthogonal, so that every pixel passes through layers of 64 units.
    """
    matrices, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(41, 64, 64)))
    kernels = np.zeros((40, 3, 3, 64, 64), np.float32)
    kernels[:, 1, 1] = matrices[:40]
    body = {"conv1": {"kernel": kernels}}
    x = jnp.asarray(8.0 * matrices[40, :16].reshape(16, 1, 1, 64), jnp.float32)

    def distance(activation):
        options = {"block": "single", "skip": "none", "num_outputs": 1, "width": 64}
        net = resnet((40,), activation=activation, norm=NoNorm, **options)
        params = {"layers": {"body": jax.tree.map(lambda a: a * activation.variance**0.5, body)}}
        y = jax.jit(net.blocks["stage1"].apply)({"params": params}, x).reshape(16, 64)
        y = y / jnp.linalg.norm(y, axis=-1, keepdims=True)
        return 1 - (y @ y.T).sum(where=~jnp.eye(16, dtype=bool)) / (16 * 15)

    tailored = Activation(LeakyReLU(tailored_slope(40)), 1.0)
    assert distance(tailored) == pytest.approx(1 - ETA, abs=0.05)
    assert distance(RELU) < 0.04


def test_kernels_start_with_the_variance_of_their_activation():
    conv = TANH.kernels(functools.partial(Conv, fan="in"))(64)
    kernel = conv.init(jax.random.key(0), jnp.ones((1, 4, 4, 16)))["params"]["kernel"]
    assert np.std(kernel) == pytest.approx((1 / (9 * 16)) ** 0.5, rel=0.03)


@pytest.mark.parametrize(
    "argument,says",
    [
        ("depth=8,skip=none", "model.activation=tat with norm=batch: its slope is that of a plain"),
        ("depth=8,norm=none", "model.activation=tat with skip=A: its slope is that of a plain"),
        ("family=vgg,skip=B", "without norms; choose skip=none"),
        ("depth=8,skip=none,norm=none,block=relu_preact_basic", "the stem; choose block=basic"),
    ],
)
def test_tat_is_refused_with_norms_and_skips(argument, says):
    with pytest.raises(ValueError) as error:
        recipe("digits", argument, True, model__activation="tat")
    assert says in str(error.value) and "\n" not in str(error.value)
    recipe("digits", "depth=8,skip=none,norm=none", True, model__activation="tat")


def test_no_library_has_names_for_a_network_with_another_activation():
    config = recipe("imagenet_torchvision", "depth=18", True, model__activation="tanh")
    with pytest.raises(ValueError, match="have model.activation=relu, not tanh"):
        layouts.find("torchvision", config)
