"""Keys of a config and the parts that bring them.

A *switch* is a choice in the argument of a config file, such as `merge` in
`configs/digits.py:merge=rezero`. A *part* is one value of a switch: a family, a block, a merge, a
norm, an optimizer, a schedule, a task. A part is defined in one place, together with the keys that
it reads; a key has its default, its rule and its meaning in one place. A config holds the keys that
all configs share (choices.py) and the keys of the parts that it chose, and no others.
"""

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# A ConfigDict. Its attributes are made at run time, so that a type checker cannot know them.
Config = Any

# JAX counts in 32 bits: the elements of an array, the rows of a batch, the steps.
LARGEST = 2**31 - 1
# The schedule computes with steps in float32, which holds whole numbers exactly up to 2^24.
LARGEST_STEP = 2**24
# The smallest and largest positive numbers that float32 holds with all its digits.
FLOAT32 = (2.0**-126, (2 - 2**-23) * 2.0**127)


class Rule(NamedTuple):
    """What the values of a key must satisfy.

    `says` completes the sentence "KEY=VALUE ...". `choices` are all accepted values if there are
    few, so that a message can name the nearest one.
    """

    accepts: Callable[[Any], bool]
    says: str
    choices: tuple[str, ...] = ()


class Key(NamedTuple):
    """One key of a config. Its values have the type of `default`; `meaning` tells the unit."""

    default: Any
    rule: Rule
    meaning: str


Keys = Mapping[str, Key]

ANY = Rule(lambda value: True, "")
POSITIVE = Rule(lambda value: value > 0, "must be positive")
NOT_NEGATIVE = Rule(lambda value: value >= 0, "must not be negative")
# float32 rounds what lies nearer to 1 to 1.
FRACTION = Rule(lambda value: 0 <= value <= 1 - 2**-24, "must lie in [0, 1)")
PROBABILITY = Rule(lambda value: 0 < value <= 1, "must lie in (0, 1]")
STEPS = Rule(
    lambda value: 0 < value <= LARGEST_STEP,
    f"must be positive and must be at most {LARGEST_STEP}: the schedule counts in float32",
)
SEED = Rule(
    lambda value: 0 <= value < 2**32,
    f"must not be negative and must be below {2**32}: jax sees 32 bits, and others would repeat",
)
SIZES = Rule(
    lambda value: all(type(item) is int and item > 0 for item in value),
    "must hold positive whole numbers",
)
NUMBERS = Rule(
    lambda value: all(type(item) is float for item in value),
    "must hold numbers with a point, such as 1.0",
)


def choice(*values: str) -> Rule:
    """Return the rule that a key has one of these values."""
    return Rule(lambda value: value in values, f"is not one of {', '.join(values)}", values)


def _accept_all(config: Config) -> None:
    """Refuse nothing."""


@dataclass(frozen=True, eq=False)
class Part:
    """One value of a switch.

    `build` makes what the part stands for; its arguments depend on the kind of part and are told
    where the table of the parts is (FAMILIES, SKIPS, MERGES, NORMS, TASKS, ...). `keys` are the
    keys that the part reads, by their full names. `switches` are further choices that the part
    brings. `check(config)` raises a ValueError for values that do not go together.
    """

    summary: str
    build: Callable[..., Any] = lambda *_: None
    keys: Keys = field(default_factory=dict)
    switches: Mapping[str, "Switch"] = field(default_factory=dict)
    check: Callable[[Config], None] = _accept_all


class Switch(NamedTuple):
    """A choice between parts. The config records the chosen name under `key`."""

    key: str
    parts: Mapping[str, Part]
    default: str
    meaning: str


def check_value(name: str, key: Key, value: Any) -> None:
    """Raise a ValueError unless `value` is one that the key takes."""
    items = value if isinstance(value, tuple) else (value,)
    for item in items:
        if isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"{name}={value} must be finite")
        if isinstance(item, float) and item and not FLOAT32[0] <= abs(item) <= FLOAT32[1]:
            raise ValueError(
                f"{name}={value} is not within float32's {FLOAT32[0]:.3g} and {FLOAT32[1]:.3g}"
            )
    if not key.rule.accepts(value):
        shown = repr(value) if isinstance(value, str) else value
        raise ValueError(f"{name}={shown} {key.rule.says}{nearest(str(value), key.rule.choices)}")
    if name != "seed" and any(isinstance(item, int) and abs(item) > LARGEST for item in items):
        raise ValueError(f"{name}={value} must be at most {LARGEST}: jax counts in 32 bits")


def nearest(word: str, known: tuple[str, ...], cutoff: float = 0.0) -> str:
    """Return "; nearest: NAME" for the known name most like `word`, or "" if there is none."""
    # A word of thousands of characters is no typing error, and comparing it takes long.
    matches = difflib.get_close_matches(word[:100], known, 1, cutoff)
    return f"; nearest: {matches[0]}" if matches else ""


def nearest_divisor(n: int, target: int) -> int:
    """Return the divisor of `n` nearest to `target`, the smaller of two."""
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return min((*small, *(n // d for d in small)), key=lambda d: (abs(d - target), d))


def default(function: Callable[..., Any], name: str) -> Any:
    """Return the default of a function's argument, so that a key does not repeat it."""
    return inspect.signature(function).parameters[name].default
