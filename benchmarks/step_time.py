"""The time of a training step against the same network without this package, and in PyTorch.

    python -m benchmarks.step_time [--depths=20,56] [--rounds=9] [--json=FILE]

The networks are CIFAR ResNets with option A, in float32, with batches of 32 and SGD with momentum
and decay. `ours` is scanned, with this package's convolution and norm and the config's own remat.
Its peers start from the same weights, and the losses of the first step must agree:

    unrolled    every block written out in plain flax.linen (peers.py), compiled by `jax.jit`
    tuned       the same, with this package's compiler options
    scan        its equal blocks in a plain `nn.scan`
    torch       PyTorch eager, channels_last, two threads

Every round measures each program in turn, so that all meet the same load. A ratio is the median
over the rounds of our time over the peer's. temp_mb is what XLA allocates for a step beside its
arguments and results.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common, peers
from resnet_jax.command import whole
from resnet_jax.families import build
from resnet_jax.keys import Config
from resnet_jax.models.stages import resnet_stages
from resnet_jax.training.compile import program
from resnet_jax.training.optimizer import schedule

BATCH = 32
# How the names of a block's ratios end.
BLOCKS = {"preact_basic": "", "basic": "_v1"}
# Relative tolerance of the losses at the first step: float32 sums in another order.
TOLERANCE = 1e-3


@dataclasses.dataclass
class Program:
    """A training step that goes on from its own weights and returns the loss; its measurements."""

    step: Callable[[], float]
    temp_bytes: int | None = None
    first_loss: float = 0.0
    seconds: list[float] = dataclasses.field(default_factory=list)


def jax_program(config: Config, net: Any, params: Any, compile: Callable) -> Program:
    """Return the compiled training step of a network, which starts from these weights."""
    state: Any = common.create_state(config, net)
    if peers.count(state.params) != peers.count(params):
        raise AssertionError(f"{type(net).__name__} has another number of parameters than ours")
    # The weights are copied, because a step gives its state's memory away.
    state = state.replace(params=jax.tree.map(jnp.array, params))
    batch, step = common.make_batch(config), common.train_step(config, net)
    compiled = compile(lambda state, batch: step(state, batch, None), state, batch, donate=(0,))

    def run() -> float:
        nonlocal state
        state, sums = compiled(state, batch)
        return sums["loss"].item() / config.batch_size

    return Program(run, compiled.memory_analysis().temp_size_in_bytes)


def torch_program(config: Config, stages: Sequence[int], pre: bool, params: Any) -> Program | None:
    """Return the same step in PyTorch, or None if it is not installed."""
    if not common.version("torch"):
        return None
    from benchmarks import torch_peer

    net = torch_peer.Plain(stages, pre)
    torch_peer.load(net, params)
    batch, o = common.make_batch(config), config.optimizer
    rate = np.asarray(schedule(config)(0)).item()
    image, label = np.asarray(batch.input), np.asarray(batch.target)
    return Program(torch_peer.training_step(net, image, label, rate, o.momentum, o.weight_decay))


def compare(config: Config, rounds: int, steps: int, scan_rounds: int) -> dict[str, Program | None]:
    """Return the measured programs; `scan` takes single steps, apart, if it has rounds.

    Raises: AssertionError if a peer's first loss shows that it is another network.
    """
    stages = resnet_stages(config.model.depth, config.model.block, image=32)
    pre, net = config.model.block.startswith("preact"), build(config)
    params = common.create_state(config, net).params
    peer_params = peers.from_ours(params)
    plain = lambda net, params: jax_program(config, net, params, common.plain_program)
    measured: dict[str, Program | None] = {
        "ours": jax_program(config, net, params, program),
        "unrolled": plain(peers.Plain(stages, pre), peer_params),
        "tuned": jax_program(config, peers.Plain(stages, pre), peer_params, program),
        "torch": torch_program(config, stages, pre, peer_params),
    }
    if scan_rounds:
        measured["scan"] = plain(
            peers.Plain(stages, pre, scan=True), peers.stack(peer_params, stages)
        )
    programs = {name: peer for name, peer in measured.items() if peer}
    for name, peer in programs.items():
        peer.first_loss = peer.step()
        np.testing.assert_allclose(
            peer.first_loss, programs["ours"].first_loss, TOLERANCE, err_msg=f"loss of {name}"
        )
    calls = lambda peer, n: lambda: [peer.step() for _ in range(n)]
    fast = {name: calls(p, steps) for name, p in programs.items() if name != "scan"}
    slow = {name: calls(p, 1) for name, p in programs.items() if name == "scan"}
    for name, samples in common.alternate(fast, rounds).items():
        programs[name].seconds = [s / steps for s in samples]
    for name, samples in common.alternate(slow, scan_rounds).items():
        programs[name].seconds = samples
    return measured


def measure(
    depths: Sequence[int],
    blocks: Sequence[str],
    rounds: int,
    steps: int,
    scan_depths: Sequence[int],
    scan_rounds: int,
) -> tuple[list[common.Row], common.Ratios]:
    """Measure one network after the other, and the programs of a network in turn."""
    rows, ratios = [], {}
    for block in blocks:
        for depth in depths:
            config = common.cifar(depth, BATCH, block, "A")
            programs = compare(config, rounds, steps, scan_rounds * (depth in scan_depths))
            rows += [_row(depth, block, name, program) for name, program in programs.items()]
            ratios |= _ratios(f"{depth}{BLOCKS[block]}", programs)
            print(f"measured {depth} {block}; load average {common.load_average()}", flush=True)
    return rows, ratios


def _row(depth: int, block: str, name: str, measured: Program | None) -> common.Row:
    row: common.Row = {"depth": depth, "block": block, "net": name}
    if measured is None:
        return row | {"step_ms": None}
    return row | {
        "step_ms": 1e3 * statistics.median(measured.seconds),
        "fastest_ms": 1e3 * min(measured.seconds),
        "samples": len(measured.seconds),
        "temp_mb": measured.temp_bytes / 1e6 if measured.temp_bytes else None,
        "first_loss": measured.first_loss,
    }


def _ratios(name: str, programs: dict[str, Program | None]) -> common.Ratios:
    ours, unrolled = programs["ours"], programs["unrolled"]
    assert ours and unrolled and ours.temp_bytes and unrolled.temp_bytes
    over = lambda peer: common.ratio(ours.seconds, peer.seconds) if peer else None
    return {
        **{f"step_over_{p}_{name}": over(programs[p]) for p in ("unrolled", "tuned", "torch")},
        f"temp_over_unrolled_{name}": ours.temp_bytes / unrolled.temp_bytes,
    }


def main(words: list[str] | None = None) -> None:
    """Read the command line, measure and report."""
    parser = common.parser("step_time", __doc__, "--depths=20,56 --rounds=9")
    flag = parser.add_argument
    flag(
        "--depths",
        type=common.integers,
        default="20,56",
        help="layers, 6n+2 (default: %(default)s)",
    )
    flag("--block", action="append", choices=BLOCKS, help="kind of block (default: all)")
    flag("--rounds", type=whole(1), default=9, help="measurements of each (default: %(default)s)")
    flag("--steps", type=whole(1), default=5, help="steps a measurement (default: %(default)s)")
    flag(
        "--scan_depths",
        type=common.integers,
        default="20",
        help="layers of the plain nn.scan, which is 20 times slower (default: %(default)s)",
    )
    arguments = parser.read(words)
    common.run(
        "step_time",
        arguments,
        lambda: measure(
            arguments.depths,
            arguments.block or list(BLOCKS),
            arguments.rounds,
            arguments.steps,
            arguments.scan_depths,
            scan_rounds=3,
        ),
    )


if __name__ == "__main__":
    common.start(main)
