"""The adding problem: remember two numbers of a long sequence, and return their sum.

Every step has a number, uniform in [0, 1), and a mark, which is 1 in two steps and 0 in all others:
one of the first half of the sequence, and one of the second. The target is the sum of the two
marked numbers. The best constant prediction, 1, has a mean squared error of 1/6 = 0.167.

Source, from memory: Hochreiter & Schmidhuber 1997, experiment 4, in the form of Le et al. 2015
(arXiv:1504.00941). Differs: Hochreiter & Schmidhuber draw from [-1, 1], place both marks in the
first half, have sequences of several lengths, and scale the target.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import Key as RandomKey

from resnet_jax.keys import POSITIVE, SIZES, Config, Key
from resnet_jax.tasks import reconstruction
from resnet_jax.tasks.task import Dataset, Example, Generated, Task, check_batches

CHANCE = 1 / 6


def example(config: Config) -> Example:
    """Return the shape of a sequence; the output is one number."""
    return Example(tuple(config.data.shape), 1, jax.ShapeDtypeStruct((1,), "float32"))


def dataset(config: Config) -> Dataset:
    """Return splits that generate a sequence from a random key.

    Raises: ValueError unless a sequence has two steps or more, of two channels.
    """
    shape, examples = tuple(config.data.shape), config.data.examples
    if len(shape) != 2 or shape[0] < 2 or shape[1] != 2:
        raise ValueError(
            f"data.shape={shape} is no sequence of the adding problem; it has two steps or more of "
            'two channels, such as --config.data.shape="(100, 2)"'
        )
    check_batches(config, "task=adding", examples)
    steps, half = shape[0], shape[0] // 2

    def generate(key: RandomKey[Array, ""]) -> tuple[Float[Array, "t c"], Float[Array, "y"]]:
        of_numbers, of_first, of_second = jax.random.split(key, 3)
        numbers = jax.random.uniform(of_numbers, (steps,))
        places = jnp.stack(
            [
                jax.random.randint(of_first, (), 0, half),
                jax.random.randint(of_second, (), half, steps),
            ]
        )
        marks = jnp.zeros(steps).at[places].set(1.0)
        return jnp.stack([numbers, marks], -1), numbers[places].sum()[None]

    split = Generated(generate, examples)
    return Dataset(split, split, f"adding {shape} {examples}", chance=lambda: CHANCE)


TASK = Task(
    "the sum of the two marked numbers of a sequence, on generated sequences",
    build=dataset,
    keys={
        "data.shape": Key((100, 2), SIZES, "steps of a sequence, and its two channels"),
        "data.examples": Key(2_000, POSITIVE, "examples of an epoch, and of the test split"),
    },
    example=example,
    measure=reconstruction.measure,
    evaluation=reconstruction.measure,
)
