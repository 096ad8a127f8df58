"""Say what a config's network is and what it costs, without data and without training."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from resnet_jax import command, config_file, families, memory
from resnet_jax import config as configs
from resnet_jax.data.memory import device_limit
from resnet_jax.keys import Config
from resnet_jax.models import measure
from resnet_jax.tasks import TASKS


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, print the description, and write it as JSON."""
    parser = command.Parser(
        "resnet_jax.describe",
        "Say what a config's network is and what it costs, without data and without training.",
        "python -m resnet_jax.describe --config=configs/cifar10.py:depth=110 --memory=16GB",
    )
    parser.add_config()
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="a device's memory, such as 16GB or 80GiB: say which batch and depth fit (minutes)",
    )
    parser.add_json("the numbers")
    arguments = parser.read(words)
    with command.refusals():
        config = config_file.load(arguments.config, arguments.overrides)
        configs.check(config)
        limit = None if arguments.memory is None else memory.parse(arguments.memory)
        if arguments.json is not None:
            command.check_file("--json", arguments.json, "describe.json")
    description = describe(config, limit)
    print(text(description))
    if arguments.json is not None:
        with command.refusals():
            arguments.json.write_text(json.dumps(description, indent=2) + "\n", "utf-8")


def describe(config: Config, limit: int | None = None) -> dict[str, Any]:
    """Return layers, blocks, parameters, multiply-adds and bytes of the network and a train step.

    `macs` are the multiply-adds of an example in evaluation. `activation_bytes` and `peak_bytes`
    are those of a training step on one device, with the config's batch and policy (`remat`);
    `policies` has them for every policy. `recommended` is the fastest policy that fits into
    `memory_bytes`, which is `limit` or this device's memory. With a limit, `policies` also has the
    largest batch and depth that fit. `parts` has the counts and the output's shape of each part of
    the network, from the stem to the head.
    """
    net = families.build(config)
    x = jax.ShapeDtypeStruct((1, *TASKS[config.task].example(config).shape), jnp.float32)
    total, _ = measure.count(net, x)
    parts = []
    for name, part in net.blocks.items():
        counts, x = measure.count(part, x)
        parts.append({"name": name, "output": list(x.shape[1:]), **counts._asdict()})
    policies = _policies(config, limit)
    remat = memory.policy_of(config) or memory.POLICIES[0]
    room = device_limit(jax.local_devices()[0]) if limit is None else limit
    peaks = {name: used["peak_bytes"] for name, used in policies.items()}
    return {
        **total._asdict(),
        "activation_bytes": policies[remat]["activation_bytes"],
        "peak_bytes": policies[remat]["peak_bytes"],
        "batch_size": config.batch_size,
        "accumulate": config.accumulate,
        "remat": remat,
        "policies": policies,
        "memory_bytes": room,
        "recommended": None if room is None else memory.recommended(config, peaks, room),
        "parts": parts,
    }


def _policies(config: Config, limit: int | None) -> dict[str, dict[str, int | None]]:
    def of_policy(name: str) -> dict[str, int | None]:
        variant = memory.changed(config, remat=name)
        peak = memory.peak_bytes(variant)
        used = {"activation_bytes": memory.activation_bytes(variant), "peak_bytes": peak}
        if limit is None:
            return used
        return used | {
            "largest_batch": memory.largest_batch(variant, limit, peak),
            "largest_depth": memory.largest_depth(variant, limit, peak),
        }

    if memory.policy_of(config) is None:
        return dict.fromkeys(memory.POLICIES, of_policy(memory.POLICIES[0]))
    # Nearly all of the time goes into compiling, which takes one thread.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(memory.POLICIES, pool.map(of_policy, memory.POLICIES), strict=True))


def text(description: dict[str, Any]) -> str:
    """Return the description in words: the network, its memory by policy, its parts."""
    parts = description["accumulate"]
    of_parts = f" in {parts} parts" if parts > 1 else ""
    batch = f"a batch of {description['batch_size']}{of_parts}, remat={description['remat']}"
    room = f"{_mega(description['memory_bytes'])} beside the data set"
    facts = [
        ("layers", f"{description['layers']:,}", "weighted, on the longest path"),
        ("blocks", f"{description['blocks']:,}", ""),
        ("identity skips", f"{description['identity_skips']:,}", "neither padded nor projected"),
        ("parameters", f"{description['parameters']:,}", ""),
        ("multiply-adds", f"{description['macs'] / 1e9:.4f} G", "for an example"),
        (
            "activations",
            _mega(description["activation_bytes"]),
            f"kept for the gradient of {batch}",
        ),
        ("peak", _mega(description["peak_bytes"]), f"of a train step on {batch}"),
        (
            "recommended",
            description["recommended"] or "–",
            f"the fastest remat that fits into {room}",
        ),
    ]
    columns = {
        "activations": ("activation_bytes", _mega),
        "peak": ("peak_bytes", _mega),
        "largest batch": ("largest_batch", _whole),
        "largest depth": ("largest_depth", _whole),
    }
    any_policy = next(iter(description["policies"].values()))
    shown = {head: column for head, column in columns.items() if column[0] in any_policy}
    policies = [("remat", *shown)] + [
        (name, *(write(used[key]) for key, write in shown.values()))
        for name, used in description["policies"].items()
    ]
    parts = [("part", "blocks", "layers", "output", "parameters", "multiply-adds")] + [
        (
            part["name"],
            f"{part['blocks']:,}",
            f"{part['layers']:,}",
            "x".join(map(str, part["output"])),
            f"{part['parameters']:,}",
            f"{part['macs'] / 1e6:,.3f} M",
        )
        for part in description["parts"]
    ]
    return "\n\n".join(
        (_table(facts, "<><"), _table(policies, "<" + ">" * len(shown)), _table(parts, "<>>>>>"))
    )


def _table(rows: list[tuple[str, ...]], sides: str) -> str:
    columns = [
        [f"{cell:{side}{max(map(len, column))}}" for cell in column]
        for column, side in zip(zip(*rows, strict=True), sides, strict=True)
    ]
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _mega(number: int | None) -> str:
    return "not known" if number is None else f"{number / 1e6:,.1f} MB"


def _whole(number: int | None) -> str:
    return "none" if number is None else f"{number:,}"


if __name__ == "__main__":
    command.run(main)
