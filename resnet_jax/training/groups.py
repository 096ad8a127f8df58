"""Groups of parameters: by their paths, parameters take multiples of the rate and of the decay.

A path is made of the names from the network to the parameter, such as
`stage1/layers/body/conv1/kernel`. A row of `optimizer.groups` is (pattern, multiple of the rate,
multiple of the decay); the pattern is a regular expression that matches a whole path. For the
parameters that it matches, a row stands in the place of `optimizer.decay`: 0 is no decay, and 1 is
`optimizer.weight_decay`, whether `optimizer.decay` is kernels or all. Parameters that no row
matches have the whole rate, and decay as `optimizer.decay` says. Biases of gates decay only if a
row says so: decay would open a gate that starts shut.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from resnet_jax.keys import Config, Rule

# Decay multiplies a parameter without gradient by e^(-rate decay / (1 - momentum)) in each step.
# With rate 0.1, decay 1e-4 and momentum 0.9, 4 % of it is left after 32,000 steps: a bias of -6
# becomes -0.25.
GATE_BIASES = ".*gate/bias"


class Multiples(NamedTuple):
    """What a parameter's learning rate and weight decay are multiplied by."""

    rate: float
    decay: float


def multiples(config: Config, params: Any) -> Any:
    """Return the tree of the parameters with their Multiples in the place of the arrays."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _of(config, _name(path)), params)


def _of(config: Config, path: str) -> Multiples:
    for pattern, rate, decay in config.optimizer.groups:
        if re.fullmatch(pattern, path):
            return Multiples(rate, decay)
    kernel = path.rpartition("/")[2] == "kernel"
    decays = kernel or (config.optimizer.decay == "all" and not re.fullmatch(GATE_BIASES, path))
    return Multiples(1.0, 1.0 if decays else 0.0)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check(config: Config, params: Any) -> None:
    """Raise a ValueError for a row that matches no parameter, and for rows that disagree.

    Two rows may match the same parameter if their multiples are the same.
    """
    rows = config.optimizer.groups
    if not rows:
        return
    paths = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for i, (pattern, *both) in enumerate(rows):
        own = [path for path in paths if re.fullmatch(pattern, path)]
        if not own:
            raise ValueError(
                f"optimizer.groups: {pattern!r} matches no parameter of this network; its "
                f"parameters are {', '.join(_kinds(paths))}"
            )
        for other, *values in rows[:i]:
            if values != both and (same := [path for path in own if re.fullmatch(other, path)]):
                raise ValueError(
                    f"optimizer.groups: {other!r} and {pattern!r} both match {same[0]}, with "
                    "different multiples; make one of the patterns narrower"
                )


def _kinds(paths: Sequence[str]) -> list[str]:
    """Return patterns of the last two names of the paths, each kind once."""
    ends = ("/".join(re.sub(r"\d+", "\\\\d+", path).split("/")[-2:]) for path in paths)
    return list(dict.fromkeys(f".*{end}" for end in ends))


def in_words(config: Config, params: Any) -> Iterator[str]:
    """Yield a line for each row: its multiples, and the number of parameters that it matches."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for pattern, rate, decay in config.optimizer.groups:
        own = [leaf for path, leaf in leaves if re.fullmatch(pattern, _name(path))]
        yield (
            f"optimizer.groups: {pattern} has {rate:g} x the rate and {decay:g} x the decay "
            f"({sum(leaf.size for leaf in own):,} parameters in {len(own)} arrays)"
        )


def _is_row(row: Any) -> bool:
    if not isinstance(row, tuple) or len(row) != 3 or not isinstance(row[0], str):
        return False
    try:
        re.compile(row[0])
    except re.error:
        return False
    numbers = [isinstance(value, int | float) and type(value) is not bool for value in row[1:]]
    return all(numbers) and all(0 <= value < math.inf for value in row[1:])


ROWS = Rule(
    lambda value: all(map(_is_row, value)),
    "must hold rows (pattern, multiple of the rate, multiple of the decay) with a regular "
    "expression and numbers that are not negative, such as (('.*bias', 0.1, 0.0),)",
)
