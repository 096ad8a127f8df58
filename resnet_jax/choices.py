"""From a config file's argument to the parts of a config: the switches and what they bring."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from resnet_jax import families
from resnet_jax.keys import (
    ANY,
    POSITIVE,
    SEED,
    STEPS,
    Key,
    Keys,
    Part,
    Switch,
    choice,
    nearest,
)
from resnet_jax.tasks import TASKS
from resnet_jax.training.optimizer import OPTIMIZERS
from resnet_jax.training.schedule import SCHEDULES

# The keys of every config, whatever parts it chose.
COMMON: Keys = {
    "seed": Key(0, SEED, "from which everything random is drawn"),
    "replicas": Key(
        1,
        POSITIVE,
        "networks trained at once, of the seeds seed, seed + 1, ..., on equal shares"
        " of the devices",
    ),
    "steps": Key(64_000, STEPS, "training steps of the run"),
    "batch_size": Key(128, POSITIVE, "examples of a step, over all devices"),
    "accumulate": Key(
        1, POSITIVE, "equal parts of a batch, one after the other; a batch norm sees a part"
    ),
    "parallel": Key(
        "shard_map", choice("shard_map", "pmap"), "what spreads a step over the devices"
    ),
    "dtype": Key(
        "float32",
        choice("float32", "bfloat16", "float64"),
        "type of activations; parameters and statistics are at least float32",
    ),
    "kernels": Key(
        "auto",
        choice("auto", "reference"),
        "auto is the fastest; reference allows forward-mode derivatives (jax.jvp) on every device",
    ),
    "unroll": Key(1, POSITIVE, "layers in one turn of a Stack's loop; changes speed alone"),
    "remat": Key(
        "auto",
        choice("auto", "none", "block", "sqrt"),
        "what the backward pass recomputes; auto is block on the CPU and none elsewhere",
    ),
    "deterministic": Key(
        False, ANY, "the same bits in every run; matters on a GPU alone, and costs time"
    ),
    "chunk_steps": Key(100, POSITIVE, "steps of a dispatch, and of a record in metrics.jsonl"),
    "eval_every": Key(1_000, POSITIVE, "steps between evaluations; a multiple of chunk_steps"),
    "checkpoint_every": Key(
        5_000, POSITIVE, "steps between checkpoints; a multiple of chunk_steps"
    ),
    "checkpoint_minutes": Key(
        10.0, POSITIVE, "minutes after which a checkpoint is written at the end of a chunk"
    ),
    "nonfinite": Key(
        "stop", choice("stop", "skip"), "whether a step that is not finite ends the run"
    ),
}
# The families know which depths exist.
DEPTH = Key(1, ANY, "layers of the network, as its family counts them")
SWITCHES: dict[str, Switch] = {
    "task": Switch("task", TASKS, "classification", "what the network is trained to do"),
    "family": Switch("model.family", families.FAMILIES, "resnet", "the family of networks"),
    "optimizer": Switch("optimizer.name", OPTIMIZERS, "sgd", "the optimizer"),
    "schedule": Switch("schedule.kind", SCHEDULES, "piecewise", "the learning rate's schedule"),
}


class ArgumentError(ValueError):
    """A mistake in a config file's argument, and not in the file."""


class Choice(NamedTuple):
    """One chosen part: the switch, by name, the chosen value, and the part."""

    name: str
    switch: Switch
    value: str
    part: Part


def choose(argument: str, depth: int | None = None) -> dict[str, Any]:
    """Read a config file's argument, `switch=value,...`, into {switch: value}.

    If a switch comes twice, its last value counts. The result always has `family` and `depth`: a
    depth that the argument leaves out is the family's own if the argument names a family or if
    `depth` is None, else `depth`.
    Raises: ArgumentError for an unknown switch and for a depth that is no number of layers.
    """
    known = (*dict.fromkeys(name for name, _ in every_switch()), "depth")
    chosen: dict[str, Any] = {}
    for part in filter(None, argument.split(",")):
        name, _, value = part.partition("=")
        if name not in known or not value:
            raise ArgumentError(
                f"config argument {part!r} is not switch=value with a switch of "
                f"{', '.join(sorted(known))}{nearest(name, known)}"
            )
        chosen[name] = value
    named = "family" in chosen
    family: Any = part_of(
        "family", SWITCHES["family"], chosen.setdefault("family", SWITCHES["family"].default)
    )
    text = chosen.get("depth")
    if text is None:
        chosen["depth"] = family.depth if named or depth is None else depth
    elif not (text.isascii() and text.isdecimal()):
        raise ArgumentError(f"depth={text[:50]} is not a number of layers")
    elif len(text) > len(str(families.DEEPEST)):
        raise ArgumentError(
            f"depth={text[:50]} is more than {families.DEEPEST}, the most layers of any network"
        )
    else:
        chosen["depth"] = int(text)
    return chosen


