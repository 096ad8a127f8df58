"""The order of examples: the examples of a step are a pure function of (seed, step)."""

import functools

import numpy as np
from jaxtyping import Bool, Int32


def batch_indices(
    seed: int, step: int, batch_size: int, num_examples: int
) -> Int32[np.ndarray, "b"]:
    """The indices of the examples of a step.

    Consider an endless sequence of shuffled epochs of n examples each. Row i of step s takes
    position p = s * b + i of that sequence, which is entry p mod n of the permutation of epoch
    p // n. Every epoch therefore shows every example exactly once, and a batch may lie in two
    epochs. The number of devices has no influence.
    """
    return chunk_indices(seed, step, 1, batch_size, num_examples)[0]


def chunk_indices(
    seed: int, step: int, num_steps: int, batch_size: int, num_examples: int
) -> Int32[np.ndarray, "k b"]:
    """The `batch_indices` of `num_steps` consecutive steps that begin with `step`, a row a step."""
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
    """(indices, mask): every example once, in order; the mask is False in the last batch's padding.

    Padded entries have index 0.
    """
    batches = -(-num_examples // batch_size)
    position = np.arange(batches * batch_size, dtype=np.int32).reshape(batches, batch_size)
    mask = position < num_examples
    return np.where(mask, position, np.int32(0)), mask


def held_out(
    seed: int, count: int, num_examples: int
) -> tuple[Int32[np.ndarray, "k"], Int32[np.ndarray, "n"]]:
    """The examples that stay, and `count` others, chosen by a permutation that the seed fixes.

    Both keep the data set's order.
    """
    # No epoch of a run has this number.
    order = _permutation(seed, 2**64 - 1, num_examples)
    return np.sort(order[count:]), np.sort(order[:count])


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, num_examples: int) -> Int32[np.ndarray, "n"]:
    # NumPy keeps raw bit streams the same in all versions (NEP 19), but not Generator.permutation.
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(num_examples)
    order = np.argsort(bits, kind="stable").astype(np.int32)
    order.flags.writeable = False
    return order
