"""The config: every value that a run depends on, in one locked ConfigDict, checked at the start.

A config is composed of parts (keys.py). The switches choose the parts, in the argument of a config
file (`configs/cifar10.py:depth=110,merge=exclusive_gate`), and the config holds the keys of the
chosen parts and no others. `--config.KEY=VALUE` sets any other key.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from resnet_jax import families
from resnet_jax.choices import (
    COMMON,
    SWITCHES,
    ArgumentError,
    Choice,
    all_keys,
    choose,
    chosen_parts,
    every_switch,
    explain_unknown,
    keys_of_parts,
    part_of,
    switch_of,
)
from resnet_jax.keys import (
    LARGEST,
    LARGEST_STEP,
    Config,
    Key,
    Switch,
    check_value,
    nearest,
    nearest_divisor,
)
from resnet_jax.models.merges import GATES
from resnet_jax.training import groups

# Keys that may differ between two starts of a run, because they do not change what is computed.
MAY_CHANGE = (
    *("data.dir", "data.stream", "checkpoint_every", "checkpoint_minutes", "remat", "unroll"),
    *("kernels", "parallel", "nonfinite"),
)

# Options of JAX, as the environment or a program may set them, with which no run starts.
REFUSED_OPTIONS = (
    ("jax_threefry_partitionable", False, "everything random would be drawn otherwise"),
    ("jax_disable_jit", True, "a run's programs are compiled before it starts"),
)

Flat = Mapping[str, Any]


def choices_of(config: Config) -> list[Choice]:
    """Return the parts that a config has chosen.

    Raises: ValueError for a value that a switch does not have.
    """
    flat = flatten(config)
    return list(chosen_parts(lambda name, switch: flat[switch.key]))


def keys_of(config: Config) -> dict[str, Key]:
    """Return the keys of a config by name; the switches are not among them."""
    return keys_of_parts(choices_of(config))


def make(chosen: str | Mapping[str, Any], recipe: Flat) -> Config:
    """Return the locked config of the chosen switches, with a recipe's values.

    `chosen` is a config file's argument or what `choose` made of it. `recipe` maps full key names
    to values; the keys of parts that are not chosen are left out. If several of them give a value,
    the argument comes first, then the family's preset for the depth, then the recipe, then the
    key's default.
    Raises: ValueError for an unknown key or a value of another type in the recipe; ArgumentError
        for chosen values that a switch does not have.
    """
    chosen = choose(chosen) if isinstance(chosen, str) else dict(chosen)
    _check_recipe(recipe)
    family: Any = part_of("family", SWITCHES["family"], chosen["family"])
    task = chosen.get("task", recipe.get("task", SWITCHES["task"].default))
    shapes = part_of("task", SWITCHES["task"], task).keys["data.shape"]
    shape = tuple(recipe.get("data.shape", shapes.default))
    values = dict(recipe) | family.preset(chosen["depth"], chosen.get("block"), shape)
    values["model.depth"] = chosen["depth"]
    # A schedule that has an end ends with the run, unless the recipe says otherwise.
    values.setdefault("schedule.end", values.get("steps", COMMON["steps"].default))

    def pick(name: str, switch: Switch) -> str:
        return chosen.get(name, values.get(switch.key, switch.default))

    choices = list(chosen_parts(pick))
    unused = sorted(chosen.keys() - {choice.name for choice in choices} - {"depth"})
    if unused:
        raise ArgumentError(f"{unused[0]}={chosen[unused[0]]} is no choice of task={task}")
    return _compose(choices, values).lock()


def _check_recipe(recipe: Flat) -> None:
    """Raise a ValueError for a key that no part has, and for a value that no switch has."""
    known = tuple(all_keys())
    parts: dict[str, dict[str, Any]] = {}
    for _, switch in every_switch():
        parts.setdefault(switch.key, {}).update(switch.parts)
    for key, value in recipe.items():
        if key not in known:
            raise ValueError(f"unknown config key {key!r} in a recipe{nearest(key, known)}")
        if key in ("model.family", "model.depth"):
            raise ValueError(
                f"{key}={value!r} in a recipe has no effect; choose it in the argument, such as "
                "family=wide,depth=16"
            )
        options = tuple(parts.get(key, ()))
        if options and value not in options:
            raise ValueError(
                f"{key}={value!r} in a recipe is not one of {', '.join(options)}"
                f"{nearest(str(value), options, 0.5)}"
            )


def _compose(choices: list[Choice], values: Flat) -> Config:
    """Return a config of the chosen parts' keys, with `values` in the place of defaults."""
    flat: dict[str, Any] = {choice.switch.key: choice.value for choice in choices}
    for name, key in keys_of_parts(choices).items():
        value = values.get(name, key.default)
        flat[name] = _typed(name, key, value)
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        inner = nested
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return ConfigDict(nested)


