"""Per-layer inputs reach the parts that declare them, and mistakes are named in one line."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from resnet_jax.models.inputs import declared
from resnet_jax.models.merges import add
from resnet_jax.models.residual import Chain, Residual, Stack
from resnet_jax.models.stochastic_depth import Dropped

X = jnp.zeros((2, 5))


def weigh(s, f, z, weight):
    return s + weight * f


weigh.inputs = ("weight",)


class Shift(nn.Module):
    """A part with one input, which has a default."""

    inputs = ("shift",)

    def __call__(self, x, shift=1.0):
        return x + shift


class Two(nn.Module):
    """A body with two inputs, one of them without a default."""

    inputs = ("weight", "shift")

    def __call__(self, x, weight, shift=0.0):
        return weight * jnp.ones_like(x) + shift


def run(net, **inputs):
    """Initialise and apply the network, and return the first element of the result."""
    variables = net.init(jax.random.key(0), X, **inputs)
    return net.apply(variables, X, **inputs)[0, 0]


def test_functions_and_modules_declare_their_inputs():
    assert declared(add) == declared(jnp.sin) == declared(nn.Dense(3)) == ()
    assert declared(weigh) == ("weight",)
    assert declared(functools.partial(weigh, weight=2.0)) == ()
    assert declared(Dropped()) == ("survival",)
    block = Residual(Two(), merge=weigh, before=Shift(), after=jnp.sin)
    assert declared(block) == ("shift", "weight")
    chain = Chain({"a": Residual(jnp.sin), "b": Residual(jnp.sin, merge=weigh), "c": block})
    assert declared(chain) == declared(Stack(chain, 2)) == ("weight", "shift")


@pytest.mark.parametrize("part", ["body", "skip", "before", "after"])
def test_a_residual_hands_an_input_to_each_part_that_declares_it(part):
    block = Residual(**{"body": jnp.zeros_like, part: Shift()})
    assert run(block, shift=3.0) == 3 and run(block) == 1


def test_a_chain_hands_an_input_to_the_blocks_that_declare_it_and_to_no_others():
    net = Chain({"stem": nn.Dense(5), "a": Residual(jnp.ones_like, merge=weigh), "b": Shift()})
    assert run(net, weight=10.0) == 11 and run(net, weight=10.0, shift=5.0) == 15


@pytest.mark.parametrize("options", [{}, {"remat": "block"}, {"remat": "sqrt"}, {"unroll": 9}])
def test_a_stack_gives_each_layer_its_own_value(options):
    block = Residual(jnp.ones_like, merge=weigh)
    weights = (1.0, 10.0, 100.0)
    assert run(Stack(block, 3, **options), weight=jnp.array(weights)) == 111
    fixed = Stack(block, 3, per_layer={"weight": weights}, **options)
    assert run(fixed) == 111
    assert run(fixed, weight=jnp.array([2.0, 0.0, 0.0])) == 2


def test_inputs_may_be_trees_and_reach_several_parts():
    def weigh_both(s, f, z, weight):
        return weight["s"] * s + weight["f"] * f

    weigh_both.inputs = ("weight",)
    layer = Chain({name: Residual(jnp.ones_like, merge=weigh_both) for name in ("a", "b")})
    weight = {"s": jnp.array([1.0, 2.0]), "f": jnp.array([1.0, 10.0])}
    assert run(Stack(layer, 2), weight=weight) == (2 * 2 + 10) * 2 + 10


def test_a_stack_in_a_stack_hands_inputs_on():
    inner = Stack(Residual(jnp.ones_like, merge=weigh), 2)
    assert run(Stack(inner, 3), weight=jnp.arange(6.0).reshape(3, 2)) == 15


def test_modules_with_per_layer_values_are_values():
    make = lambda p: Stack(Chain({"a": Residual(jnp.sin, merge=Dropped())}), 2, per_layer=p)
    one, same, other = (make({"survival": p}) for p in ((1.0, 0.5), (1.0, 0.5), (1.0, 0.4)))
    assert one == same == same.clone() and one != other
    assert hash(one) == hash(same) == hash(same.clone())
    assert one.copy(per_layer={"survival": (1.0, 0.4)}) == other


MISTAKES = [
    (Stack(Residual(jnp.sin), 2), {"p": jnp.ones(2)}, "no part .* declares the input 'p'.*: none"),
    (
        Stack(Residual(jnp.sin, merge=Dropped()), 2, per_layer={"survivals": (1.0, 1.0)}),
        {},
        r"this Stack declares the input 'survivals'; its inputs: 'survival' \(.* by Dropped\)",
    ),
    (Residual(jnp.sin, merge=weigh), {"weights": 1.0}, r"this Residual .*'weights'.* by weigh\)"),
    (Chain({"a": Shift()}), {"shifts": 1.0}, r"this Chain .*'shifts'.* by Shift\)"),
    (Stack(Residual(jnp.sin, merge=weigh), 2), {}, "weigh declares the input 'weight' and has no "),
    (Stack(Two(), 2), {"shift": jnp.ones(2)}, "Two declares the input 'weight' and has no default"),
    (Chain({"a": Residual(Two())}), {}, "Two declares the input 'weight' and has no default"),
    (
        Stack(Residual(Two(), merge=weigh), 2, per_layer={"weight": (1.0, 1.0, 1.0)}),
        {},
        r"'weight' \(declared by Two, weigh\) has shape \(3,\) in a Stack of 2 layers",
    ),
    (
        Stack(Shift(), 3),
        {"shift": jnp.ones((2, 3))},
        r"by Shift\) has shape \(2, 3\) in a Stack of",
    ),
    (Stack(Shift(), 3), {"shift": jnp.float32(1)}, r"by Shift\) has shape \(\) in a Stack of 3"),
]


@pytest.mark.parametrize("net,inputs,message", MISTAKES)
def test_mistakes_are_named_in_one_line(net, inputs, message):
    for call in (net.init, lambda _, x, **inputs: net.apply({}, x, **inputs)):
        with pytest.raises(ValueError, match=message) as error:
            call(jax.random.key(0), X, **inputs)
        assert "\n" not in str(error.value)
