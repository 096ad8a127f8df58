"""Say what a config's network is and what it costs, without data and without training.

python -m resnet_jax.describe --config=configs/cifar10.py:depth=110 [--memory=16GB] [--json=FILE]
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import config_flags

from resnet_jax import command, families, memory
from resnet_jax import config as configs
from resnet_jax.config import Config
from resnet_jax.data import sources
from resnet_jax.models import measure


def main(config: Config, file: str | None, size: str | None = None) -> None:
    """Print the description, and write it to `file` as JSON; `size` is a device's memory."""
    with command.refusals():
        configs.check(config)
        configs.check_given(config, command.given_keys())
        limit = None if size is None else memory.parse(size)
        if file is not None:
            command.check_file("--json", Path(file), "describe.json")
    found = describe(config, limit)
    print(text(found))
    if file is not None:
        with command.refusals():
            Path(file).write_text(json.dumps(found, indent=2) + "\n")


def describe(config: Config, limit: int | None = None) -> dict[str, Any]:
    """Layers, blocks, parameters, multiply-adds and bytes of the config's network and train step.

    `macs` are one image's, in evaluation. `activation_bytes` and `peak_bytes` are a train step's on
    one device, with the config's batch and policy (`remat`); `policies` has them for every policy.
    `recommended` is the fastest policy that fits into `memory_bytes`: `limit`, or this device's.
    Where a limit is given, `policies` also has the largest batch and depth that fit into it.
    `parts` has the counts, and the size of the output, of each part from the stem to the head.
    """
    net = families.build(config)
    x = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.float32)
    total, _ = measure.count(net, x)
    parts = []
    for name, part in net.blocks.items():
        counts, x = measure.count(part, x)
        parts.append({"name": name, "output": list(x.shape[1:]), **counts._asdict()})
    policies = _policies(config, limit)
    remat = memory.policy_of(config) or memory.POLICIES[0]
    room = sources.device_limit(jax.local_devices()[0]) if limit is None else limit
    peaks = {name: used["peak_bytes"] for name, used in policies.items()}
    return {
        **total._asdict(),
        "activation_bytes": policies[remat]["activation_bytes"],
        "peak_bytes": policies[remat]["peak_bytes"],
        "batch_size": config.batch_size,
        "remat": remat,
        "policies": policies,
        "memory_bytes": room,
        "recommended": None if room is None else memory.recommended(config, peaks, room),
        "parts": parts,
    }


def _policies(config: Config, limit: int | None) -> dict[str, dict[str, int | None]]:
    def one(name: str) -> dict[str, int | None]:
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
        return dict.fromkeys(memory.POLICIES, one(memory.POLICIES[0]))
    # Nearly all of the time goes into compiling, which one thread does alone.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(memory.POLICIES, pool.map(one, memory.POLICIES), strict=True))


def text(found: dict[str, Any]) -> str:
    """The description for people: the network, the memory by policy, the parts."""
    batch = f"a batch of {found['batch_size']}, remat={found['remat']}"
    room = f"{_mega(found['memory_bytes'])} beside the data set"
    facts = [
        ("layers", f"{found['layers']:,}", "weighted, on the longest path"),
        ("blocks", f"{found['blocks']:,}", ""),
        ("identity skips", f"{found['identity_skips']:,}", "neither padded nor projected"),
        ("parameters", f"{found['parameters']:,}", ""),
        ("multiply-adds", f"{found['macs'] / 1e9:.4f} G", "an image"),
        ("activations", _mega(found["activation_bytes"]), f"kept for the gradient of {batch}"),
        ("peak", _mega(found["peak_bytes"]), f"of a train step on {batch}"),
        ("recommended", found["recommended"] or "–", f"the fastest remat that fits into {room}"),
    ]
    columns = {
        "activations": ("activation_bytes", _mega),
        "peak": ("peak_bytes", _mega),
        "largest batch": ("largest_batch", _whole),
        "largest depth": ("largest_depth", _whole),
    }
    any_policy = next(iter(found["policies"].values()))
    shown = {head: column for head, column in columns.items() if column[0] in any_policy}
    policies = [("remat", *shown)] + [
        (name, *(write(used[key]) for key, write in shown.values()))
        for name, used in found["policies"].items()
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
        for part in found["parts"]
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
    # Defined here, not on import: flags are global, and other commands have some of these names.
    config: Any = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:key=value,...]")
    file: Any = flags.DEFINE_string("json", None, "file to write the numbers to")
    flags.mark_flag_as_required("config")
    size: Any = flags.DEFINE_string("memory", None, "a device's memory, 16GB or 80GiB")
    command.run(lambda: main(config.value, file.value, size.value))