def _typed(name: str, key: Key, value: Any) -> Any:
    """Return the value in the type of the key's default. Raises: ValueError if it has another."""
    kind = type(key.default)
    if kind is float and type(value) is int:
        return float(value)
    if kind is tuple and isinstance(value, list):
        return _tuple(value)
    if type(value) is not kind:
        raise ValueError(f"{name}={value!r} must be {kind.__name__}, such as {key.default!r}")
    return value


def check_keys(config: Config) -> None:
    """Refuse a config that does not have exactly the keys of its parts, with values of their types.

    `make` returns no such config; a config file may change what `make` returns.
    Raises: ValueError with the key, and the nearest key if it is unknown.
    """
    flat = flatten(config)
    try:
        choices = choices_of(config)
    except KeyError as error:
        raise ValueError(f"the config lacks {error.args[0]}, which chooses a part") from None
    keys = keys_of_parts(choices)
    own = {*keys, *(choice.switch.key for choice in choices)}
    for key in sorted(flat.keys() - own):
        raise ValueError(explain_unknown(key, tuple(own), choices))
    for key in sorted(own - flat.keys()):
        raise ValueError(f"the config lacks {key}, a key of its parts")
    for name, key in keys.items():
        _typed(name, key, flat[name])


def check(config: Config) -> None:
    """Refuse what cannot run, in one line, before anything is compiled or written.

    Raises: ValueError with the key, its value, the rule and the nearest thing that works.
    """
    flat, choices = flatten(config), choices_of(config)
    for name, key in keys_of_parts(choices).items():
        check_value(name, key, flat[name])
    check_seeds(config)
    for option, value, effect in REFUSED_OPTIONS:
        if getattr(jax.config, option) == value:
            name = f"{option.upper()}={int(value)}"
            raise ValueError(f"{name} is set in the environment, and {effect}: unset it")
    x64 = jax.config.read("jax_enable_x64")
    if config.dtype == "float64" and not x64:
        raise ValueError("dtype=float64 needs JAX_ENABLE_X64=1 in the environment")
    if config.dtype != "float64" and x64:
        raise ValueError(
            f"dtype={config.dtype} with JAX_ENABLE_X64=1 in the environment, which would make all "
            "parameters float64: unset it, or set --config.dtype=float64"
        )
    if config.batch_size % config.accumulate:
        raise ValueError(
            f"accumulate={config.accumulate} does not divide batch_size={config.batch_size}; "
            f"nearest {nearest_divisor(config.batch_size, config.accumulate)}"
        )
    for key in ("eval_every", "checkpoint_every"):
        if flat[key] % config.chunk_steps:
            near = max(1, round(flat[key] / config.chunk_steps)) * config.chunk_steps
            raise ValueError(
                f"{key}={flat[key]} is not a multiple of chunk_steps={config.chunk_steps}; "
                f"nearest {near}"
            )
    if config.parallel == "pmap" and config.replicas > 1:
        raise ValueError(
            f"replicas={config.replicas} need parallel=shard_map: pmap has one axis, the batch's"
        )
    for choice_ in choices:
        choice_.part.check(config)
    _check_network(config)


def check_seeds(config: Config) -> None:
    """Raise a ValueError unless JAX can tell the seeds of all replicas apart."""
    check_value("seed", COMMON["seed"], config.seed)
    if config.seed + config.replicas > 2**32:
        raise ValueError(
            f"seed={config.seed} with replicas={config.replicas} must be below {2**32}: jax sees "
            "32 bits, and others would repeat"
        )


