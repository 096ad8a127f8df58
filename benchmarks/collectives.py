"""What a training step sends between eight devices: the executed messages, and their bytes.

    python -m benchmarks.collectives [--depth=110] [--json=FILE]

The step is that of ResNet-110 (v1, option A) on a batch of 64 and eight virtual CPU devices. The
messages are read from the compiled program; a message in a loop counts once for each turn. `ours`
is the program of the training loop, a `shard_map` that sums once, after the gradient. `jit` is the
same step of the whole batch by `jax.jit` with sharded inputs, in which the compiler decides what is
sent. Both have norms in groups of a device's share, and norms over the whole batch, for which any
program has to send statistics. The row with replicas trains eight seeds, each on a device.
"""

import functools
from typing import Any

import jax
from jax.sharding import PartitionSpec

from benchmarks import common, hlo
from resnet_jax import families
from resnet_jax.command import whole
from resnet_jax.keys import Config
from resnet_jax.training import shard
from resnet_jax.training.compile import program

DEVICES, BATCH = 8, 64
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


def messages(text: str) -> dict[str, tuple[int, int]]:
    """Return for each kind of collective how many are executed, and the bytes of their results."""
    sent: dict[str, tuple[int, int]] = {}
    for line, times in hlo.executed(text):
        for kind in KINDS:
            if f" {kind}(" in line or f" {kind}-start(" in line:
                count, size = sent.get(kind, (0, 0))
                sent[kind] = (count + times, size + times * hlo.result_bytes(line))
    return sent


def compiled(config: Config, replicas: int, by: str) -> str:
    """Return the optimised HLO of a training step, spread `by` "ours" or "jit"."""
    mesh = shard.mesh(replicas)
    axis = shard.axis(mesh) if by == "ours" else None
    step = common.train_step(config, families.build(config, axis))
    rows = PartitionSpec(shard.REPLICA, shard.DATA)
    state: Any = jax.eval_shape(lambda: common.create_state(config, families.build(config)))
    batch: Any = common.make_batch(config)
    if replicas > 1:
        stack = lambda a: jax.ShapeDtypeStruct((replicas, *a.shape), a.dtype)
        state, batch = jax.tree.map(stack, (state, batch))
    arguments = shard.like(mesh, shard.EACH, state), shard.like(mesh, rows, batch)
    spread_step: Any = functools.partial(step, axis=axis)
    if by == "ours":
        spread_step = shard.spread(spread_step, mesh, (shard.EACH, rows), (shard.EACH, shard.EACH))
    return program(spread_step, *arguments, donate=(0,)).as_text()


def measure(depth: int) -> tuple[list[common.Row], common.Ratios]:
    """Count the messages of each way to spread a step, with each group of the norm."""
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
        sent = messages(compiled(config, replicas, by))
        row = {"by": by, "replicas": replicas, "norm_group": group or "whole batch"}
        row |= {kind: sent.get(kind, (0, 0))[0] for kind in KINDS[:2]}
        row["others"] = sum(sent.get(kind, (0, 0))[0] for kind in KINDS[2:])
        row["bytes"] = sum(size for _, size in sent.values())
        rows.append(row | {"bytes_over_least": row["bytes"] / least})
    first = rows[0]
    return rows, {
        f"all_reduces_{depth}": first["all-reduce"],
        f"collectives_{depth}": first["all-reduce"] + first["all-gather"] + first["others"],
        f"bytes_over_least_{depth}": first["bytes_over_least"],
        f"all_reduces_{depth}_whole_batch": rows[1]["all-reduce"],
        f"collectives_{depth}_replicas": rows[2]["all-reduce"] + rows[2]["all-gather"],
        f"all_reduces_{depth}_jit": rows[3]["all-reduce"],
        f"all_reduces_{depth}_jit_whole_batch": rows[4]["all-reduce"],
    }


def main(words: list[str] | None = None) -> None:
    """Read the command line, measure and report."""
    parser = common.parser("collectives", __doc__, "--depth=110")
    parser.add_argument(
        "--depth", type=whole(1), default=110, help="layers, 6n+2 (default: %(default)s)"
    )
    arguments = parser.read(words)
    jax.config.update("jax_num_cpu_devices", DEVICES)
    common.run("collectives", arguments, lambda: measure(arguments.depth))


if __name__ == "__main__":
    common.start(main)
