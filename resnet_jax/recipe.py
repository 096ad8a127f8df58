"""Where a recipe comes from, and which networks it is for.

A config file may say so in `SOURCE`. Training another network by it is then refused, and
docs/recipes.md is made of the SOURCEs of configs/ (scripts/recipes.py). A file whose paper searched
for some of its values names the ranges in `SEARCH`, {key: what is drawn}; the command
`experiments.search` draws from them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from resnet_jax.keys import Config


class Uniform(NamedTuple):
    """A number that a search draws between `low` and `high`."""

    low: float
    high: float

    def draw(self, random: np.random.Generator) -> float:
        """Return a number."""
        return float(random.uniform(self.low, self.high))


class LogUniform(NamedTuple):
    """A number between `low` and `high` whose logarithm is uniform."""

    low: float
    high: float

    def draw(self, random: np.random.Generator) -> float:
        """Return a number."""
        return math.exp(random.uniform(math.log(self.low), math.log(self.high)))


class OneOf(NamedTuple):
    """One of these values, each as likely as the others."""

    values: tuple[object, ...]

    def draw(self, random: np.random.Generator) -> object:
        """Return a value."""
        return self.values[int(random.integers(len(self.values)))]


class Published(NamedTuple):
    """An error that the source gives.

    Attributes:
        argument: the argument of the config file that chooses the network.
        error: the error in percent, or another number in words.
        protocol: how the error was measured.
        changes: what the command line must change beside the argument: {key: value}.
    """

    argument: str
    error: str
    protocol: str
    changes: Mapping[str, object] = MappingProxyType({})

    def words(self) -> list[str]:
        """Return the words of the command line that make the changes."""
        words = []
        for key, value in self.changes.items():
            if isinstance(value, bool):
                words.append(f"--{'' if value else 'no'}config.{key}")
            else:
                words.append(f"--config.{key}={value}")
        return words


CIFAR_100 = {"data.name": "cifar100", "model.num_classes": 100}


class Source(NamedTuple):
    """The source of a recipe.

    Attributes:
        paper: authors, year, arXiv number and section.
        networks: the networks that the recipe is for: {key of the config: accepted values}.
        differs: sentences that say what is not as published.
        published: the errors that the source gives.
        cost: what a run costs, with the machine, as the authors say or as we measured; it may be
            empty, because docs/recipes.md estimates the cost of every recipe.
        disagree: sentences that say where text and code disagree, and which of them is taken.
    """

    paper: str
    networks: Mapping[str, Sequence[object]]
    differs: Sequence[str] = ()
    published: Sequence[Published] = ()
    cost: str = ""
    disagree: Sequence[str] = ()

    def says(self) -> str:
        """Return the networks in words: `model.family=resnet, model.depth=18 or 34`."""
        return ", ".join(
            f"{key}={' or '.join(map(str, values))}" for key, values in self.networks.items()
        )

    def misfits(self, config: Config) -> Iterator[str]:
        """Yield `key=value` for each choice of the config that is of another network.

        If the family is another, nothing else is of interest.
        """
        for key, values in self.networks.items():
            part, _, name = key.partition(".")
            value = config.get(part, {}).get(name)
            if value not in values:
                yield f"{key}={value}"
                if key == "model.family":
                    return

    def refusal(self, config: Config, path: Path, others: Mapping[str, "Source | None"]) -> str:
        """Return why the recipe in `path` does not train the config's network.

        `others` are the sources of the files beside it that train on the same data, by name, or
        None for a recipe of any network: the sentence names those that train the config's network.
        """
        fitting = [n for n, other in others.items() if other and not list(other.misfits(config))]
        where = f"; recipes for it: {', '.join(fitting)}" if fitting else ""
        free = [name for name, other in others.items() if other is None]
        return (
            f"{path} does not train {' and '.join(self.misfits(config))}: it is the recipe of "
            f"{self.paper}, which is for {self.says()}{where}; for any network: "
            f"{', '.join([*free, 'a config file of your own'])}"
        )
