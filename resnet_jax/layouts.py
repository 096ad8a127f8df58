"""From the names that a family file writes down (models/layout.py) to the names of single tensors.

A layout also names the config values that the library's networks have: with others the same weights
would fit and compute something else.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from resnet_jax.choices import switch_of
from resnet_jax.config import flatten
from resnet_jax.families import FAMILIES
from resnet_jax.keys import Config
from resnet_jax.models.layout import LEAVES, Form, Layout, Row

NAMES = tuple(
    dict.fromkeys(layout.library for family in FAMILIES.values() for layout in family.layouts)
)


def rows(library: str, config: Config) -> Sequence[Row]:
    """Return the names that a library gives to the config's network. Raises: as `find`."""
    return find(library, config).rows(config)


def find(library: str, config: Config) -> Layout:
    """Return the layout of the config's network in a library.

    Raises: ValueError for a network that the library lacks, or that it has with other values.
    """
    if library not in NAMES:
        raise ValueError(f"layout {library!r} is not one of {', '.join(NAMES)}")
    family, block = config.model.family, config.model.block
    own = (layout for layout in FAMILIES[family].layouts if layout.library == library)
    layout = next((layout for layout in own if block in layout.blocks), None)
    if layout is None:
        known = dict.fromkeys(
            f"{name} of {known_block}"
            for name, other in FAMILIES.items()
            for known_layout in other.layouts
            if known_layout.library == library
            for known_block in known_layout.blocks
        )
        raise ValueError(f"layout {library} has no {family} of {block} blocks, but {_and(known)}")
    flat = flatten(config)
    # Other libraries have no network with another value.
    usual = {"model.activation": "relu", "model.tied": False}
    wanted = {**layout.values(config), **{key: usual[key] for key in usual if key in flat}}
    # The keys that the config lacks come with a part that it must choose first.
    wrong = [(key, value) for key, value in wanted.items() if flat.get(key, value) != value]
    wrong = wrong or [(key, value) for key, value in wanted.items() if key not in flat]
    if wrong:
        raise ValueError(
            f"networks of layout {library} have "
            + _and(f"{key}={value}, not {flat.get(key, 'none')}" for key, value in wrong)
            + f"; use {' '.join(_remedy(key, value) for key, value in wrong)}"
        )
    return layout


def _remedy(key: str, value: object) -> str:
    """Return what sets the value: the config's argument for a switch, else an override."""
    switch = switch_of(key)
    shown = f'"{value}"' if isinstance(value, tuple) else value
    return f"{switch}={value}" if switch else f"--config.{key}={shown}"


def translate(module: str, leaf: str, rows: Sequence[Row]) -> tuple[str, Form | None]:
    """Return the library's name of the `leaf` of our `module`, and its form, None for the usual.

    Raises: ValueError if no row fits.
    """
    ours = module if leaf in LEAVES else f"{module}.{leaf}"
    for row in rows:
        match = re.fullmatch(_pattern(row.ours), ours)
        if match:
            name = _fill(row.library, {k: int(v) for k, v in match.groupdict().items()})
            if leaf in LEAVES:
                name += LEAVES[leaf] if name.endswith("_") else f".{LEAVES[leaf]}"
            return name, row.kernel if leaf == "kernel" else None
    raise ValueError(f"this layout has no place for our {ours}; its networks have no such part")


def stages(names: Sequence[str], rows: Sequence[Row]) -> tuple[int, ...]:
    """Return the blocks in each stage, by the names that a library gives to a network's tensors.

    Blocks that are numbered without a stage, a Transformer's layers, are one stage.
    """
    last: dict[int, int] = {}
    for row in rows:
        for name in names if "{i}" in row.library else ():
            match = re.match(_pattern(row.library) + r"\.", name)
            if match:
                stage = int(match.groupdict().get("s", 1)) + row.library.count("{s-1}")
                last[stage] = max(last.get(stage, 0), int(match["i"]))
    return tuple(last[stage] + 1 for stage in sorted(last))


def _pattern(name: str) -> str:
    """Return a regular expression in which `{s}` and `{s-1}` are numbers called s."""
    return re.sub(r"\\\{(\w)(\\-1)?\\\}", r"(?P<\1>\\d+)", re.escape(name))


def _fill(name: str, numbers: Mapping[str, int]) -> str:
    return re.sub(r"\{(\w)(-1)?\}", lambda match: str(numbers[match[1]] - bool(match[2])), name)


def _and(words: Iterable[str]) -> str:
    return " and ".join(words)
