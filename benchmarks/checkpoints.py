"""What checkpoints cost: their checksums, compared with the save itself, and a save in training.

    python -m benchmarks.checkpoints [--depth=110 --megabytes=14,1000 --json=FILE]

`save` are the seconds until orbax has committed a state of so many megabytes. `seal` are those of
reading the files again for the manifest, and `verify` those of the checks before a restore. `train`
are the seconds of --steps training steps of a ResNet on batches of 128, and `train_saving` the same
with a save of its state that begins before the steps and may end after them. `lost`, the
difference, is what a save takes from training. Its ratio is the share of the ten minutes after
which a save is due with the default config.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from resnet_jax import families
from resnet_jax.choices import COMMON
from resnet_jax.command import whole
from resnet_jax.run import checkpoint
from resnet_jax.run.checkpoint import Checkpoints, Found
from resnet_jax.training.compile import ONCE, program
from resnet_jax.training.state import TrainState

NOTHING = Found(None, {}, [])
MINUTES = COMMON["checkpoint_minutes"].default


def checksums(megabytes: int, rounds: int) -> tuple[common.Row, common.Ratios]:
    """Return the seconds of a save, of its manifest and of verifying it, medians over rounds."""
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
            if problem := checkpoint.verify(Path(folder) / "checkpoints" / str(step)):
                raise RuntimeError(problem)
            verified = time.perf_counter()
            # The save has sealed the step too, which takes as long as sealing it again.
            seconds["save"].append(saved - began - (sealed - saved))
            seconds["seal"].append(sealed - saved)
            seconds["verify"].append(verified - sealed)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    row = {"program": f"save_{megabytes}_mb", "rounds": rounds, **medians}
    return row, {
        f"{name}_over_save_{megabytes}_mb": common.ratio(seconds[name], seconds["save"])
        for name in ("seal", "verify")
    }


def training(depth: int, steps: int, rounds: int) -> tuple[common.Row, common.Ratios]:
    """Return the seconds of training without a save, and with a save at the same time."""
    config = common.cifar(depth, 128)
    net = families.build(config)
    state = program(lambda: common.create_state(config, net), level=ONCE)()
    batch = common.make_batch(config)
    train_step = common.train_step(config, net)
    step = program(lambda s, b: train_step(s, b, None)[0], state, batch)

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
    """Measure saves of all sizes, and training."""
    results = [checksums(size, rounds) for size in megabytes] + [training(depth, steps, rounds)]
    ratios: common.Ratios = {}
    for _, some in results:
        ratios |= some
    return [row for row, _ in results], ratios


def main(words: list[str] | None = None) -> None:
    """Read the command line, measure and report."""
    parser = common.parser("checkpoints", __doc__, "--depth=110 --megabytes=14,1000")
    flag = parser.add_argument
    flag("--depth", type=whole(1), default=110, help="layers of the ResNet (default: %(default)s)")
    flag("--steps", type=whole(1), default=4, help="steps a measurement (default: %(default)s)")
    flag("--rounds", type=whole(1), default=5, help="measurements of each (default: %(default)s)")
    flag(
        "--megabytes",
        type=common.integers,
        default="14,1000",
        help="sizes of the saved states (default: %(default)s)",
    )
    arguments = parser.read(words)
    common.run(
        "checkpoints",
        arguments,
        lambda: measure(arguments.depth, arguments.steps, arguments.rounds, arguments.megabytes),
    )


if __name__ == "__main__":
    common.start(main)
