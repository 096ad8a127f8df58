"""Reconstruction: regression of an input on itself, x -> x, without a data set.

Every example is drawn from the run's seed, the step and the row, x ~ N(0, 1). Identity mappings are
optimal for the layers behind the first one; He et al. 2015 (arXiv:1512.03385, sec. 3.1) suspect
that plain layers have difficulties in approximating them.
"""

import math

import jax
from jaxtyping import Array, Float
from jaxtyping import Key as RandomKey

from resnet_jax.keys import POSITIVE, SIZES, Config, Key
from resnet_jax.tasks.task import Batch, Dataset, Example, Generated, Sums, Task, check_batches


def example(config: Config) -> Example:
    """Return the input's shape; the output has as many numbers."""
    numbers = math.prod(config.data.shape)
    return Example(tuple(config.data.shape), numbers, jax.ShapeDtypeStruct((numbers,), "float32"))


def dataset(config: Config) -> Dataset:
    """Return splits that generate an example from a random key."""
    shape, examples = tuple(config.data.shape), config.data.examples
    check_batches(config, "task=reconstruction", examples)

    def generate(key: RandomKey[Array, ""]) -> tuple[Array, Array]:
        x = jax.random.normal(key, shape)
        return x, x.reshape(-1)

    split = Generated(generate, examples)
    return Dataset(split, split, f"generated {shape} {examples}", chance=lambda: 1.0)


def measure(output: Float[Array, "b n"], batch: Batch) -> Sums:
    """Sum the mean squared errors (the variance of x is 1) over the examples of the mask."""
    losses = jax.numpy.square(output - batch.target.astype(output.dtype)).mean(-1)
    counted = batch.mask.astype(losses.dtype)
    return {"loss": (losses * counted).sum(), "examples": counted.sum()}


TASK = Task(
    "regression of an input on itself, x -> x, on generated numbers",
    build=dataset,
    keys={
        "data.shape": Key((8, 8, 1), SIZES, "shape of an input, as an image's"),
        "data.examples": Key(1_500, POSITIVE, "examples of an epoch, and of the test split"),
    },
    example=example,
    measure=measure,
    evaluation=measure,
)
