"""Whole training steps in calls of many steps, ours and PyTorch's, in turn on the same device."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common, roofs, timed
from benchmarks.torch_worker import Worker
from resnet_jax import families
from resnet_jax.data.normalise import Normalisation
from resnet_jax.keys import Config
from resnet_jax.models.stages import form_and_shape, resnet_stages
from resnet_jax.tasks import TASKS
from resnet_jax.tasks.task import Arrays
from resnet_jax.training import feeds, shard
from resnet_jax.training import state as states
from resnet_jax.training import step as steps
from resnet_jax.training.compile import ONCE, program
from resnet_jax.training.optimizer import optimizer

# Small enough that noise with random labels is fitted slowly and no loss becomes infinite.
RATE = 1e-3
# The least seconds of a measurement, which has as many turns as that takes.
SECONDS = 0.5
COLUMNS = ("images_per_s", "step_ms", "fastest_ms", "samples", "compile_s", "peak_mb")
COLUMNS += ("roof_share", "products_share", "loss", "why")
# PyTorch's modes, by the name of their rows and ratios.
MODES = {"torch": "eager", "torch_graph": "graph", "torch_compile": "compile"}


class Program(Protocol):
    """Training that goes on from its own weights, in turns of many steps."""

    compile_s: float
    peak_bytes: int | None
    loss: float
    parameters: int

    def run(self, turns: int) -> None:
        """Train for so many turns, and wait for the end."""
        ...


class Ours:
    """Training by chunks of `turn` steps, as the training loop dispatches them, on one device.

    The `examples` on the device are uint8 noise with random labels.
    """

    def __init__(
        self, config: Config, examples: int, turn: int, options: Mapping[str, Any] | None = None
    ):
        net, optim, task = families.build(config), optimizer(config), TASKS[config.task]
        shape, classes, _ = task.example(config)
        mesh, self.batch = shard.mesh(devices=1), config.batch_size
        create = functools.partial(states.create, config.seed, net, shape, optim)
        self.state = program(shard.spread(create, mesh, ()), level=ONCE)()
        draw = np.random.default_rng(0)
        split = Arrays(
            draw.integers(0, 256, (examples, *shape), np.uint8),
            draw.integers(classes, size=examples, dtype=np.int32),
        )
        feed = feeds.resident(mesh, split, [config.seed], self.batch)
        self.source, self.drawn = feed.source, feed.draw(0, turn)
        half = np.full(shape[-1], 0.5, np.float32)
        step = functools.partial(
            steps.train_step,
            apply=net.apply,
            prepare=task.prepare(config, Normalisation(half, half / 2).to_json()),
            measure=task.measure,
            optimizer=optim,
        )
        chunk = shard.spread(
            functools.partial(steps.chunk, step=step, fetch=feed.fetch, axis=shard.axis(mesh)),
            mesh,
            (shard.EACH, shard.WHOLE, shard.EACH_ROWS),
            (shard.EACH, shard.EACH),
        )
        arguments = self.state, self.source, self.drawn
        began = time.perf_counter()
        self.compiled: Any = program(
            chunk, *arguments, donate=(0,), deterministic=config.deterministic, options=options
        )
        self.compile_s = time.perf_counter() - began
        used = self.compiled.memory_analysis()
        # The new state is written over the old one, which is donated.
        self.peak_bytes = used and (
            used.argument_size_in_bytes
            + used.output_size_in_bytes
            - used.alias_size_in_bytes
            + used.temp_size_in_bytes
        )
        self.parameters = sum(a.size for a in jax.tree.leaves(self.state.params))
        self.run(1)

    def run(self, turns: int) -> None:
        """Train for so many turns, and wait for the end."""
        sums: Any = None
        for _ in range(turns):
            self.state, sums = self.compiled(self.state, self.source, self.drawn)
        self.loss = float(sums["loss"][-1]) / self.batch


class Torch:
    """The same in PyTorch's process, which holds only the network that was made last."""

    peak_bytes: int | None = None

    def __init__(self, worker: Worker, config: Config, examples: int, turn: int, mode: str):
        model, shape, o = config.model, tuple(config.data.shape), config.optimizer
        form, kind = form_and_shape(model.block)
        net = {
            "stages": tuple(model.stages)
            or resnet_stages(model.depth, model.block, min(shape[:2])),
            "pre": form == "preact",
            "width": model.width,
            "num_classes": model.num_classes,
            "bottleneck": kind == "bottleneck",
            "project": model.skip == "B",
            "stem": model.stem,
            "stride_at": model.get("stride_at", "1x1"),  # only bottlenecks have the key
        }
        self.worker, self.turn = worker, turn
        made = worker.ask(
            do="make",
            net=net,
            shape=shape,
            batch=config.batch_size,
            examples=examples,
            mode=mode,
            dtype=config.dtype,
            pad=config.data.pad,
            flip=config.data.flip,
            rate=RATE,
            momentum=o.momentum,
            weight_decay=o.weight_decay,
        )
        if (made["device"] == "cpu") != (jax.default_backend() == "cpu"):
            raise RuntimeError(f"PyTorch runs on {made['device']}, JAX on {common.device()}")
        self.compile_s, self.parameters = made["ready_s"], made["parameters"]
        self.run(1)

    def run(self, turns: int) -> None:
        """Train for so many turns, and wait for the end."""
        self.loss = self.worker.ask(do="time", steps=turns * self.turn)["loss"]


