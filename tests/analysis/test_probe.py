"""The probe sees every block in its order, whether it stands in a Stack or not."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close, assert_trees_all_equal

from resnet_jax.analysis import lesions, norms, observe, paths
from resnet_jax.analysis.probe import BODY, INPUT, OUTPUT
from resnet_jax.models.residual import Chain, Residual, Stack
from tests.analysis.networks import Linear, begin, kernels, square, stack

DEPTH = 3


def equal_chain(variables):
    """A Chain of the layers of a `stack`, and its variables."""
    names = [f"layer{i}" for i in range(DEPTH)]
    net = Chain({name: Residual(Linear()) for name in names})
    params = {name: {"body": {"kernel": kernels(variables)[i]}} for i, name in enumerate(names)}
    return net, {"params": params}


def test_a_stack_and_the_chain_of_its_layers_give_the_same_vectors(x64):
    net = stack(DEPTH)
    variables, x = begin(net)

    def vectors(net, variables):
        return (
            norms.forward_norms(net.apply, variables, x),
            norms.responses(net.apply, variables, x),
            norms.gradient_norms(net.apply, variables, x, square),
            norms.parameter_gradient_norms(net.apply, variables, x, square),
        )

    ours = vectors(net, variables)
    assert [len(vector) for vector in ours] == [DEPTH] * 4
    assert_trees_all_close(ours, vectors(*equal_chain(variables)), rtol=1e-12)


def test_gradients_of_taps_are_those_of_an_explicit_input(x64):
    net = stack(DEPTH, relu=True)
    variables, x = begin(net)
    seen = observe.blocks_of(net.apply, variables, x)
    taps = observe.gradients_at(net.apply, variables, x, square, INPUT)
    taps = seen.stack(taps)
    for l in range(DEPTH):
        rest = lambda x, l=l: square(by_hand(kernels(variables)[l:], x))
        before = by_hand(kernels(variables)[:l], x)
        np.testing.assert_allclose(taps[l], jax.grad(rest)(before), rtol=1e-12)
    sizes = norms.gradient_norms(net.apply, variables, x, square)
    np.testing.assert_allclose(sizes, jnp.linalg.norm(taps.reshape(DEPTH, -1), axis=1))


def by_hand(weights, x):
    for w in weights:
        x = x + nn.relu(x) @ w
    return x


def test_values_are_those_of_the_points_and_the_network_is_not_changed(x64):
    net = stack(DEPTH)
    variables, x = begin(net)
    see = {point: lambda a: a for point in (INPUT, BODY, OUTPUT)}
    y, seen = observe.observe(net.apply, variables, x, see)
    found = observe.blocks_of(net.apply, variables, x)
    inputs, bodies, outputs = (found.stack(seen[point]) for point in (INPUT, BODY, OUTPUT))
    assert_trees_all_equal((inputs[0], outputs[-1], outputs[-1]), (x, y, net.apply(variables, x)))
    assert_trees_all_equal((inputs[1:], inputs + bodies), (outputs[:-1], outputs))


def test_blocks_of_nested_stacks_stand_in_the_order_of_the_forward_pass():
    two = Chain({"a": Residual(Linear()), "b": Stack(Residual(Linear()), 2)})
    net = Chain({"first": Residual(Linear()), "layers": Stack(two, 2), "last": Residual(Linear())})
    variables, x = begin(net)
    found = observe.blocks_of(net.apply, variables, x)
    middle = [f"layers[{i}]/{name}" for i in range(2) for name in ("a", "b[0]", "b[1]")]
    assert found.names == ("first", *middle, "last")
    assert norms.layer_names(net.apply, variables, x)[2] == "layers[0]/b[0]/body"
    see = {point: lambda a: a for point in (INPUT, OUTPUT)}
    _, seen = observe.observe(net.apply, variables, x, see)
    inputs, outputs = found.stack(seen[INPUT]), found.stack(seen[OUTPUT])
    assert_trees_all_equal(inputs[1:], outputs[:-1])
    numbers = jnp.arange(len(found))
    collection = found.collection(body=numbers)
    assert_trees_all_equal(found.stack(found.read(collection, "body")), numbers)


def test_layers_of_a_tied_stack_share_the_gradient_of_a_kernel():
    net = Chain({"stack": Stack(Residual(Linear()), DEPTH, tied=True)})
    variables, x = begin(net)
    assert norms.layer_names(net.apply, variables, x) == ("stack/layers/body",)
    ours = norms.parameter_gradient_norms(net.apply, variables, x, square)
    grads = jax.grad(lambda v: square(net.apply(v, x)))(variables)
    np.testing.assert_allclose(ours, [jnp.linalg.norm(jax.tree.leaves(grads)[0])], rtol=1e-6)
    assert norms.forward_norms(net.apply, variables, x).shape == (DEPTH,)


@pytest.mark.parametrize("loop", [{"remat": "block"}, {"remat": "sqrt"}, {"unroll": 99}])
def test_the_vectors_of_a_stack_do_not_depend_on_how_it_runs(x64, loop):
    net, other = stack(DEPTH), stack(DEPTH, loop=loop)
    variables, x = begin(net)

    @jax.jit
    def both(v):
        on = jnp.ones((1, DEPTH), bool)
        vectors = lambda net: (
            norms.gradient_norms(net.apply, v, x, square),
            paths.path_gradients(net.apply, v, x, square, on),
            norms.forward_norms(net.apply, v, x),
        )
        return vectors(net), vectors(other)

    assert_trees_all_close(*both(variables), rtol=1e-12)


def test_another_mask_compiles_nothing_again():
    net, traces = stack(DEPTH), []
    variables, x = begin(net)

    @jax.jit
    def both(masks):
        traces.append(masks)
        return lesions.lesions(net.apply, variables, x, square, masks)

    assert both(jnp.ones((2, DEPTH)))[0] != both(jnp.zeros((2, DEPTH)))[0]
    assert len(traces) == 1


def test_the_program_of_a_deep_stack_is_as_long_as_that_of_a_shallow_one():
    def length(depth):
        net = stack(depth)
        variables, x = begin(net)
        measure = lambda v: norms.gradient_norms(net.apply, v, x, square)
        return count(jax.make_jaxpr(measure)(variables).jaxpr)

    assert length(3) == length(50)


def count(jaxpr):
    inner = [p for e in jaxpr.eqns for p in jax.tree.leaves(list(e.params.values()))]
    return len(jaxpr.eqns) + sum(count(getattr(p, "jaxpr", p)) for p in inner if hasattr(p, "eqns"))


def test_what_cannot_be_seen_is_refused():
    x = jnp.ones((2, 3))
    net = Chain({"block": Residual(nn.relu)})
    with pytest.raises(ValueError, match="body of block block is a function"):
        norms.responses(net.apply, {}, x)
    assert norms.forward_norms(net.apply, {}, x) == 2
    net = Chain({"body": Linear()})
    with pytest.raises(ValueError, match="no module of the network is a .*Residual"):
        norms.forward_norms(net.apply, net.init(jax.random.key(0), x), x)
    net = stack(DEPTH)
    variables, x = begin(net)
    with pytest.raises(ValueError, match="2 numbers for 3 blocks"):
        observe.blocks_of(net.apply, variables, x).collection(body=[1.0, 2.0])


@pytest.mark.parametrize("kind", ["std", "rms", "l2"])
def test_sizes_are_those_of_numpy(kind):
    a = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    expected = {"std": a.std(), "rms": np.sqrt((a**2).mean()), "l2": np.linalg.norm(a)}[kind]
    np.testing.assert_allclose(norms.size(jnp.asarray(a), kind), expected, rtol=1e-6)
