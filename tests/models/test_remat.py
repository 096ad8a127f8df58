"""What a Stack stores for its gradient: each policy changes the memory and no number."""

from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from chex import assert_trees_all_close

from resnet_jax.models import measure, residual
from resnet_jax.models.merges import Scaled
from resnet_jax.models.norm import BatchNorm
from resnet_jax.models.residual import Remat, Residual, Stack

POLICIES = get_args(Remat)


class Noise(nn.Module):
    """A body that depends on its input only through a mask that it draws."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.normal(), (x.shape[-1],))
        mask = jax.random.bernoulli(self.make_rng("drop"), 0.5, x.shape)
        return jnp.where(mask, x * scale.reshape(1, -1), 0)


class Everything(nn.Module):
    """A block that draws, learns, sows, keeps statistics and has a per-layer input."""

    inputs = ("weight",)

    @nn.compact
    def __call__(self, x, weight):
        f = BatchNorm()(nn.Dense(3, param_dtype=x.dtype)(x)) + Noise()(x)
        self.sow("intermediates", "f", f)
        return Scaled(0.5, 0.25, learned=True)(x, weight * f, x)


# One segment; segments with a layer left over; equal segments that store their blocks' inputs.
@pytest.mark.parametrize("depth,whole", [(1, 6), (7, 6), (9, 0)])
def test_segments_change_nothing_that_comes_out(monkeypatch, x64, depth, whole):
    monkeypatch.setattr(residual, "WHOLE", whole)
    x, weights = jnp.sin(jnp.arange(12.0).reshape(4, 3)), jnp.linspace(1, 2, depth)
    keys = {"params": jax.random.key(0), "drop": jax.random.key(1)}
    variables = jax.jit(Stack(Everything(), depth).init)(keys, x, weight=weights)

    def everything(remat):
        stack = Stack(Everything(), depth, remat=remat, outputs=lambda x: {"mean": x.mean(0)})

        def loss(params, x, weights):
            (y, outputs), changed = stack.apply(
                {**variables, "params": params},
                x,
                weight=weights,
                mutable=["batch_stats", "gains", "intermediates"],
                rngs={"drop": jax.random.key(2)},
            )
            reported = jax.tree.leaves((changed, outputs))
            assert all(a.shape[0] == depth for a in reported)
            return jnp.sin(y).sum() + sum(jnp.cos(a).sum() for a in reported), (y, outputs, changed)

        return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(variables["params"], x, weights)

    assert_trees_all_close(everything("none"), everything("sqrt"), atol=1e-12)


def test_segments_of_a_tied_stack_add_their_gradients_up():
    x = jnp.ones((2, 5))
    tied = lambda **options: Stack(Residual(nn.Dense(5)), 7, tied=True, **options)
    variables = tied().init(jax.random.key(0), x)
    gradient = lambda stack: jax.grad(lambda v: jnp.sin(stack.apply(v, x)).sum())(variables)
    assert_trees_all_close(gradient(tied(remat="sqrt")), gradient(tied()), rtol=1e-4)


def wide_gradient(remat, depth, width, batch):
    """The gradient of a deep dense stack, its parameters, and its input."""
    stack = Stack(Residual(nn.Dense(width), after=jnp.tanh), depth, remat=remat)
    x = jax.ShapeDtypeStruct((batch, width), jnp.float32)
    variables = jax.eval_shape(stack.init, jax.random.key(0), x)
    return lambda v, x: stack.apply(v, x).sum(), variables, x


@pytest.mark.parametrize("depth,segments", [(16, 4), (64, 8), (70, 7), (67, 6)])
def test_a_policy_keeps_its_inputs_and_no_more(depth, segments):
    held = {remat: measure.held_bytes(*wide_gradient(remat, depth, 8, 100)) for remat in POLICIES}
    image = 100 * 8 * 4
    left = depth - segments * (depth // segments)
    assert held["block"] == depth * image
    # Each segment also stores its index. The layers left over store what a segment does while the
    # backward pass recomputes it.
    rest = held["sqrt"] - segments * (image + 4)
    assert left * image <= rest < (left + 1) * image, held
    assert held["none"] >= 2 * held["block"]


def temporary_bytes(remat, depth, width, batch):
    loss, *inputs = wide_gradient(remat, depth, width, batch)
    used = jax.jit(jax.grad(loss)).lower(*inputs).compile().memory_analysis()
    assert used is not None
    return used.temp_size_in_bytes


def test_the_compiled_gradient_takes_less_with_every_policy():
    none, block, by_segments = (temporary_bytes(remat, 101, 4, 1000) for remat in POLICIES)
    image = 1000 * 4 * 4
    assert none > 1.5 * block
    # 'sqrt' stores the inputs of 10 segments, the inputs of the 10 blocks of one segment, and the
    # activations of one block.
    assert block > 101 * image > 30 * image > by_segments


def test_segments_copy_no_parameters():
    depth, width = 101, 64
    kernels = depth * width * width * 4
    assert temporary_bytes("sqrt", depth, width, 1) < kernels / 2
