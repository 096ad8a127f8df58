"""DiracNet's kernels, W = a I + b V / |V|, in the place of a skip connection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import families
from resnet_jax.models.conv import Conv
from resnet_jax.training import groups
from tests.recipes import recipe
from tests.smallest import smallest


@pytest.mark.parametrize("size,parts", [(1, 1), (3, 1), (3, 2)])
def test_a_layer_is_a_scaled_skip_beside_a_convolution_of_unit_filters(size, parts):
    """y = a x + b (V / |V| * x), whatever the length of V."""
    layer = Conv(6, size, groups=parts, dirac=True)
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 6))
    params = layer.init(jax.random.key(1), x)["params"]
    assert (params["identity_gain"] == 1).all() and (params["kernel_gain"] == 0.1).all()
    a, b = jnp.arange(1.0, 7.0), jnp.arange(-3.0, 3.0)
    kernel = params["kernel"]
    unit = kernel / jnp.linalg.norm(kernel.reshape(-1, 6), axis=0).reshape(1, 1, 1, 6)
    learned = Conv(6, size, groups=parts).apply({"params": {"kernel": unit}}, x)
    expected = a.reshape(1, 1, 1, 6) * x + b.reshape(1, 1, 1, 6) * learned
    for length in (1, 7):
        changed = {"kernel": length * kernel, "identity_gain": a, "kernel_gain": b}
        y = layer.apply({"params": changed}, x)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"stride": 2}, {"width": 9}])
def test_a_layer_that_changes_the_shape_is_an_ordinary_convolution(options):
    x = jnp.ones((1, 4, 4, 6))
    params = [
        Conv(**{"width": 6, "dirac": d} | options).init(jax.random.key(0), x) for d in (False, True)
    ]
    assert jax.tree.all(jax.tree.map(jnp.array_equal, *params))


def test_the_layers_of_a_plain_network_have_an_identity_that_does_not_decay():
    """All but the stem and the first layer of a stage that changes the shape."""
    config = smallest("resnet", "skip=none", model__dirac=True)
    x = jax.ShapeDtypeStruct((1, *config.data.shape), "float32")
    params = jax.eval_shape(families.build(config).init, jax.random.key(0), x)["params"]
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): multiples
        for path, multiples in jax.tree_util.tree_leaves_with_path(
            groups.multiples(config, params), is_leaf=lambda a: isinstance(a, groups.Multiples)
        )
    }
    gains = {name: multiples for name, multiples in named.items() if name.endswith("_gain")}
    places = {name.rpartition("/")[0] for name in gains}
    assert places == {
        *("stage1/layers/body/conv1", "stage1/layers/body/conv2", "stage2_first/body/conv2")
    }
    assert all(multiples.decay == 0 for multiples in gains.values())
    assert all(named[f"{place}/kernel"].decay == 1 for place in places)


@pytest.mark.parametrize(
    "argument,start,says",
    [
        ("depth=8", "he", "model.dirac=True with skip=A: the identity in a kernel takes the place"),
        ("depth=8,skip=none", "dirac", "have an identity already; use --config.model.kernel_start"),
        ("family=vgg", "he", "; this config has family=vgg and block=single"),
        ("depth=8,block=fixup_basic", "he", "; this config has block=fixup_basic"),
    ],
)
def test_an_identity_without_meaning_is_refused(argument, start, says):
    with pytest.raises(ValueError) as error:
        recipe("digits", argument, True, model__dirac=True, model__kernel_start=start)
    assert says in str(error.value) and "\n" not in str(error.value)
