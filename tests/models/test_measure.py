"""Counts of networks whose input is not one array."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models import measure
from resnet_jax.models.merges import plain
from resnet_jax.models.residual import Chain, Residual, Stack
from resnet_jax.models.stochastic_depth import Dropped


class Join(nn.Module):
    """Embed the tokens of a batch and add its other features."""

    @nn.compact
    def __call__(self, batch):
        return nn.Embed(10, 4)(batch["token"]) + nn.Dense(4)(batch["features"])


def test_the_input_may_be_any_tree():
    block = Residual(nn.Dense(4), merge=Dropped())
    stack = Stack(block, 5, per_layer={"survival": (0.5,) * 5})
    net = Chain({"join": Join(), "stack": stack, "plain": Residual(jnp.sin, merge=plain)})
    batch = {
        "token": jax.ShapeDtypeStruct((2, 3), jnp.int32),
        "features": jax.ShapeDtypeStruct((2, 3, 7), jnp.float32),
    }
    counts, y = measure.count(net, batch)
    assert y.shape == (2, 3, 4)
    assert counts == measure.Counts(
        layers=1 + 5,
        blocks=5 + 1,
        identity_skips=5,
        parameters=10 * 4 + (7 * 4 + 4) + 5 * (4 * 4 + 4),
        macs=2 * 3 * (7 * 4 + 5 * 4 * 4),
    )


def test_a_carry_may_be_a_tree():
    class Cell(nn.Module):
        @nn.compact
        def __call__(self, carry):
            return {"c": carry["c"] + carry["h"], "h": nn.Dense(3)(carry["h"])}

    carry = dict.fromkeys(("c", "h"), jax.ShapeDtypeStruct((2, 3), jnp.float32))
    net = Stack(Cell(), 4, tied=True, outputs=lambda carry: carry["h"])
    counts, (last, outputs) = measure.count(net, carry)
    assert last["c"].shape == (2, 3) and outputs.shape == (4, 2, 3)
    assert (counts.layers, counts.parameters, counts.macs) == (4, 12, 4 * 2 * 9)