def part_of(name: str, switch: Switch, value: str, owner: str = "") -> Part:
    """Return the part of this value; `owner` is the choice that brought the switch.

    Raises: ArgumentError with all values of the switch and the nearest.
    """
    known = tuple(switch.parts)
    if value not in known:
        owned = f"a {name} of {owner}, which has" if owner else "one of"
        raise ArgumentError(
            f"{name}={str(value)[:80]} is not {owned} {', '.join(known)}"
            f"{nearest(str(value), known, 0.5)}"
        )
    return switch.parts[value]


def chosen_parts(pick: Callable[[str, Switch], str]) -> Iterator[Choice]:
    """Walk through the switches, and through those that a chosen part brings.

    `pick(name, switch)` returns the value that is chosen.
    """
    waiting = [(name, switch, "") for name, switch in SWITCHES.items()]
    while waiting:
        name, switch, owner = waiting.pop(0)
        value = pick(name, switch)
        part = part_of(name, switch, value, owner)
        waiting += [(inner, of, f"{name}={value}") for inner, of in part.switches.items()]
        yield Choice(name, switch, value, part)


def keys_of_parts(choices: list[Choice]) -> dict[str, Key]:
    """Return the keys of every config and those of the chosen parts."""
    keys = dict(COMMON) | {"model.depth": DEPTH}
    for chosen in choices:
        keys |= chosen.part.keys
    return keys


def all_keys() -> dict[str, list[str]]:
    """Return every key of every part, with the choices ("family=vit") that bring it."""
    owners: dict[str, list[str]] = {name: [] for name in (*COMMON, "model.depth")}
    for name, switch in every_switch():
        owners.setdefault(switch.key, [])
        for value, part in switch.parts.items():
            for key in part.keys:
                if f"{name}={value}" not in owners.setdefault(key, []):
                    owners[key].append(f"{name}={value}")
    return owners


def every_switch() -> Iterator[tuple[str, Switch]]:
    """Walk through all switches of all parts, whatever is chosen; a name may come several times."""
    waiting = list(SWITCHES.items())
    while waiting:
        name, switch = waiting.pop(0)
        yield name, switch
        for part in switch.parts.values():
            waiting += part.switches.items()


def explain_unknown(key: str, flat: Sequence[str], chosen: Sequence[Choice]) -> str:
    """Return the sentence that says why a config has no `key` that the command line sets.

    `flat` are the config's keys and `chosen` its parts.
    """
    if key in flat and (name := switch_of(key)):
        return (
            f"{key} is chosen in the config's argument, configs/NAME.py:{name}=VALUE, and not by "
            f"--config.{key}"
        )
    owners = all_keys().get(key)
    if owners:
        switches = dict.fromkeys(owner.partition("=")[0] for owner in owners)
        values = {part.name: part.value for part in chosen}
        own = [f"{name}={values[name]}" for name in switches if name in values]
        if set(own) & set(owners):  # another family has a part of the same name, with other keys
            own.insert(0, f"family={values['family']}")
            owners = [owner for owner in owners if owner not in own]
        return f"{key} is a key of {_few(owners)}; this config has {' and '.join(own) or 'neither'}"
    return f"unknown config key --config.{key[:80]}{_near_key(key, tuple(flat))}"


def _near_key(key: str, flat: tuple[str, ...]) -> str:
    """Return "; nearest: ..." with a key that the command line can set, or with a switch."""
    same = [name for name in flat if name.rpartition(".")[2] == key.rpartition(".")[2]]
    like = same or difflib.get_close_matches(key[:100], flat, 1, 0.8)
    if like and (name := switch_of(like[0])):
        return f"; nearest: {name}=VALUE in the config's argument"
    settable = tuple(name for name in flat if not switch_of(name))
    near = f"; nearest: {same[0]}" if same else nearest(key, settable, 0.5)
    return near.replace(": ", ": --config.")


def switch_of(key: str) -> str | None:
    """Return the name of the switch whose choice a config records under `key`, or None."""
    if key == "model.depth":
        return "depth"
    return next((name for name, switch in every_switch() if switch.key == key), None)


def _few(names: Sequence[str], most: int = 4) -> str:
    more = len(names) - most
    return " and ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
