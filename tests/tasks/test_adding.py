"""The adding problem: what its sequences hold, and the loss of the best constant."""

import jax
import jax.numpy as jnp
import pytest

from resnet_jax.tasks import adding
from resnet_jax.tasks.task import Batch
from tests.recipes import recipe

STEPS = 9


def config(shape=(STEPS, 2)):
    return recipe("adding", "", data__shape=shape)


def examples(count):
    generate = adding.dataset(config()).train.generate
    return jax.vmap(generate)(jax.random.split(jax.random.key(0), count))


def test_a_mark_in_each_half_and_their_sum():
    x, target = examples(500)
    numbers, marks = x[..., 0], x[..., 1]
    assert x.shape == (500, STEPS, 2) and target.shape == (500, 1)
    assert set(marks.reshape(-1).tolist()) == {0.0, 1.0}
    assert (marks[:, : STEPS // 2].sum(1) == 1).all() and (marks[:, STEPS // 2 :].sum(1) == 1).all()
    assert (marks.sum(0) > 0).all()  # every step is marked in some sequence
    assert jnp.allclose((numbers * marks).sum(1), target[:, 0], atol=1e-6)
    assert numbers.min() >= 0 and numbers.max() < 1 and abs(numbers.mean() - 0.5) < 0.02


def test_the_best_constant_has_the_loss_of_chance():
    x, target = examples(5000)
    rows = jnp.arange(5000)
    sums = adding.TASK.measure(jnp.ones_like(target), Batch(x, target, rows, rows >= 0))
    assert sums["loss"] / sums["examples"] == pytest.approx(adding.CHANCE, abs=0.01)
    assert adding.dataset(config()).chance() == adding.CHANCE


@pytest.mark.parametrize("shape", [(1, 2), (9, 3), (9,), (3, 3, 2)])
def test_a_shape_that_is_no_sequence_is_refused(shape):
    with pytest.raises(ValueError, match=r"is no sequence of the adding problem; .*\(100, 2\)"):
        adding.dataset(config(shape))