def recipe(config: Config, batch: int, dtype: str) -> Config:
    """Return a recipe as it is measured: normalised over the whole batch, at a small rate."""
    config = common.whole_batch(config, batch)
    config.dtype = dtype
    config.optimizer.learning_rate, config.schedule.warmup_steps = RATE, 0
    return config


def row(**names: Any) -> common.Row:
    """Return the row of a program that is not measured yet."""
    return {**names, **dict.fromkeys(COLUMNS), "why": timed.OUT_OF_TIME}


def device_row(dtype: str, limits: roofs.Roofs, options: Mapping[str, Any]) -> common.Row:
    """Return the row of the device: its limits, and the options that the programs had."""
    return {
        "program": "device",
        "copy_gb_per_s": limits.bandwidth / 1e9,
        f"{dtype}_tflop_per_s": 2 * limits.products / 1e12,
        "options": " ".join(f"{k}={v}" for k, v in options.items()) or "none",
    }


def device_roofs(dtype: str) -> roofs.Roofs:
    """Return this device's limits, measured with arrays that suit it."""
    if jax.default_backend() == "cpu":
        return roofs.roofs(dtype, megabytes=64, size=512)
    return roofs.roofs(dtype, megabytes=1000, size=8192)


@dataclasses.dataclass
class Contest:
    """The programs of a network: ours is measured alone, every other program in turn with ours.

    `names` are the columns that its rows have in common, `examples` the number of examples on the
    device, and `turn` the steps of a call. The ratio `roof` is our share of the bandwidth.
    """

    sheet: timed.Sheet
    clock: timed.Clock
    limits: roofs.Roofs
    config: Config
    names: common.Row
    examples: int
    turn: int
    rounds: int
    roof: str
    ours: tuple[str, Program] | None = None
    # The seconds a step of every program, of all of its rounds.
    samples: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def begin(self, name: str, options: Mapping[str, Any] | None = None) -> None:
        """Make and measure our program."""
        make = lambda: Ours(self.config, self.examples, self.turn, options)
        if made := self.clock.make(self._row(name), "ours", make):
            self.ours = name, made
            self._race(name, made, {})

    def against(
        self,
        name: str,
        make: Callable[[], Program],
        kind: str,
        *,
        expected: float | None = None,
        ours_over: str = "",
        over_ours: str = "",
    ) -> float | None:
        """Make another program, measure both, and return the seconds that it took to compile.

        The ratio `ours_over` is our step time over the other's, and `over_ours` the reverse. For
        `kind` and `expected` see `Clock.make`.
        """
        program = self.clock.make(self._row(name), kind, make, expected)
        if program is None:
            return None
        own = dict([self.ours] if self.ours else [])
        for ours in own.values():
            if ours.parameters != program.parameters:
                counts = f"{ours.parameters} and {program.parameters}"
                raise AssertionError(f"{name} of {self.names} is another network: {counts}")
        seconds = self._race(name, program, own)
        for ours in own if seconds else ():
            if ours_over:
                self.sheet.ratios[ours_over] = common.ratio(seconds[ours], seconds[name])
            if over_ours:
                self.sheet.ratios[over_ours] = common.ratio(seconds[name], seconds[ours])
        return program.compile_s

    def again(
        self,
        name: str,
        config: Config,
        options: Mapping[str, Any] | None,
        kind: str,
        ours_over: str,
        expected: float | None = None,
    ) -> float | None:
        """Measure our program, compiled from another config or with options, as `against` does."""
        make = lambda: Ours(config, self.examples, self.turn, options)
        return self.against(name, make, kind, expected=expected, ours_over=ours_over)

    def torch(
        self, name: str, worker: Worker | None, mode: str, ours_over: str = "", over_ours: str = ""
    ) -> None:
        """Measure PyTorch in this mode, if it is installed."""
        if worker is None:
            self._row(name)["why"] = "PyTorch is not installed"
            return
        make = lambda: Torch(worker, self.config, self.examples, self.turn, mode)
        self.against(name, make, mode, ours_over=ours_over, over_ours=over_ours)

    def _row(self, name: str) -> common.Row:
        return self.sheet.row(**self.names, program=name)

    def _race(
        self, name: str, program: Program, own: Mapping[str, Program]
    ) -> dict[str, list[float]]:
        """Return the seconds a step of each program in these rounds, or {} if a program fails.

        The rows get the numbers of all rounds, those of earlier calls included.
        """
        programs = {**own, name: program}

        def race():
            turns = {name: _turns(program) for name, program in programs.items()}
            calls = {name: functools.partial(p.run, turns[name]) for name, p in programs.items()}
            samples = common.alternate(calls, self.rounds)
            return {n: [s / (turns[n] * self.turn) for s in samples[n]] for n in programs}

        seconds = self.clock.make(self._row(name), "race", race) or {}
        for raced, new in seconds.items():
            samples = self.samples.setdefault(raced, [])
            samples += new
            self._row(raced).update(self._measured(programs[raced], samples))
            if self.ours and raced == self.ours[0]:
                self.sheet.ratios[self.roof] = self._row(raced)["roof_share"]
        print(f"{self.names} {name}: {common.show(self._row(name)['step_ms'])} ms", flush=True)
        return seconds

    def _measured(self, program: Program, seconds: Sequence[float]) -> common.Row:
        median = statistics.median(seconds)
        rate = self.config.batch_size / median
        moved, multiplied = self._image
        return {
            "images_per_s": rate,
            "step_ms": 1e3 * median,
            "fastest_ms": 1e3 * min(seconds),
            "samples": len(seconds),
            "compile_s": program.compile_s,
            "peak_mb": program.peak_bytes / 1e6 if program.peak_bytes else None,
            "roof_share": rate * moved / self.limits.bandwidth,
            "products_share": rate * multiplied / self.limits.products,
            "loss": program.loss,
            "why": "",
        }

    @functools.cached_property
    def _image(self) -> tuple[int, int]:
        """The bytes and multiply-adds of a training step for an image."""
        net, shape = families.build(self.config), tuple(self.config.data.shape)
        moved = roofs.elements(net, shape) * jnp.dtype(self.config.dtype).itemsize
        return moved, 3 * roofs.macs(net, shape)


def _turns(program: Program) -> int:
    began = time.perf_counter()
    program.run(1)
    return max(1, round(SECONDS / (time.perf_counter() - began)))


def worker() -> Worker | None:
    """Return PyTorch's process, or None if PyTorch is not installed."""
    return Worker() if common.version("torch") else None
