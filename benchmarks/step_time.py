"""One training step against the same network written without this package, and in PyTorch.

    python -m benchmarks.step_time [--depths=20,56] [--blocks=...] [--rounds=9] [--json=FILE]

CIFAR ResNets with option A, float32, batch 32, SGD with momentum and decay. Beside ours (scanned,
our convolution and norm, the config's own remat): `unrolled`, every block written out in plain
flax.linen with lax convolutions and autodiff; `scan`, its blocks in a plain `nn.scan`; and
PyTorch eager, channels_last, two threads. All start from the same weights, and their losses at
the first step must agree. Every round measures each in turn, so that all meet the same load; a
ratio is the median over the rounds of ours / theirs.
"""

import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import common, peers
from resnet_jax.config import Config, build
from resnet_jax.models.resnet import resnet_stages
from resnet_jax.training.optimizer import schedule

BATCH = 32
BLOCKS = {"preact_basic": "", "basic": "_v1"}
# Of the losses at the first step, relative: the same maths in another order, float32.
TOLERANCE = 1e-3


class Program:
    """A compiled training step that goes on from its own state at every call."""

    def __init__(self, config: Config, net: Any, params: Any):
        state = common.create_state(config, net)
        if peers.count(state.params) != peers.count(params):
            raise AssertionError("the peer has another number of parameters")
        # A copy, because a step gives its state's memory away.
        self.state = state.replace(params=jax.tree.map(jnp.array, params))
        self.batch = common.make_batch(config)
        step = common.train_step(config, net)
        self.step = (
            jax.jit(lambda state, batch: step(state, batch, None), donate_argnums=0)
            .lower(self.state, self.batch)
            .compile()
        )
        self.temp_bytes = self.step.memory_analysis().temp_size_in_bytes

    def __call__(self) -> float:
        """One step; returns the loss."""
        self.state, sums = self.step(self.state, self.batch)
        return float(sums["loss"]) / BATCH


def programs(config: Config, scan: bool) -> dict[str, Any]:
    """Name -> a training step: ours, unrolled, scan where asked for, torch where installed."""
    stages = resnet_stages(config.model.depth, config.model.block, image=32)
    pre = config.model.block.startswith("pre")
    net = build(config)
    ours = common.create_state(config, net).params
    plain = peers.from_ours(ours)
    found: dict[str, Any] = {
        "ours": Program(config, net, ours),
        "unrolled": Program(config, peers.Plain(stages, pre), plain),
    }
    if scan:
        found["scan"] = Program(config, peers.Plain(stages, pre, True), peers.stack(plain, stages))
    if common.version("torch"):
        found["torch"] = _torch_step(config, stages, pre, plain)
    return found


def _torch_step(config: Config, stages: Any, pre: bool, params: Any) -> Callable[[], float]:
    from benchmarks import torch_peer

    net = torch_peer.Plain(stages, pre)
    torch_peer.load(net, params)
    batch, o = common.make_batch(config), config.optimizer
    return torch_peer.training_step(
        net,
        np.asarray(batch.image),
        np.asarray(batch.label),
        float(schedule(config)(0)),
        o.momentum,
        o.weight_decay,
    )


def compare(
    config: Config, rounds: int, steps: int, scan_rounds: int
) -> dict[str, tuple[Any, float, list[float]]]:
    """Name -> program, loss at the first step, seconds of a step in each round.

    Raises: AssertionError where a peer's first loss shows that it is another network.
    """
    found = programs(config, scan_rounds > 0)
    first = {name: program() for name, program in found.items()}
    for name, loss in first.items():
        np.testing.assert_allclose(loss, first["ours"], TOLERANCE, err_msg=f"first loss of {name}")
    repeat = lambda program, n: lambda: [program() for _ in range(n)]
    fast = {name: repeat(p, steps) for name, p in found.items() if name != "scan"}
    seconds = {
        name: [s / steps for s in samples] for name, samples in common.alternate(fast, rounds).items()
    }
    slow = {name: repeat(p, 1) for name, p in found.items() if name == "scan"}
    seconds |= common.alternate(slow, scan_rounds)
    return {name: (found[name], first[name], seconds[name]) for name in found}


def measure(
    depths: tuple[int, ...],
    blocks: tuple[str, ...],
    rounds: int,
    steps: int,
    scan_depths: tuple[int, ...],
    scan_rounds: int = 3,
) -> tuple[list[common.Row], common.Ratios]:
    """Every net in turn; within one, its programs in alternation."""
    rows, ratios = [], {}
    for block in blocks:
        for depth in depths:
            config = common.cifar(depth, BATCH, block, "A")
            results = compare(config, rounds, steps, scan_rounds * (depth in scan_depths))
            found = {
                name: {
                    "depth": depth,
                    "block": block,
                    "net": name,
                    "samples": len(seconds),
                    "step_ms": 1e3 * statistics.median(seconds),
                    "fastest_ms": 1e3 * min(seconds),
                    "temp_mb": getattr(program, "temp_bytes", 0) / 1e6 or None,
                    "first_loss": loss,
                }
                for name, (program, loss, seconds) in results.items()
            }
            for name in ("scan", "torch"):
                found.setdefault(name, {"depth": depth, "block": block, "net": name, "step_ms": None})
            rows += found.values()
            ratios |= _ratios(f"{depth}{BLOCKS[block]}", results)
            print(f"  {depth} {block}: load average {common.load_average()}", flush=True)
    return rows, ratios


def _ratios(name: str, results: dict[str, tuple[Any, float, list[float]]]) -> common.Ratios:
    ours, _, seconds = results["ours"]
    over = lambda peer: common.ratio(seconds, results[peer][2]) if peer in results else None
    return {
        f"step_over_unrolled_{name}": over("unrolled"),
        f"step_over_torch_{name}": over("torch"),
        f"temp_over_unrolled_{name}": ours.temp_bytes / results["unrolled"][0].temp_bytes,
    }


if __name__ == "__main__":
    _DEPTHS = flags.DEFINE_list("depths", "20,56", "layers, 6n+2")
    _BLOCKS = flags.DEFINE_list("blocks", ",".join(BLOCKS), "kinds of block")
    _ROUNDS = flags.DEFINE_integer("rounds", 9, "times that each net is measured", lower_bound=1)
    _STEPS = flags.DEFINE_integer("steps", 5, "training steps a measurement", lower_bound=1)
    _SCANS = flags.DEFINE_list("scan_depths", "20", "layers of the plain nn.scan, 20x slower")
    common.run(
        "step_time",
        lambda: measure(
            common.integers(_DEPTHS),
            tuple(_BLOCKS.value),
            _ROUNDS.value,
            _STEPS.value,
            common.integers(_SCANS),
        ),
    )
