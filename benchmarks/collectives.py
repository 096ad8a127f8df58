"""What a training step sends between eight devices: messages executed, and their bytes.

    python -m benchmarks.collectives [--depth=110] [--json=FILE]

ResNet-110 (v1, option A), a batch of 64 on eight virtual CPU devices, read from the compiled
program; a message in a loop counts once a turn. `ours` is what the training loop compiles, a
`shard_map` that averages once, after the gradient; `jit` the same step of the whole batch by
`jax.jit` with sharded inputs, where the compiler decides what is sent. Each with norms in groups
of one device's share, and over the whole batch, which has to send statistics whoever writes it.
The rows of replicas are eight seeds, one a device.
"""

import functools
from typing import Any

import jax
from absl import flags
from jax.sharding import PartitionSpec

from benchmarks import common, hlo
from resnet_jax import families
from resnet_jax.config import Config
from resnet_jax.training import shard
from resnet_jax.training.compile import program

DEVICES, BATCH = 8, 64
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


def messages(text: str) -> dict[str, tuple[int, int]]:
    """Kind of collective -> how many are executed, and the bytes of their results."""
    found: dict[str, tuple[int, int]] = {}
    for line, times in hlo.executed(text):
        for kind in KINDS:
            if f" {kind}(" in line or f" {kind}-start(" in line:
                count, size = found.get(kind, (0, 0))
                found[kind] = (count + times, size + times * hlo.result_bytes(line))
    return found


def compiled(config: Config, replicas: int, by: str) -> str:
    """The optimised HLO of one training step."""
    mesh = shard.mesh(replicas)
    axis = shard.axis(mesh) if by == "ours" else None
    step = common.train_step(config, families.build(config, axis))
    batch = PartitionSpec(shard.REPLICA, shard.DATA)
    state: Any = jax.eval_shape(lambda: common.create_state(config, families.build(config)))
    inputs: Any = common.make_batch(config)
    if replicas > 1:
        stack = lambda a: jax.ShapeDtypeStruct((replicas, *a.shape), a.dtype)
        state, inputs = jax.tree.map(stack, (state, inputs))
    arguments = shard.like(mesh, shard.EACH, state), shard.like(mesh, batch, inputs)
    one: Any = functools.partial(step, axis=axis)
    if by == "ours":
        one = shard.spread(one, mesh, (shard.EACH, batch), (shard.EACH, shard.EACH))
    return program(one, *arguments, donate=(0,)).as_text()


def measure(depth: int) -> tuple[list[common.Row], common.Ratios]:
    """Each way to spread a step, with each group of the norm."""
    config = common.cifar(depth, BATCH, "basic", "A")
    state = jax.eval_shape(lambda: common.create_state(config, families.build(config)))
    least = sum(4 * a.size for a in jax.tree.leaves((state.params, state.batch_stats)))
    rows: list[common.Row] = []
    for by, group, replicas in (
        ("ours", BATCH // DEVICES, 1),
        ("ours", 0, 1),
        ("ours", 0, DEVICES),
        ("jit", BATCH // DEVICES, 1),
        ("jit", 0, 1),
    ):
        config.norm.group_size = group
        found = messages(compiled(config, replicas, by))
        row = {"by": by, "replicas": replicas, "norm_group": group or "whole batch"}
        row |= {kind: found.get(kind, (0, 0))[0] for kind in KINDS[:2]}
        row["others"] = sum(found.get(kind, (0, 0))[0] for kind in KINDS[2:])
        row["bytes"] = sum(size for _, size in found.values())
        rows.append(row | {"bytes_over_least": row["bytes"] / least})
    one = rows[0]
    return rows, {
        f"all_reduces_{depth}": one["all-reduce"],
        f"collectives_{depth}": one["all-reduce"] + one["all-gather"] + one["others"],
        f"bytes_over_least_{depth}": one["bytes_over_least"],
        f"all_reduces_{depth}_whole_batch": rows[1]["all-reduce"],
        f"collectives_{depth}_replicas": rows[2]["all-reduce"] + rows[2]["all-gather"],
        f"all_reduces_{depth}_jit": rows[3]["all-reduce"],
        f"all_reduces_{depth}_jit_whole_batch": rows[4]["all-reduce"],
    }


if __name__ == "__main__":
    _DEPTH = flags.DEFINE_integer("depth", 110, "layers, 6n+2")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    common.run("collectives", lambda: measure(_DEPTH.value))
