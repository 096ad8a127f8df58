"""One training step against the same network written without this package, and in PyTorch.

    python -m benchmarks.step_time [--depths=20,56] [--rounds=9] [--json=FILE]

CIFAR ResNets with option A, float32, batch 32, SGD with momentum and decay. Beside ours (scanned,
our convolution and norm, the config's own remat): `unrolled`, every block written out in plain
flax.linen with lax convolutions and autodiff, compiled by `jax.jit`; `tuned`, the same with our
compiler options; `scan`, its equal blocks in a plain `nn.scan`; and `torch`, eager, channels_last,
two threads. All start from the same weights, and their losses at
the first step must agree. Every round measures each in turn, so that all meet the same load; a
ratio is the median over the rounds of ours / theirs. temp_mb is what XLA allocates for one step
beside its arguments and results.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import common, peers
from resnet_jax.config import Config
from resnet_jax.families import build
from resnet_jax.models.resnet import resnet_stages
from resnet_jax.training.compile import program
from resnet_jax.training.optimizer import schedule

BATCH = 32
# Block -> what the names of its ratios end with.
BLOCKS = {"preact_basic": "", "basic": "_v1"}
# Relative, of the losses at the first step: the same maths in another order, in float32.
TOLERANCE = 1e-3


@dataclasses.dataclass
class Program:
    """A training step that goes on from its own weights and returns the loss; and what it took."""

    step: Callable[[], float]
    temp_bytes: int | None = None
    first_loss: float = 0.0
    seconds: list[float] = dataclasses.field(default_factory=list)


def jax_program(config: Config, net: Any, params: Any, compile: Callable) -> Program:
    """The compiled training step of a network, from these weights."""
    state: Any = common.create_state(config, net)
    if peers.count(state.params) != peers.count(params):
        raise AssertionError(f"{type(net).__name__} has another number of parameters than ours")
    # A copy, because a step gives its state's memory away.
    state = state.replace(params=jax.tree.map(jnp.array, params))
    batch, step = common.make_batch(config), common.train_step(config, net)
    compiled = compile(lambda state, batch: step(state, batch, None), state, batch, donate=(0,))

    def run() -> float:
        nonlocal state
        state, sums = compiled(state, batch)
        return sums["loss"].item() / config.batch_size

    return Program(run, compiled.memory_analysis().temp_size_in_bytes)


def torch_program(config: Config, stages: Sequence[int], pre: bool, params: Any) -> Program | None:
    """The same step in PyTorch; None where it is not installed."""
    if not common.version("torch"):
        return None
    from benchmarks import torch_peer

    net = torch_peer.Plain(stages, pre)
    torch_peer.load(net, params)
    batch, o = common.make_batch(config), config.optimizer
    rate = np.asarray(schedule(config)(0)).item()
    image, label = np.asarray(batch.image), np.asarray(batch.label)
    return Program(torch_peer.training_step(net, image, label, rate, o.momentum, o.weight_decay))


def compare(config: Config, rounds: int, steps: int, scan_rounds: int) -> dict[str, Program | None]:
    """Every program measured; `scan` where it has rounds, alone and a step at a time.

    Raises: AssertionError where a peer's first loss shows that it is another network.
    """
    stages = resnet_stages(config.model.depth, config.model.block, image=32)
    pre, net = config.model.block.startswith("preact"), build(config)
    params = common.create_state(config, net).params
    theirs = peers.from_ours(params)
    plain = lambda net, params: jax_program(config, net, params, common.plain_program)
    found: dict[str, Program | None] = {
        "ours": jax_program(config, net, params, program),
        "unrolled": plain(peers.Plain(stages, pre), theirs),
        "tuned": jax_program(config, peers.Plain(stages, pre), theirs, program),
        "torch": torch_program(config, stages, pre, theirs),
    }
    if scan_rounds:
        found["scan"] = plain(peers.Plain(stages, pre, scan=True), peers.stack(theirs, stages))
    programs = {name: one for name, one in found.items() if one}
    for name, one in programs.items():
        one.first_loss = one.step()
        np.testing.assert_allclose(
            one.first_loss, programs["ours"].first_loss, TOLERANCE, err_msg=f"loss of {name}"
        )
    calls = lambda one, n: lambda: [one.step() for _ in range(n)]
    fast = {name: calls(p, steps) for name, p in programs.items() if name != "scan"}
    slow = {name: calls(p, 1) for name, p in programs.items() if name == "scan"}
    for name, samples in common.alternate(fast, rounds).items():
        programs[name].seconds = [s / steps for s in samples]
    for name, samples in common.alternate(slow, scan_rounds).items():
        programs[name].seconds = samples
    return found


def measure(
    depths: Sequence[int],
    blocks: Sequence[str],
    rounds: int,
    steps: int,
    scan_depths: Sequence[int],
    scan_rounds: int,
) -> tuple[list[common.Row], common.Ratios]:
    """One net after the other; within one, its programs in alternation."""
    rows, ratios = [], {}
    for block in blocks:
        for depth in depths:
            config = common.cifar(depth, BATCH, block, "A")
            found = compare(config, rounds, steps, scan_rounds * (depth in scan_depths))
            rows += [_row(depth, block, name, one) for name, one in found.items()]
            ratios |= _ratios(f"{depth}{BLOCKS[block]}", found)
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


def _ratios(name: str, found: dict[str, Program | None]) -> common.Ratios:
    ours, unrolled = found["ours"], found["unrolled"]
    assert ours and unrolled and ours.temp_bytes and unrolled.temp_bytes
    over = lambda peer: common.ratio(ours.seconds, peer.seconds) if peer else None
    return {
        **{f"step_over_{p}_{name}": over(found[p]) for p in ("unrolled", "tuned", "torch")},
        f"temp_over_unrolled_{name}": ours.temp_bytes / unrolled.temp_bytes,
    }


if __name__ == "__main__":
    _DEPTHS = flags.DEFINE_list("depths", "20,56", "layers, 6n+2")
    _BLOCKS = flags.DEFINE_multi_enum("block", list(BLOCKS), list(BLOCKS), "kind of block")
    _ROUNDS = flags.DEFINE_integer("rounds", 9, "times that each net is measured", lower_bound=1)
    _STEPS = flags.DEFINE_integer("steps", 5, "training steps a measurement", lower_bound=1)
    _SCANS = flags.DEFINE_list("scan_depths", "20", "layers of the plain nn.scan, 20x slower")
    common.run(
        "step_time",
        lambda: measure(
            common.integers(_DEPTHS),
            _BLOCKS.value,
            _ROUNDS.value,
            _STEPS.value,
            common.integers(_SCANS),
            scan_rounds=3,
        ),
    )
