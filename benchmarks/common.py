"""What the benchmarks share: a training step to measure, programs timed in turn, and the report."""

import functools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from configs import cifar10
from resnet_jax import command
from resnet_jax.config import Config, check
from resnet_jax.training import state as states
from resnet_jax.training import step as steps
from resnet_jax.training.optimizer import optimizer

Row = dict[str, Any]
Ratios = dict[str, float | None]


def cifar(depth: int, batch_size: int, block: str = "", skip: str = "") -> Config:
    """The CIFAR-10 recipe of this ResNet, normalised over the whole batch."""
    given = {"depth": depth, "block": block, "skip": skip}
    return recipe(",".join(f"{k}={v}" for k, v in given.items() if v), batch_size)


def recipe(argument: str, batch_size: int, **model: Any) -> Config:
    """The CIFAR-10 recipe of this argument's net with these of its model's values changed."""
    with command.refusals():
        config = cifar10.get_config(argument)
        config.batch_size = batch_size
        config.norm.group_size = 0
        config.model.update(model)
        check(config)
    return config


def train_step(config: Config, net: Any) -> Callable:
    """The whole training step around any network, (state, batch, axis) -> (state, sums).

    The batch is prepared already: augmentation costs every network the same.
    """
    return functools.partial(
        steps.train_step,
        apply=net.apply,
        prepare=lambda key, batch: batch.image,
        optimizer=optimizer(config),
    )


def create_state(config: Config, net: Any) -> states.TrainState:
    """The state at step 0."""
    return states.create(config.seed, net, tuple(config.data.shape), optimizer(config))


def plain_program(function: Callable, *arguments: Any, donate: tuple[int, ...] = ()) -> Any:
    """What one would write for `training.compile.program`, which is how ours is compiled."""
    return jax.jit(function, donate_argnums=donate).lower(*arguments).compile()


def make_batch(config: Config) -> steps.Batch:
    """One batch of noise with random labels."""
    n, draw = config.batch_size, np.random.default_rng(0)
    return steps.Batch(
        image=jnp.asarray(draw.standard_normal((n, *config.data.shape), np.float32)),
        label=jnp.asarray(draw.integers(config.model.num_classes, size=n, dtype=np.int32)),
        row=jnp.arange(n, dtype=jnp.int32),
        mask=jnp.ones(n, bool),
    )


def alternate(programs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each program, each once a round, so that all of them meet the same load."""
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            began = time.perf_counter()
            program()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds of ours / theirs, the two of a round measured one after the other."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def run(name: str, measure: Callable[[], tuple[list[Row], Ratios]]) -> None:
    """Parse the flags, measure, print the report, and write it where --json says."""
    flags.DEFINE_string("json", None, "write the report to this file too")

    def main() -> None:
        # Kept programs would hide compile times, and what a program read back from disk needs.
        jax.config.update("jax_enable_compilation_cache", False)
        print(f"{name} on {device()}; load average {load_average()}", flush=True)
        before = load_average()
        report(name, before, *measure())

    command.run(main)


def report(name: str, before: float | None, rows: Sequence[Row], ratios: Ratios) -> None:
    """Print what was measured, and write it where --json says; `before`: the load at the start."""
    result = {
        "benchmark": name,
        "device": device(),
        "versions": command.versions() | {"torch": version("torch")},
        "load_average": {"before": before, "after": load_average()},
        "rows": rows,
        "ratios": ratios,
    }
    print(table(rows))
    print("\n".join(f"{key} = {show(value)}" for key, value in ratios.items()))
    print(f"load average {before} before, {load_average()} after", flush=True)
    if flags.FLAGS.json:
        Path(flags.FLAGS.json).write_text(json.dumps(result, indent=2) + "\n")


def table(rows: Sequence[Row]) -> str:
    """Rows of any keys as aligned columns; what a row lacks is left blank."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    lines = [names, *([show(row[n]) if n in row else "" for n in names] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    pad = lambda line: "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True))
    return "\n".join(map(pad, lines))


def show(value: Any) -> str:
    """A value as the table prints it."""
    if value is None:
        return "absent"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def device() -> str:
    """The devices in words; of a CPU its model and its cores."""
    found = jax.devices()
    kind = found[0].device_kind
    if found[0].platform == "cpu":
        kind = f"{_cpu_model()}, {os.cpu_count()} cores"
    return f"{len(found)} x {kind}"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def load_average() -> float | None:
    """Programs that ran or waited for a core over the last minute; None where unknown."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def version(package: str) -> str | None:
    """The installed version of a package; None where it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def integers(flag: flags.FlagHolder) -> tuple[int, ...]:
    """The whole numbers of a list flag; another value is one clear line."""
    for word in flag.value:
        if not word.isdigit():
            command.fail(f"--{flag.name}: {word!r} is not a whole number")
    return tuple(map(int, flag.value))
