"""Code that the benchmarks share: a training step, programs timed in turn, and the report."""

import argparse
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

from configs import cifar10
from resnet_jax import command, memory, provenance
from resnet_jax.config import check
from resnet_jax.keys import Config
from resnet_jax.tasks import TASKS
from resnet_jax.tasks.task import Batch
from resnet_jax.training import state as states
from resnet_jax.training import step as steps
from resnet_jax.training.optimizer import optimizer

Row = dict[str, Any]
Ratios = dict[str, float | None]


# --- networks and their training steps


def cifar(depth: int, batch_size: int, block: str = "", skip: str = "") -> Config:
    """Return the CIFAR-10 recipe of a ResNet, normalised over the whole batch."""
    switches = {"depth": depth, "block": block, "skip": skip}
    argument = ",".join(f"{name}={value}" for name, value in switches.items() if value)
    return recipe(argument, batch_size)


def recipe(argument: str, batch_size: int, **model: Any) -> Config:
    """Return the CIFAR-10 recipe of the argument's network, normalised over the whole batch.

    `model` are values of model keys. A mistake in the argument is one line and status 2.
    """
    with command.refusals():
        config = whole_batch(cifar10.get_config(argument), batch_size)
        config.model.update(model)
        check(config)
    return config


def whole_batch(config: Config, batch_size: int) -> Config:
    """Return a copy with this batch size, whose batch norm, if any, normalises the whole batch."""
    config = memory.changed(config, batch_size=batch_size)
    if config.norm.kind == "batch":
        config.norm.group_size = 0
    return config


def train_step(config: Config, net: Any) -> Callable:
    """Return the training step of any network, (state, batch, axis) -> (state, sums).

    The batch is already prepared, because augmentation costs every network the same.
    """
    return functools.partial(
        steps.train_step,
        apply=net.apply,
        prepare=lambda key, batch: batch,
        measure=TASKS[config.task].measure,
        optimizer=optimizer(config),
    )


def create_state(config: Config, net: Any) -> states.TrainState:
    """Return the state at step 0."""
    shape = TASKS[config.task].example(config).shape
    return states.create(config.seed, net, shape, optimizer(config))


def make_batch(config: Config) -> Batch:
    """Return a batch of the config's classification task: noise with random labels."""
    n, draw = config.batch_size, np.random.default_rng(0)
    shape, classes, _ = TASKS[config.task].example(config)
    return Batch(
        input=jnp.asarray(draw.standard_normal((n, *shape), np.float32)),
        target=jnp.asarray(draw.integers(classes, size=n, dtype=np.int32)),
        row=jnp.arange(n, dtype=jnp.int32),
        mask=jnp.ones(n, bool),
    )


def plain_program(function: Callable, *arguments: Any, donate: tuple[int, ...] = ()) -> Any:
    """Compile as without this package, by `jax.jit`; see `training.compile.program`."""
    return jax.jit(function, donate_argnums=donate).lower(*arguments).compile()


# --- time


def alternate(programs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each program in each round.

    In every round each program runs once, so that all programs meet the same load.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            began = time.perf_counter()
            program()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the median over the rounds of numerator / denominator.

    The two numbers of a round were measured one after the other.
    """
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


# --- the command


def parser(name: str, doc: str | None, flags: str = "") -> command.Parser:
    """Return the parser of `python -m benchmarks.NAME`, with --json.

    The first paragraph of `doc`, the module's docstring, says what the command does. `flags` are
    those of the example.
    """
    module = f"benchmarks.{name}"
    purpose = (doc or "").partition("\n\n")[0]
    example = " ".join(filter(None, ("python -m", module, flags, "--json=FILE")))
    parser = command.Parser(module, purpose, example)
    parser.add_json("the report")
    return parser


def integers(text: str) -> tuple[int, ...]:
    """Return the numbers of a flag such as --depths=20,56.

    Raises: argparse.ArgumentTypeError for anything else than whole numbers with commas.
    """
    words = list(filter(None, text.split(",")))
    for word in words:
        if not (word.isascii() and word.isdecimal()):
            raise argparse.ArgumentTypeError(f"{word!r} is no whole number")
    return tuple(map(int, words))


def run(
    name: str,
    arguments: command.Arguments,
    measure: Callable[[], tuple[Sequence[Row], Ratios]],
) -> None:
    """Measure, print the report, and write it to the file of --json."""
    if arguments.json is not None:
        with command.refusals():
            command.check_file("--json", arguments.json, "report.json")
    print(f"{name} on {device()}; load average {load_average()}", flush=True)
    before = load_average()
    report(name, arguments.json, before, *measure())


def start(main: Callable[[], None]) -> None:
    """Call the `main` of a benchmark as a command, without the cache of compiled programs.

    The cache would hide compile times, and a program from the cache does not tell its memory.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    command.run(main)


# --- the report


def report(
    name: str, file: Path | None, before: float | None, rows: Sequence[Row], ratios: Ratios
) -> None:
    """Print the measurements, and write them to `file`; `before` is the load at the start."""
    result = {
        "benchmark": name,
        "device": device(),
        "versions": provenance.versions() | {"torch": version("torch")},
        "load_average": {"before": before, "after": load_average()},
        "rows": rows,
        "ratios": ratios,
    }
    print(table(rows))
    print("\n".join(f"{key} = {show(value)}" for key, value in ratios.items()))
    print(f"load average {before} before, {load_average()} after", flush=True)
    if file is not None:
        file.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def table(rows: Sequence[Row]) -> str:
    """Return rows of any keys as aligned columns; a cell whose row lacks the key is blank."""
    names = list(dict.fromkeys(key for row in rows for key in row))
    lines = [names, *([show(row[n]) if n in row else "" for n in names] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    pad = lambda line: "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True))
    return "\n".join(map(pad, lines))


def show(value: Any) -> str:
    """Return a value as the table prints it."""
    if value is None:
        return "absent"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def device() -> str:
    """Return the devices in words: their number and kind; for a CPU its model and its cores."""
    devices = jax.devices()
    kind = devices[0].device_kind
    if devices[0].platform == "cpu":
        kind = f"{_cpu_model()}, {os.cpu_count()} cores"
    return f"{len(devices)} x {kind}"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def load_average() -> float | None:
    """Return how many programs ran or waited for a core, averaged over the last minute.

    None if the system does not tell.
    """
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def version(package: str) -> str | None:
    """Return the version of an installed package, or None if it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
