import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax.data import order


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    first_epoch=st.integers(0, 10**6),
    n=st.integers(1, 40),
    b=st.integers(1, 60),
)
def test_every_epoch_shows_every_example_exactly_once(seed, first_epoch, n, b):
    start = first_epoch * n
    steps = range(start // b, (start + 3 * n) // b + 1)
    stream = np.concatenate([order.batch_indices(seed, s, b, n) for s in steps])
    epochs = stream[start - steps[0] * b :][: 3 * n].reshape(3, n)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(n), (3, 1)))


def test_the_order_does_not_depend_on_the_batch_size():
    small = np.concatenate([order.batch_indices(3, s, 5, 17) for s in range(24)])
    large = np.concatenate([order.batch_indices(3, s, 30, 17) for s in range(4)])
    np.testing.assert_array_equal(small, large)


@pytest.mark.parametrize("step", [0, 7, 10_000_000])
def test_a_chunk_is_its_steps(step):
    chunk = order.chunk_indices(1, step, 4, 6, 13)
    assert chunk.shape == (4, 6) and chunk.dtype == np.int32
    for i in range(4):
        np.testing.assert_array_equal(chunk[i], order.batch_indices(1, step + i, 6, 13))


def test_a_step_does_not_depend_on_what_was_asked_before():
    ask = lambda step: order.batch_indices(0, step, 128, 50_000)
    far = ask(10_000_000)
    for step in range(0, 4000, 391):
        ask(step)
    np.testing.assert_array_equal(ask(10_000_000), far)


def test_seeds_and_epochs_have_orders_of_their_own():
    epochs = {order.batch_indices(s, e, 30, 30).tobytes() for s in range(5) for e in range(5)}
    assert len(epochs) == 25


def test_every_example_comes_equally_often_at_every_place():
    epochs = order.chunk_indices(0, 0, 4000, 5, 5)
    counts = np.stack([np.bincount(place, minlength=5) for place in epochs.T])
    # Each count has mean 800 and standard deviation 25.
    assert abs(counts - 800).max() < 125


def test_the_order_is_the_same_for_ever():
    # If these numbers change, no run of an earlier version can be resumed or repeated.
    golden = [[5, 1, 4, 2], [0, 3, 6, 1], [4, 2, 6, 5]]
    np.testing.assert_array_equal(order.chunk_indices(2015, 0, 3, 4, 7), golden)


@pytest.mark.parametrize(("n", "b"), [(10, 4), (8, 4), (3, 8), (1, 1)])
def test_evaluation_covers_every_example_exactly_once(n, b):
    indices, mask = order.eval_indices(n, b)
    assert indices.shape == mask.shape and indices.shape[1] == b
    np.testing.assert_array_equal(indices[mask], np.arange(n))
    assert (indices[~mask] == 0).all() and (~mask).sum() < b
