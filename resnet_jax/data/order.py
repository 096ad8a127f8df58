"""Which examples a step sees: a pure function of (seed, step), on any number of devices."""

import functools

import numpy as np
from jaxtyping import Bool, Int32


def batch_indices(
    seed: int, step: int, batch_size: int, num_examples: int
) -> Int32[np.ndarray, "b"]:
    """The examples of one step.

    Row i of step s is position p = s * b + i of an endless sequence of shuffled epochs of n
    examples: entry p mod n of the permutation of epoch p // n. Every example is seen once an
    epoch, and a batch may lie in two epochs.
    """
    return chunk_indices(seed, step, 1, batch_size, num_examples)[0]


def chunk_indices(
    seed: int, step: int, num_steps: int, batch_size: int, num_examples: int
) -> Int32[np.ndarray, "k b"]:
    """The examples of `num_steps` steps from `step` on, a row a step."""
    first, end = step * batch_size, (step + num_steps) * batch_size
    epochs = range(first // num_examples, -(-end // num_examples))
    parts = [
        _permutation(seed, epoch, num_examples)[
            max(first - epoch * num_examples, 0) : end - epoch * num_examples
        ]
        for epoch in epochs
    ]
    return np.concatenate(parts).reshape(num_steps, batch_size)


def eval_indices(
    num_examples: int, batch_size: int
) -> tuple[Int32[np.ndarray, "m b"], Bool[np.ndarray, "m b"]]:
    """Every example once, in order, and a mask that is False where the last batch is padded."""
    batches = -(-num_examples // batch_size)
    position = np.arange(batches * batch_size, dtype=np.int32).reshape(batches, batch_size)
    mask = position < num_examples
    return np.where(mask, position, np.int32(0)), mask


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_examples: int) -> Int32[np.ndarray, "n"]:
    # NumPy promises raw bit streams for ever (NEP 19), and Generator.permutation for no release.
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(num_examples)
    order = np.argsort(bits, kind="stable").astype(np.int32)
    order.flags.writeable = False
    return order
