"""The task x -> x: its examples are drawn from a key, and its loss is the mean squared error."""

import jax
import jax.numpy as jnp
import pytest

from resnet_jax.tasks import reconstruction
from resnet_jax.tasks.task import Batch
from tests.recipes import recipe

CONFIG = recipe("reconstruction", "depth=4")


def examples(count):
    generate = reconstruction.dataset(CONFIG).train.generate
    return jax.vmap(generate)(jax.random.split(jax.random.key(0), count))


def test_the_target_is_the_input_which_is_drawn_from_a_standard_normal():
    inputs, targets = examples(400)
    assert inputs.shape == (400, *CONFIG.data.shape)
    assert (targets == inputs.reshape(400, -1)).all()
    assert abs(inputs.mean()) < 0.05 and abs(inputs.std() - 1) < 0.05


def test_the_identity_has_loss_0_and_the_best_constant_has_the_loss_of_chance():
    inputs, targets = examples(400)
    batch = Batch(inputs, targets, jnp.arange(400), jnp.arange(400) < 300)
    exact = reconstruction.measure(targets, batch)
    assert exact["loss"] == 0 and exact["examples"] == 300
    constant = reconstruction.measure(jnp.zeros_like(targets), batch)
    chance = reconstruction.dataset(CONFIG).chance()
    assert constant["loss"] / constant["examples"] == pytest.approx(chance, abs=0.05)
