"""The switches and keys of configs in words, for the help of commands."""

import textwrap
from collections.abc import Mapping
from typing import Any

from resnet_jax import config as configs
from resnet_jax.choices import COMMON, DEPTH, every_switch
from resnet_jax.keys import Config, Key


def config_help(config: Config | None = None) -> str:
    """Return every switch and every key, with its meaning and default.

    Of a given config it returns the keys that this config has, with their values.
    """
    lines = ["config switches, chosen after the file's name (FILE:switch=value,...):"]
    values: dict[str, dict[str, None]] = {}
    for name, switch in every_switch():
        values.setdefault(name, {}).update(dict.fromkeys(switch.parts))
    meanings = {name: switch.meaning for name, switch in every_switch()}
    for name, options in values.items():
        lines += _entry(name, f"{meanings[name]}: {', '.join(options)}")
    lines += _entry("depth", DEPTH.meaning)
    if config is None:
        lines.append("\nconfig keys, set by --config.KEY=VALUE (default in brackets):")
        lines += [line for name, key in COMMON.items() for line in _key(name, key, key.default)]
        lines += _keys_of_parts()
    else:
        lines.append("\nkeys of this config, set by --config.KEY=VALUE (value in brackets):")
        flat = configs.flatten(config)
        for name, key in configs.keys_of(config).items():
            lines += _key(name, key, flat[name])
    return "\n".join(lines)


def _keys_of_parts() -> list[str]:
    lines: list[str] = []
    written: set[tuple[str, str]] = set()
    for name, switch in every_switch():
        for value, part in switch.parts.items():
            if part.keys and (name, value) not in written:
                lines.append(f"  of {name}={value}:")
                lines += _keys(part.keys)
            written.add((name, value))
    return lines


def _keys(keys: Mapping[str, Key]) -> list[str]:
    return [line for name, key in keys.items() for line in _key(name, key, key.default)]


def _key(name: str, key: Key, value: Any) -> list[str]:
    options = f": {', '.join(key.rule.choices)}" if key.rule.choices else ""
    return _entry(name, f"{key.meaning}{options} [{value!r}]")


def _entry(name: str, text: str) -> list[str]:
    words = textwrap.wrap(text, 68)
    return [f"    {name:<24}{words[0]}"] + [f"{'':28}{line}" for line in words[1:]]
