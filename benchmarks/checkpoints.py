"""What checkpoints cost: their checksums beside the save itself, and a save beside training.

    python -m benchmarks.checkpoints [--depth=110 --megabytes=14,1000 --json=FILE]

`save` is a save of a state of so many megabytes until orbax has committed it, `seal` reading it
back for the manifest, `verify` what a restore does first. `train` are --steps steps of a ResNet on
batches of 128, `train_saving` the same while a save of its state runs beside them, which begins
before and may end after: `lost`, the difference, is what a save takes from training. Its share is
that of ten minutes, the longest that the default config trains without a save.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import common
from resnet_jax import checkpoint, families
from resnet_jax import config as configs
from resnet_jax.checkpoint import Checkpoints, Found
from resnet_jax.training.compile import program
from resnet_jax.training.state import TrainState

NOTHING = Found(None, {}, [])
MINUTES = configs.base().checkpoint_minutes


def checksums(megabytes: int, rounds: int) -> tuple[common.Row, common.Ratios]:
    """Seconds of a save, of its manifest and of verifying it, medians over the rounds."""
    parts = max(1, min(100, megabytes // 2))
    draw = np.random.default_rng(0)
    arrays = [draw.random(megabytes * 250_000 // parts, np.float32) for _ in range(parts)]
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params={str(i): jnp.asarray(a) for i, a in enumerate(arrays)},
        batch_stats={},
        opt_state={},
        key=jax.random.key(0),
        skipped=jnp.zeros((), jnp.int32),
    )
    seconds: dict[str, list[float]] = {"save": [], "seal": [], "verify": []}
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder), NOTHING) as checkpoints:
        for step in range(rounds):
            began = time.perf_counter()
            checkpoints.save(step, state)
            checkpoints.wait()
            saved = time.perf_counter()
            checkpoint.seal(Path(folder), step)
            sealed = time.perf_counter()
            if wrong := checkpoint.verify(Path(folder) / "checkpoints" / str(step)):
                raise RuntimeError(wrong)
            verified = time.perf_counter()
            seconds["save"].append(saved - began - (sealed - saved))  # which the save did too
            seconds["seal"].append(sealed - saved)
            seconds["verify"].append(verified - sealed)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    row = {"program": f"save_{megabytes}_mb", "rounds": rounds, **medians}
    return row, {
        f"{name}_over_save_{megabytes}_mb": common.ratio(seconds[name], seconds["save"])
        for name in ("seal", "verify")
    }


def training(depth: int, steps: int, rounds: int) -> tuple[common.Row, common.Ratios]:
    """Seconds of training with and without a save beside it."""
    config = common.cifar(depth, 128)
    net = families.build(config)
    state, batch = common.create_state(config, net), common.make_batch(config)
    one = common.train_step(config, net)
    step = program(lambda s, b: one(s, b, None)[0], state, batch)

    def train(state: Any) -> None:
        for _ in range(steps):
            state = step(state, batch)
        jax.block_until_ready(state)

    train(state)
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder), NOTHING) as checkpoints:
        saves = iter(range(rounds))

        def saving() -> None:
            checkpoints.save(next(saves), state)
            train(state)
            checkpoints.wait()

        seconds = common.alternate({"train": lambda: train(state), "saving": saving}, rounds)
    lost = statistics.median(
        a - b for a, b in zip(seconds["saving"], seconds["train"], strict=True)
    )
    row = {
        "program": f"train_{depth}",
        "rounds": rounds,
        "steps": steps,
        "train": statistics.median(seconds["train"]),
        "train_saving": statistics.median(seconds["saving"]),
        "lost": lost,
    }
    return row, {f"save_of_{MINUTES:.0f}_minutes_{depth}": lost / (60 * MINUTES)}


def measure(
    depth: int, steps: int, rounds: int, megabytes: tuple[int, ...]
) -> tuple[list[common.Row], common.Ratios]:
    """All of it."""
    found = [checksums(size, rounds) for size in megabytes] + [training(depth, steps, rounds)]
    ratios: common.Ratios = {}
    for _, some in found:
        ratios |= some
    return [row for row, _ in found], ratios


if __name__ == "__main__":
    _DEPTH = flags.DEFINE_integer("depth", 110, "layers of the ResNet")
    _STEPS = flags.DEFINE_integer("steps", 4, "steps of a measurement", lower_bound=1)
    _ROUNDS = flags.DEFINE_integer("rounds", 5, "times that each is measured", lower_bound=1)
    _MEGABYTES = flags.DEFINE_list("megabytes", ["14", "1000"], "sizes of states")
    common.run(
        "checkpoints",
        lambda: measure(_DEPTH.value, _STEPS.value, _ROUNDS.value, common.integers(_MEGABYTES)),
    )
