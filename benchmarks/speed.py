"""Whole training steps in many-step calls, ours and PyTorch's, in turn on one device."""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks import common, roofs, timed
from benchmarks.torch_worker import Worker
from resnet_jax import command, families
from resnet_jax.config import Config
from resnet_jax.data import augment, normalise, order
from resnet_jax.models.resnet import form_and_shape, resnet_stages
from resnet_jax.training import state as states
from resnet_jax.training import step as steps
from resnet_jax.training.compile import ONCE, program
from resnet_jax.training.optimizer import optimizer

# Small enough that noise with random labels is fitted slowly and no loss becomes infinite.
RATE = 1e-3
# Of one measurement, at least: a turn is shorter.
SECONDS = 0.5
FOUND = ("images_per_s", "step_ms", "fastest_ms", "samples", "compile_s", "peak_mb")
FOUND += ("roof_share", "products_share", "loss", "why")
# What PyTorch is tried in, by the name of its rows and ratios.
MODES = {"torch": "eager", "torch_graph": "graph", "torch_compile": "compile"}


class Program(Protocol):
    """Training that goes on from its own weights, by turns of some steps."""

    compile_s: float
    peak_bytes: int | None
    loss: float
    parameters: int

    def run(self, turns: int) -> None:
        """Train, and wait for the end."""
        ...


