"""The switches and keys of configs in words, for the help of commands."""

import textwrap
from collections.abc import Mapping
from typing import Any

from resnet_jax import config as configs
from resnet_jax.choices import COMMON, DEPTH, every_switch
from resnet_jax.keys import Config, Key


def config_help(config: Config | None = None) -> str:
    """Return every switch and every key, with its meaning and default.

    Of a given config it returns the switches and keys that this config has, with their values.
    """
    lines = ["config switches, chosen after the file's name (FILE:switch=value,...):"]
    if config is None:
        lines += _entry("depth", DEPTH.meaning) + _switches()
        lines.append("\nconfig keys, set by --config.KEY=VALUE (default in brackets):")
        lines += _keys(COMMON) + _keys_of_parts()
    else:
        flat = configs.flatten(config)
        lines += _entry("depth", f"{DEPTH.meaning} [{flat['model.depth']}]")
        for name, switch, value, _ in configs.choices_of(config):
            lines += _entry(name, f"{switch.meaning}: {', '.join(switch.parts)} [{value}]")
        lines.append("\nkeys of this config, set by --config.KEY=VALUE (value in brackets):")
        for name, key in configs.keys_of(config).items():
            lines += _key(name, key, flat[name]) if name != "model.depth" else []
    return "\n".join(lines)


def _switches() -> list[str]:
    """Return the lines of every switch, with the values of all parts that bring it."""
    values: dict[str, dict[str, None]] = {}
    for name, switch in every_switch():
        values.setdefault(name, {}).update(dict.fromkeys(switch.parts))
    meanings = {name: switch.meaning for name, switch in every_switch()}
    entries = [
        _entry(name, f"{meanings[name]}: {', '.join(options)}") for name, options in values.items()
    ]
    return [line for entry in entries for line in entry]


def _keys_of_parts() -> list[str]:
    """Return the lines of the parts' keys; parts with the same keys stand together."""
    owners: dict[tuple[tuple[str, Key], ...], dict[str, None]] = {}
    for name, switch in every_switch():
        for value, part in switch.parts.items():
            owners.setdefault(tuple(part.keys.items()), {})[f"{name}={value}"] = None
    lines: list[str] = []
    for keys, values in owners.items():
        if keys:
            of_parts = f"of {', '.join(values)}:"
            lines += textwrap.wrap(of_parts, 96, initial_indent="  ", subsequent_indent="    ")
            lines += _keys(dict(keys))
    return lines


def _keys(keys: Mapping[str, Key]) -> list[str]:
    return [line for name, key in keys.items() for line in _key(name, key, key.default)]


def _key(name: str, key: Key, value: Any) -> list[str]:
    options = f": {', '.join(key.rule.choices)}" if key.rule.choices else ""
    return _entry(name, f"{key.meaning}{options} [{value!r}]")


def _entry(name: str, text: str) -> list[str]:
    words = textwrap.wrap(text, 68)
    return [f"    {name:<24}{words[0]}"] + [f"{'':28}{line}" for line in words[1:]]
