"""The layer that is named is the one that was spoiled."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from resnet_jax.models.conv import Conv
from resnet_jax.models.norm import BatchNorm
from resnet_jax.models.residual import Chain, Stack
from resnet_jax.models.resnet import resnet
from resnet_jax.models.stochastic_depth import Dropped
from resnet_jax.tasks import classification
from resnet_jax.training import diagnosis, feeds, state

SHAPE = (8, 8, 1)
GRADIENT = "the first gradient that was not finite on the way back is that of"


def look(net, spoil=lambda params: params):
    """What is said of a step of a network whose parameters were spoiled."""
    first = state.create(0, net, SHAPE, optax.sgd(0.1))
    first = dataclasses.replace(first, params=spoil(jax.tree.map(np.array, first.params)))
    rng = np.random.default_rng(0)
    source = rng.random((8, *SHAPE), np.float32), np.arange(8, dtype=np.int32) % 4
    order = diagnosis.Order()
    one = functools.partial(
        diagnosis.look,
        apply=net.apply,
        prepare=lambda key, batch: batch,
        measure=classification.measure,
        fetch=feeds.gather,
        axis=None,
        order=order,
    )
    inputs = np.arange(8)[None], np.ones((1, 8), bool)
    return diagnosis.first(jax.device_get(jax.jit(one)(first, source, inputs)), order)


@pytest.fixture(params=["none"])
def net(request):
    conv, norm = functools.partial(Conv, dtype=jnp.float32), BatchNorm
    options = {"num_outputs": 4, "width": 4, "conv": conv, "norm": norm}
    return resnet((5, 5), block="basic", skip="A", remat=request.param, **options)


def kernel(params, *path):
    for name in path:
        params = params[name]
    return params["kernel"]


def test_if_all_is_finite_nothing_is_named(net):
    assert look(net) == ""


@pytest.mark.parametrize("net,layer", [("none", 4), ("block", 0), ("sqrt", 2)], indirect=["net"])
def test_a_layer_of_a_stack_is_named_by_its_number(net, layer):
    def spoil(params):
        kernel(params, "stage1", "layers", "body", "conv2")[layer] = 3e38
        kernel(params, "stage2", "layers", "body", "conv1")[...] *= 1e38  # later, and not named
        return params

    says = look(net, spoil)
    assert says.endswith(f"output or statistics were not finite is stage1[{layer}]/body/conv2")


def test_a_layer_outside_of_stacks_is_named(net):
    def spoil(params):
        kernel(params, "stage2_first", "body", "conv1")[...] = 3e38
        kernel(params, "stage2", "layers", "body", "conv1")[...] *= 1e38
        return params

    assert look(net, spoil).endswith("not finite is stage2_first/body/conv1")


@pytest.mark.parametrize("survival,named", [(1e-9, ""), (1.0, "stage1[2]/body/conv1")])
def test_a_layer_whose_body_is_dropped_is_not_named(survival, named):
    options = {"num_outputs": 4, "width": 4, "merge": Dropped()}
    rule = {"survival": (1.0, 1.0, survival)}
    net = resnet((3,), block="basic", skip="A", per_layer=rule, **options)

    def spoil(params):
        kernel(params, "stage1", "layers", "body", "conv1")[2] = 3e38
        return params

    says = look(net, spoil)
    assert says.endswith(f"not finite is {named}") if named else says == ""


def test_a_parameter_that_was_spoiled_before_is_named(net):
    def spoil(params):
        kernel(params, "stage2", "layers", "body", "conv1")[3, 0, 0, 0, 0] = np.nan
        return params

    says = look(net, spoil)
    assert says == "the parameter stage2[3]/body/conv1/kernel was not finite before it"


def test_a_stack_that_is_called_layers_is_named_as_any_other():
    def spoil(params):
        params["layers"]["layers"]["Dense_0"]["kernel"][2] = np.nan
        return params

    net = Chain({"flat": Flat(), "layers": Stack(Layer(), 4), "end": Bare()})
    assert look(net, spoil) == "the parameter layers[2]/Dense_0/kernel was not finite before it"


def test_a_layer_of_a_stack_in_a_stack_has_two_numbers():
    def spoil(params):
        params["outer"]["layers"]["inner"]["layers"]["Dense_0"]["bias"][1, 2] = np.nan
        return params

    inner = Chain({"inner": Stack(Layer(), 3)})
    net = Chain({"flat": Flat(), "outer": Stack(inner, 2), "end": Bare()})
    name = "outer[1]/inner[2]/Dense_0/bias"
    assert look(net, spoil) == f"the parameter {name} was not finite before it"


class Root(nn.Module):
    """x -> sqrt(0 x): finite, with a gradient that is not."""

    @nn.compact
    def __call__(self, x):
        return jnp.sqrt(0 * nn.Dense(4)(x))


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(x.shape[-1])(x)


class Flat(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x.reshape(len(x), -1)


@pytest.mark.parametrize("tied", [False, True])
def test_a_gradient_is_named_where_it_is_met_first_on_the_way_back(tied):
    blocks = {"flat": Flat(), "stack": Stack(Layer(), 4, tied=tied), "root": Root()}
    says = look(Chain(blocks))
    assert says == f"{GRADIENT} root/Dense_0/kernel"
    del blocks["root"]
    blocks["end"] = Bare()
    name = "stack/layers/Dense_0/kernel" if tied else "stack[3]/Dense_0/kernel"
    says = look(Chain(blocks))
    assert says == f"{GRADIENT} {name}"


class Bare(nn.Module):
    """The same without parameters of its own."""

    @nn.compact
    def __call__(self, x):
        return jnp.sqrt(0 * x[:, :4])