class Ours:
    """Training by chunks of `turn` steps, as the training loop dispatches them."""

    def __init__(
        self, config: Config, examples: int, turn: int, options: Mapping[str, Any] | None = None
    ):
        net, optim, shape = families.build(config), optimizer(config), tuple(config.data.shape)
        self.state = program(
            functools.partial(states.create, config.seed, net, shape, optim), level=ONCE
        )()
        draw, classes = np.random.default_rng(0), config.model.num_classes
        self.source = steps.Resident(
            jnp.asarray(draw.integers(0, 256, (examples, *shape), np.uint8)),
            jnp.asarray(draw.integers(classes, size=examples, dtype=np.int32)),
        )
        self.batch = config.batch_size
        self.indices = jnp.asarray(order.chunk_indices(0, 0, turn, self.batch, examples))
        step = functools.partial(
            steps.train_step, apply=net.apply, prepare=_prepare(config), optimizer=optim
        )
        chunk = functools.partial(steps.chunk, step=step)
        began = time.perf_counter()
        self.compiled: Any = program(
            chunk,
            *(self.state, self.source, self.indices),
            donate=(0,),
            deterministic=config.deterministic,
            options=options,
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
        """Train, and wait for the end."""
        sums: Any = None
        for _ in range(turns):
            self.state, sums = self.compiled(self.state, self.source, self.indices)
        self.loss = float(sums["loss"][-1]) / self.batch


def _prepare(config: Config) -> steps.Prepare:
    channels, data = config.data.shape[-1], config.data
    half = np.full(channels, 0.5, np.float32)
    to_input = normalise.Normalisation(half, half / 2)

    def prepare(key: Any, batch: steps.Batch):
        image = normalise.apply(to_input, batch.image)
        return augment.pad_crop_flip(key, image, batch.row, data.pad, data.flip)

    return prepare


class Torch:
    """The same in PyTorch's process, which holds one network at a time: the last one made."""

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
            "stride_at": model.stride_at,
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
        """Train, and wait for the end."""
        self.loss = self.worker.ask(do="time", steps=turns * self.turn)["loss"]


def recipe(config: Config, batch: int, dtype: str) -> Config:
    """A recipe's network as it is measured: this batch, normalised whole, at a small rate."""
    config.batch_size, config.dtype, config.norm.group_size = batch, dtype, 0
    config.optimizer.learning_rate, config.schedule.warmup_steps = RATE, 0
    return config


def row(**names: Any) -> common.Row:
    """The row of a program that is still to be measured."""
    return {**names, **dict.fromkeys(FOUND), "why": timed.OUT_OF_TIME}


def device_row(dtype: str, limits: roofs.Roofs, options: Mapping[str, Any]) -> common.Row:
    """The row of the device: what its programs' shares are of, and the options they had."""
    return {
        "program": "device",
        "copy_gb_per_s": limits.bandwidth / 1e9,
        f"{dtype}_tflop_per_s": 2 * limits.products / 1e12,
        "options": " ".join(f"{k}={v}" for k, v in options.items()) or "none",
    }


def device_roofs(dtype: str) -> roofs.Roofs:
    """This device's, measured with arrays that fit it."""
    if jax.default_backend() == "cpu":
        return roofs.roofs(dtype, megabytes=64, size=512)
    return roofs.roofs(dtype, megabytes=1000, size=8192)


@dataclasses.dataclass
class Contest:
    """One network: ours is measured alone, and every other program in turn with it.

    `names` are what its rows have in common, `examples` those on the device, `turn` the steps of a
    call, `roof` the name of the ratio that is ours's share of the bandwidth.
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
    # Seconds a step of every program, all of its rounds.
    samples: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def begin(self, name: str, options: Mapping[str, Any] | None = None) -> None:
        """Make and measure ours."""
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
        """Make another and measure both; name the ratio of step times one way or the other.

        Returns the seconds that it took to compile. `kind` and `expected`: see `Clock.make`.
        """
        program = self.clock.make(self._row(name), kind, make, expected)
        if program is None:
            return None
        beside = dict([self.ours] if self.ours else [])
        for ours in beside.values():
            if ours.parameters != program.parameters:
                counts = f"{ours.parameters} and {program.parameters}"
                raise AssertionError(f"{name} of {self.names} is another network: {counts}")
        seconds = self._race(name, program, beside)
        for ours in beside if seconds else ():
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
        ours_over: str,
        expected: float | None = None,
    ) -> float | None:
        """Measure ours compiled from another config or with these options, as `against`."""
        make = lambda: Ours(config, self.examples, self.turn, options)
        return self.against(name, make, "ours", expected=expected, ours_over=ours_over)

    def torch(
        self, name: str, worker: Worker | None, mode: str, ours_over: str = "", over_ours: str = ""
    ) -> None:
        """Measure PyTorch in this mode, where it is installed."""
        if worker is None:
            self._row(name)["why"] = "PyTorch is not installed"
            return
        make = lambda: Torch(worker, self.config, self.examples, self.turn, mode)
        self.against(name, make, mode, ours_over=ours_over, over_ours=over_ours)

    def _row(self, name: str) -> common.Row:
        return self.sheet.row(**self.names, program=name)

    def _race(
        self, name: str, program: Program, beside: Mapping[str, Program]
    ) -> dict[str, list[float]]:
        """Seconds a step of each of these rounds, empty where it fails; rows get all rounds'."""
        programs = {**beside, name: program}

        def race():
            turns = {name: _turns(one) for name, one in programs.items()}
            calls = {name: functools.partial(p.run, turns[name]) for name, p in programs.items()}
            samples = common.alternate(calls, self.rounds)
            return {n: [s / (turns[n] * self.turn) for s in samples[n]] for n in programs}

        seconds = self.clock.make(self._row(name), "race", race) or {}
        for one, found in seconds.items():
            every = self.samples.setdefault(one, [])
            every += found
            self._row(one).update(self._measured(programs[one], every))
            if self.ours and one == self.ours[0]:
                self.sheet.ratios[self.roof] = self._row(one)["roof_share"]
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
        """Bytes and multiply-adds of a training step, of one image."""
        net, shape = families.build(self.config), tuple(self.config.data.shape)
        moved = roofs.elements(net, shape) * jnp.dtype(self.config.dtype).itemsize
        return moved, 3 * roofs.macs(net, shape)


def _turns(program: Program) -> int:
    began = time.perf_counter()
    program.run(1)
    return max(1, round(SECONDS / (time.perf_counter() - began)))


def worker() -> Worker | None:
    """PyTorch's process; None where it is not installed."""
    return Worker() if common.version("torch") else None


def define_flags() -> tuple[flags.FlagHolder, flags.FlagHolder, flags.FlagHolder]:
    """--dtype, --rounds and --xla_option, as often as wanted."""
    return (
        flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float32"], "of activations"),
        flags.DEFINE_integer("rounds", 5, "times that each is measured", lower_bound=1),
        flags.DEFINE_multi_string("xla_option", [], "NAME=VALUE of an XLA flag, for our programs"),
    )


def options(words: Sequence[str]) -> dict[str, Any]:
    """The options of these words, as XLA's compiler takes them; another word is one clear line."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not name or not equals:
            command.fail(f"--xla_option={word}: it is NAME=VALUE, an XLA flag's")
        found[name] = {"true": True, "false": False}.get(value.lower(), value)
    return found