def _check_network(config: Config) -> None:
    """Refuse a network that cannot be built, or whose arrays JAX cannot count."""
    variables = families.shapes(config)
    groups.check(config, variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        if leaf.size > LARGEST:
            name = "/".join(key.key for key in path[1:])
            raise ValueError(
                f"{name} would be an array of {' x '.join(map(str, leaf.shape))} numbers; "
                f"jax counts them in 32 bits, to {LARGEST}: use a smaller network"
            )


def from_saved(saved: Any, path: str = "config.json") -> Config:
    """Return the locked config of a saved run, from its config.json.

    A key that the saved config lacks takes its default: a new key's default must reproduce what was
    computed before the key existed. Keys of parts that the run did not choose are left out.
    Raises: ValueError that names `path`, for keys and values that no part has.
    """
    if not isinstance(saved, Mapping):
        raise ValueError(f"{path} is damaged: it is no config")
    saved = upgraded(flatten(saved))
    unknown = sorted(saved.keys() - all_keys().keys())
    if unknown:
        raise ValueError(
            f"{path} has the unknown {', '.join(unknown)}: another version wrote it; run.json "
            "names its revision"
        )
    try:
        choices = list(chosen_parts(lambda name, switch: saved.get(switch.key, switch.default)))
        return _compose(choices, saved).lock()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def upgraded(saved: Flat) -> dict[str, Any]:
    """Return a saved flat config in today's keys, with the same meaning.

    Configs up to revision e8e0e5a had every key of every part. A Fixup network ignored
    norm.kind=batch, and the end of a cosine was the only one of schedule.boundaries. Before there
    were groups of parameters, biases of gates decayed with all others.
    """
    saved = dict(saved)
    gated = saved.get("model.merge") in GATES and saved.get("model.skip") != "none"
    if gated and saved.get("optimizer.decay") == "all":
        saved.setdefault("optimizer.groups", ((groups.GATE_BIASES, 1.0, 1.0),))
    if str(saved.get("model.block", "")).startswith("fixup"):
        saved["norm.kind"] = "none"
    if saved.get("schedule.kind") == "cosine" and "schedule.end" not in saved:
        saved["schedule.end"] = saved.get("schedule.boundaries", (LARGEST_STEP,))[0]
    return saved


def differences(config: Config, saved: Config) -> list[str]:
    """Return what keeps `config` from going on where the saved run stopped: keys and their values.

    More steps may be asked for: the schedule's boundaries are absolute steps, and they must agree.
    """
    now, then = flatten(config), flatten(saved)
    lines = []
    for key in sorted(now.keys() | then.keys()):
        old, new = then.get(key, "absent"), now.get(key, "absent")
        longer = key == "steps" and isinstance(old, int) and new >= old
        # A device's share became a number when the run was created, and keeps it.
        kept = key == "norm.group_size" and new == -1 and isinstance(old, int) and old > 0
        # Data may move: its fingerprint says whether it is the same data.
        moved = key == "data.name" and str(old).partition(":")[0] == str(new).partition(":")[0]
        if old != new and key not in MAY_CHANGE and not (longer or kept or moved):
            # The recipe may have changed, or a value follows another that alone was asked for.
            text = f'"{old}"' if isinstance(old, tuple) else old
            own = key in now and key in then and not switch_of(key)
            kept_by = f" (to keep it, set --config.{key}={text})" if own else ""
            lines.append(f"{key} is {old} in that run and {new} now{kept_by}")
    return lines


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return {'model.depth': 110, ...} of a ConfigDict or of its JSON."""
    flat = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = _tuple(value) if isinstance(value, list | tuple) else value
    return flat


def _tuple(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return a tuple in the place of a list, which JSON makes of it, at every level."""
    return tuple(_tuple(value) if isinstance(value, list | tuple) else value for value in values)


def changed(config: Config, **values: Any) -> Config:
    """Return a locked copy of the config with these values; `model__depth` sets model.depth.

    The copy has the config's keys, so that `values` must not be those of other switches.
    """
    other = config.copy_and_resolve_references().lock()
    other.update_from_flattened_dict({k.replace("__", "."): v for k, v in values.items()})
    return other


def to_json(config: Config) -> str:
    """Return the complete config as JSON."""
    return json.dumps(config.copy_and_resolve_references().to_dict(), indent=2) + "\n"


def seeds(config: Config) -> range:
    """Return the seed of each replica."""
    return range(config.seed, config.seed + config.replicas)
