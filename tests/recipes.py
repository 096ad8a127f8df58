"""Configs for tests: a recipe of configs/, with switches and values changed in one call."""

import importlib
from typing import Any

from resnet_jax import config as configs
from resnet_jax.choices import explain_unknown, switch_of
from resnet_jax.keys import Config


def recipe(
    name: str = "cifar10", argument: str = "", check: bool = False, **changes: Any
) -> Config:
    """Return configs/NAME.py's config; `model__merge="add"` is merge=add in the argument.

    Any other change sets a value of a key that the config has, of any type.
    Raises: ValueError for a key that the config lacks, as the command line does.
    """
    flat = {key.replace("__", "."): value for key, value in changes.items()}
    chosen = {switch_of(key): value for key, value in flat.items() if switch_of(key)}
    argument = ",".join([*filter(None, [argument]), *(f"{k}={v}" for k, v in chosen.items())])
    config = importlib.import_module(f"configs.{name}").get_config(argument)
    values = {key: value for key, value in flat.items() if not switch_of(key)}
    config = changed(config, values)
    if check:
        configs.check(config)
    return config


def changed(config: Config, values: dict[str, Any]) -> Config:
    """Return a locked copy with other values. Raises: ValueError for a key that it lacks."""
    config, keys = config.copy_and_resolve_references(), configs.keys_of(config)
    for key in values:
        if key not in keys:
            flat = tuple(configs.flatten(config))
            raise ValueError(explain_unknown(key, flat, configs.choices_of(config)))
    config.update_from_flattened_dict(values)
    return config.lock()
