"""Lesions, other orders, and paths, against networks changed by hand."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from resnet_jax.analysis import lesions, observe, paths
from resnet_jax.analysis.probe import INPUT
from resnet_jax.models.merges import Gated, add, plain
from resnet_jax.models.residual import Chain, Residual
from tests.analysis.networks import Linear, begin, kernels, scalars, square, stack, total

DEPTH = 3


def by_hand(net_of, variables, x, keep):
    """The loss of the network of those layers alone."""
    layers = jax.tree.map(lambda a: a[jnp.array(keep)], variables)
    return square(net_of(len(keep)).apply(layers, x))


@pytest.mark.parametrize("merge,part", [(add, "body"), (plain, "block")])
def test_a_lesion_is_the_network_without_the_block(x64, merge, part):
    net_of = lambda depth: stack(depth, merge, relu=True)
    net = net_of(DEPTH)
    variables, x = begin(net)
    masks = jnp.array([[1, 1, 1], [1, 0, 1], [0, 1, 0]], float)
    ours = lesions.lesions(net.apply, variables, x, square, masks, part=part)
    expected = [by_hand(net_of, variables, x, keep) for keep in ([0, 1, 2], [0, 2], [1])]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    numbers, ours = lesions.deletions(net.apply, variables, x, square, part=part)
    assert numbers == [0, 1, 2]
    np.testing.assert_allclose(ours[1], expected[1], rtol=1e-12)


def test_without_its_body_a_plain_layer_passes_nothing_on():
    net = stack(DEPTH, plain)
    variables, x = begin(net)
    assert not lesions.deletions(net.apply, variables, x, square)[1].any()


def test_a_block_that_changes_the_shape_is_not_left_out_whole():
    class Wider(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jnp.concatenate((x, x), -1)

    wide = Residual(Wider(), merge=plain)
    net = Chain({"wide": wide, "same": Residual(Linear())})
    variables, x = begin(net)
    numbers, _ = lesions.deletions(net.apply, variables, x, square, part="block")
    assert numbers == [1]
    with pytest.raises(ValueError, match="none can be left out"):
        lesions.deletions(Chain({"wide": wide}).apply, {}, x, square, part="block")
    with pytest.raises(ValueError, match="need 2 columns"):
        lesions.lesions(net.apply, variables, x, square, jnp.ones((1, 3)))


def test_reordered_layers_are_those_of_the_reordered_kernels():
    net = stack(DEPTH)
    variables, x = begin(net)
    same = lesions.permuted(variables, ("stack",), np.arange(DEPTH))
    jax.tree.map(np.testing.assert_array_equal, same, variables)
    other = lesions.permuted(variables, ("stack",), jnp.array([2, 0, 1]))
    np.testing.assert_array_equal(kernels(other), kernels(variables)[np.array([2, 0, 1])])
    for stack_path, depth in ((("stack",), 2), (("other",), DEPTH)):
        with pytest.raises(ValueError, match="no variables of a Stack"):
            lesions.permuted(variables, stack_path, np.arange(depth))


def test_disorder_is_kendalls():
    assert lesions.kendall(np.arange(5)) == 1
    assert lesions.kendall(np.arange(5)[::-1]) == -1
    order = lesions.swapped(jax.random.key(0), 8, 3)
    assert sorted(order.tolist()) == [*range(8)]
    expected = stats.kendalltau(np.arange(8), np.asarray(order)).statistic
    np.testing.assert_allclose(lesions.kendall(order), expected)
    assert (lesions.swapped(jax.random.key(1), 8, 1) != jnp.arange(8)).sum() == 2
    with pytest.raises(ValueError, match="1 layers have no order"):
        lesions.kendall(np.arange(1))


@pytest.mark.parametrize(
    "options", [{}, {"merge": Gated(0.0)}, {"after": nn.relu}, {"before": nn.relu}]
)
def test_the_gradients_of_all_paths_add_up_to_the_gradient(x64, options):
    net = stack(DEPTH, relu=True, **options)
    variables, x = begin(net)
    every = jnp.array([*itertools.product([False, True], repeat=DEPTH)])
    along = paths.path_gradients(net.apply, variables, x, square, every, lambda g: g)
    whole = jax.grad(lambda x: square(net.apply(variables, x)))(x)
    np.testing.assert_allclose(along.sum(0), whole, rtol=1e-10)


def test_a_before_that_is_a_module_serves_both_paths(x64):
    net = Chain({name: Residual(Linear(), before=Linear(True)) for name in ("a", "b")})
    variables, x = begin(net)
    every = jnp.array([*itertools.product([False, True], repeat=2)])
    along = paths.path_gradients(net.apply, variables, x, square, every, lambda g: g)
    whole = jax.grad(lambda x: square(net.apply(variables, x)))(x)
    np.testing.assert_allclose(along.sum(0), whole, rtol=1e-10)


def test_a_path_multiplies_the_weights_of_its_bodies(x64):
    net = stack(DEPTH)
    variables, x = scalars(2.0, -3.0, 5.0)
    every = jnp.array([[False] * 3, [True, False, True], [True] * 3])
    along = paths.path_gradients(net.apply, variables, x, total, every)
    np.testing.assert_allclose(along, [1, 10, 30])
    twin = stack(DEPTH, plain)
    along = paths.path_gradients(twin.apply, variables, x, total, every)
    np.testing.assert_allclose(along, [0, 0, 30])
    taps = observe.gradients_at(net.apply, variables, x, total, INPUT)
    np.testing.assert_allclose(taps["stack", "layers"].ravel(), [3 * -2 * 6, -2 * 6, 6])
    with pytest.raises(ValueError, match="need 3 columns"):
        paths.path_gradients(net.apply, variables, x, total, every[:, 1:])


def test_lengths_of_paths_are_binomial():
    np.testing.assert_allclose(paths.path_lengths(3), np.array([1, 3, 3, 1]) / 8)
    chosen = paths.random_paths(jax.random.key(0), 6, 2, 50)
    assert chosen.shape == (50, 6) and (chosen.sum(1) == 2).all()
    assert chosen.any(0).all()
    np.testing.assert_allclose(paths.contributions(np.array([4, 2, 1])), np.array([4, 4, 1]) / 9)
    with pytest.raises(ValueError, match="length 7 through 6"):
        paths.random_paths(jax.random.key(0), 6, 7, 1)
