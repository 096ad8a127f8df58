"""From a config and a directory to a trained network."""

import contextlib
import dataclasses
import functools
import json
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from resnet_jax import checkpoint, command, distributed, families
from resnet_jax import config as configs
from resnet_jax.checkpoint import Checkpoints
from resnet_jax.config import Config
from resnet_jax.data import augment, normalise, sources
from resnet_jax.interrupt import Interrupt
from resnet_jax.training import diagnosis, directory, inputs, metrics, shard
from resnet_jax.training import state as states
from resnet_jax.training import step as steps
from resnet_jax.training.compile import ONCE, program
from resnet_jax.training.evaluation import evaluator
from resnet_jax.training.log import ADVICE, Log
from resnet_jax.training.optimizer import optimizer


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that has been checked and may start."""

    config: Config
    workdir: directory.AnyPath
    mesh: Mesh
    dataset: sources.Dataset
    normalisation: normalise.Normalisation

    @property
    def seeds(self) -> list[int]:
        """One a replica."""
        return list(configs.seeds(self.config))


def prepare(config: Config, workdir: directory.AnyPath) -> Run | None:
    """Check everything that can be wrong, load the data, and write nothing; None: it is finished.

    Raises: ValueError in one line: config, data set, batch, devices, a directory of another run;
        OSError for a directory that is damaged or in use.
    """
    with Interrupt(str(workdir)):
        return _prepare(config, workdir)


def _prepare(config: Config, workdir: directory.AnyPath) -> Run | None:
    configs.check(config)
    directory.refuse_without_clients(workdir)
    refuse_different_processes(configs.flatten(json.loads(configs.to_json(config))))
    mesh = shard.mesh(config.replicas)
    directory.refuse_another(workdir, config)
    directory.refuse_in_use(workdir)
    config = resolved(config, workdir, mesh)
    shard.check(config, mesh)
    if distributed.agree(checkpoint.finished(workdir, config.steps)):
        return None
    dataset = inputs.dataset(config)
    directory.refuse_other_data(workdir, dataset.fingerprint)
    normalisation = inputs.normalisation(config, dataset)
    data = {"data's fingerprint": dataset.fingerprint, "data.stream": dataset.streamed}
    refuse_different_processes(data | {"normalisation": normalisation.to_json()})
    return Run(config, workdir, mesh, dataset, normalisation)


def refuse_different_processes(facts: dict[str, Any]) -> None:
    """Raise where this process knows other facts than process 0: they would not be one run.

    data.dir may differ. Raises: ValueError naming those that do, with both values.
    """
    theirs = json.loads(distributed.of_first(json.dumps(facts)))
    ours = json.loads(json.dumps(facts))
    lines = [
        f"{key}: {str(theirs.get(key))[:80]} there, {str(ours[key])[:80]} here"
        for key in ours
        if ours[key] != theirs.get(key) and key != "data.dir"
    ]
    if lines:
        raise ValueError(
            f"process {jax.process_index()} is not of the run of process 0 ({'; '.join(lines)}); "
            "give all processes the same command and the same data"
        )


def resolved(config: Config, workdir: directory.AnyPath, mesh: Mesh) -> Config:
    """The config with norm.group_size=-1 made the number that it was when the run was created.

    The number fixes the mathematics, on whatever devices the run goes on.
    """
    if config.norm.group_size != -1:
        return config
    config = config.copy_and_resolve_references()
    config.norm.group_size = config.batch_size // mesh.shape[shard.DATA]
    saved = workdir / "config.json"
    if saved.exists():  # a positive number or -1, or it would have been refused
        number = directory.read(saved)["norm"]["group_size"]
        config.norm.group_size = number if number > 0 else config.norm.group_size
    return config


def train(run: Run) -> None:
    """Train to `config.steps`, from the newest good checkpoint where there is one, else the seed.

    Imported weights are a checkpoint of step 0.

    Writes config.json, run.json, normalisation.json, metrics.jsonl, tensorboard/, checkpoints/ and
    saved.jsonl. SIGTERM and SIGINT end it at the next chunk's end, saved: see interrupt.py.
    Raises: FloatingPointError naming the step and the layer where something is not finite; OSError
        for data that cannot be read, a directory that cannot be written or is in use, checkpoints
        none of which is good; SystemExit of status 128 + the signal's number.
    """
    say(command.devices())
    began = time.perf_counter()
    with contextlib.ExitStack() as held, Interrupt(str(run.workdir)) as interrupt:
        claim(run, held)
        ready, at, speed, test = _train(run, began, interrupt)
        if at < run.config.steps:  # a signal, to this process or to another one of the run
            asked = interrupt.received or signal.SIGTERM
            say(f"{run.workdir}: saved at step {at} after {asked.name}; the same command goes on")
            sys.exit(128 + asked)
        seconds = time.perf_counter() - began
        end = {"seconds": seconds, "compile_seconds": ready, "images_per_second": speed}
        directory.close_run(run.workdir, end)
    if distributed.first():
        records = metrics.read(run.workdir / "metrics.jsonl")
        size = len(run.dataset.train)
        errors = [metrics.last_epoch(records, size, seed)["error"] for seed in run.seeds]
        say(f"{run.workdir}: train error {np.mean(errors):.2%}{_shown(test)} in {seconds:.0f} s")


def _train(
    run: Run, began: float, interrupt: Interrupt
) -> tuple[float, int, float, list[dict[str, float]]]:
    """Seconds until it was ready, and what `_loop` gives; everything is saved when it returns."""
    workdir = run.workdir
    with contextlib.ExitStack() as stack:
        found = found_by_all(workdir)
        checkpoints = stack.enter_context(Checkpoints(workdir, found))
        state, net = _begin(run, found.step)
        first = found.step or 0
        before = directory.read_starts(workdir)
        directory.add_start(workdir, _start(run, first))
        directory.write(workdir / "normalisation.json", json.dumps(run.normalisation.to_json()))
        _cut(workdir / "metrics.jsonl", first)
        feed = stack.enter_context(inputs.feed(run.mesh, run.dataset, "train", run.config, first))
        tested = stack.enter_context(inputs.feed(run.mesh, run.dataset, "test", run.config))
        programs = _compile(run, net, state, feed, tested, first)
        ready = time.perf_counter() - began
        where = f"resumes at step {first}" if first else "starts at step 0"
        where += ", from the weights that were imported" if found.step == 0 else ""
        where += ", nothing was saved before" if found.step is None and before else ""
        say(f"{workdir}: {where}, ready after {ready:.1f} s")
        board = _board(workdir, first)
        if board:
            stack.callback(board.close)
        diagnose = functools.partial(_diagnose, run, net, feed)
        log = Log(workdir / "metrics.jsonl", run.config, board, diagnose)
        interrupt.begin()
        return ready, *_loop(run, state, feed, programs, checkpoints, log, first, interrupt)


def claim(run: Run, stack: contextlib.ExitStack) -> None:
    """Make the directory this run's, for as long as the stack is open.

    First of all: a run that is killed from here on is known for what it is.
    """
    if distributed.first():
        run.workdir.mkdir(parents=True, exist_ok=True)
        stack.enter_context(directory.locked(run.workdir))
        try:  # whoever had it a moment ago may have made it another run's
            directory.refuse_another(run.workdir, run.config)
        except ValueError as error:
            raise OSError(str(error)) from error
        directory.claim(run.workdir, run.config)
    distributed.wait("claimed")
    if not _appears(run.workdir / "config.json"):
        raise FileNotFoundError(
            f"process {jax.process_index()} does not see what process 0 writes to {run.workdir}; "
            "all processes need one shared --workdir"
        )


def found_by_all(workdir: directory.AnyPath) -> checkpoint.Found:
    """What process 0 finds in the directory, for every process."""
    found = checkpoint.find(workdir) if distributed.first() else checkpoint.Found(None, {}, [])
    return found._replace(step=distributed.agree(found.step))


def _begin(run: Run, saved: int | None) -> tuple[states.TrainState, Any]:
    """The state to go on from, on the mesh, and the network."""
    config, axis, optim = run.config, shard.axis(run.mesh), optimizer(run.config)
    net = families.build(config, axis)
    make = shard.spread(
        lambda seed: states.create(seed, net, tuple(config.data.shape), optim),
        run.mesh,
        (shard.EACH,),
    )
    seeds = np.array(run.seeds if len(run.seeds) > 1 else config.seed, np.uint32)
    seeds = shard.place(run.mesh, shard.EACH, seeds)
    if saved is None:
        compiled = program(make, seeds, level=ONCE, deterministic=config.deterministic)
        return compiled(seeds), net
    like = shard.like(run.mesh, shard.EACH, jax.eval_shape(make, seeds))
    return checkpoint.restore(run.workdir, saved, like), net


@dataclasses.dataclass(frozen=True)
class Programs:
    """What a run does with its state, compiled."""

    chunks: dict[int, Callable]  # by their number of steps
    refresh: Callable  # statistics, where they are recomputed before an evaluation
    evaluate: Callable
    finite: Callable


def _compile(
    run: Run, net: Any, state: states.TrainState, feed: inputs.Feed, tested: inputs.Feed, first: int
) -> Programs:
    config, axis = run.config, shard.axis(run.mesh)
    compiled = functools.partial(program, deterministic=config.deterministic)
    step = functools.partial(
        steps.train_step,
        apply=net.apply,
        prepare=_augmented(run),
        optimizer=optimizer(config),
        skip=config.nonfinite == "skip",
    )
    chunk = SPREAD[config.parallel](
        functools.partial(steps.chunk, step=step, fetch=feed.fetch, axis=axis),
        run.mesh,
        (shard.EACH, shard.WHOLE, shard.EACH_ROWS),
        (shard.EACH, shard.EACH),
    )
    return Programs(
        {
            n: compiled(chunk, state, feed.source, feed.drawn(n), donate=(0,))
            for n in set(_chunks(config, first))
        },
        _precise(run, state, feed),
        evaluator(
            net, run.normalisation, state, tested, run.mesh, deterministic=config.deterministic
        ),
        compiled(shard.spread(_finite, run.mesh, (shard.EACH,)), state, level=ONCE),
    )


def _loop(
    run: Run,
    state: states.TrainState,
    feed: inputs.Feed,
    programs: Programs,
    checkpoints: Checkpoints,
    log: Log,
    first: int,
    interrupt: Interrupt,
) -> tuple[int, float, list[dict[str, float]]]:
    """Chunk after chunk from step `first`: (the step reached, images/s, the last test means)."""
    config, stop, save = run.config, distributed.Wish(), distributed.Wish()
    quiet = None if distributed.first() else True  # None: unless it is a terminal
    bar = tqdm(total=config.steps, initial=first, unit="step", disable=quiet)
    at, test, speed = first, [], 0.0
    clock = saved = time.perf_counter()
    for index, length in enumerate(_chunks(config, first), start=1):
        dispatched = time.perf_counter()
        state, sums = programs.chunks[length](state, feed.source, feed.draw(at, length))
        at += length
        # The last chunk's numbers are fetched while this one runs.
        log.flush(state)
        log.add(at, sums)
        if at % config.eval_every == 0 or at == config.steps:
            log.flush(state)
            state = programs.refresh(state)
            test = programs.evaluate(state)
            log.write(at, "test", test)
        checkpoints.check()
        now = time.perf_counter()
        # As if the next chunk took as long: no more than these minutes are ever lost.
        late = 2 * now - dispatched - saved > 60 * config.checkpoint_minutes
        due = at % config.checkpoint_every == 0 or at == config.steps
        due |= save.granted(late, index)
        if stops := stop.granted(interrupt.received is not None, index):
            due = True
        if due:
            log.flush(state)  # first: a checkpoint's records are there when it is
            if not distributed.fetch(programs.finite(state)).all():
                raise FloatingPointError(
                    f"a parameter or statistic is not finite after step {at}, which is not "
                    f"saved; {ADVICE}"
                )
            checkpoints.save(at, state)
            saved = time.perf_counter()
        images = (at - first) * config.batch_size * config.replicas
        speed = images / (time.perf_counter() - clock)
        bar.update(length)
        bar.set_postfix_str(f"{speed:.0f} images/s" + _shown(test))
        if log.board:
            log.board.add_scalar("images_per_second", speed, at)
        if stops:
            break
    bar.close()
    return at, speed, test


SPREAD = {"shard_map": shard.spread, "pmap": shard.spread_by_pmap}


@distributed.by_first
def say(line: str) -> None:
    """Tell who started the run."""
    print(line, flush=True)


def _appears(path: directory.AnyPath, seconds: float = 60.0) -> bool:
    """Whether a file that another process wrote is seen; shared folders may be late with it."""
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(1)
    return True


@distributed.by_first
def _cut(log: directory.AnyPath, first: int) -> None:
    """Leave the records to step `first`, and tell where there are none of it."""
    metrics.cut(log, first)
    if first and first not in {record["step"] for record in metrics.read(log)}:
        say(f"warning: {log} has no records of step {first}, which is saved: some are lost")


@distributed.by_first
def _board(workdir: directory.AnyPath, first: int) -> Any:
    from resnet_jax.training.board import Board  # late: it imports torch where torch is installed

    return Board(workdir / "tensorboard", first)


def _precise(run: Run, state: states.TrainState, feed: inputs.Feed) -> Callable:
    """state -> state with the statistics of norm.precise batches, the first that were drawn."""
    config, axis = run.config.copy_and_resolve_references(), shard.axis(run.mesh)
    batches = config.norm.precise
    if not batches:
        return lambda state: state
    config.norm.group_size, config.norm.momentum = 0, 0.0
    one = functools.partial(
        steps.precise,
        apply=families.build(config, axis).apply,
        prepare=_augmented(run),
        fetch=feed.fetch,
        axis=axis,
    )
    specs = (shard.EACH, shard.WHOLE, shard.EACH_ROWS)
    whole = shard.spread(one, run.mesh, specs)
    recompute = program(
        whole,
        state,
        feed.source,
        feed.drawn(batches),
        donate=(0,),
        deterministic=config.deterministic,
    )
    return lambda state: recompute(state, feed.source, feed.draw(0, batches))


def _chunks(config: Config, first: int) -> list[int]:
    """Lengths of the chunks that are left: their ends are absolute multiples of chunk_steps."""
    ends = range(
        first - first % config.chunk_steps + config.chunk_steps, config.steps, config.chunk_steps
    )
    marks = [first, *ends, config.steps]
    return [b - a for a, b in zip(marks, marks[1:], strict=False)]


def _augmented(run: Run) -> steps.Prepare:
    data = run.config.data

    def prepare(key: Any, batch: steps.Batch):
        image = normalise.apply(run.normalisation, batch.image)
        return augment.pad_crop_flip(key, image, batch.row, data.pad, data.flip)

    return prepare


def _finite(state: states.TrainState):
    """Whether every parameter and statistic is a number."""
    return steps.all_finite((state.params, state.batch_stats))


def _diagnose(
    run: Run, net: Any, feed: inputs.Feed, state: states.TrainState, step: int, replica: int
) -> str:
    """What was the first in this step that was not finite; `state` is that from before it."""
    order, axis = diagnosis.Order(), shard.axis(run.mesh)
    look = functools.partial(
        diagnosis.look,
        apply=net.apply,
        prepare=_augmented(run),
        fetch=feed.fetch,
        axis=axis,
        order=order,
    )
    drawn = feed.draw(step - 1, 1)
    whole = shard.spread(look, run.mesh, (shard.EACH, shard.WHOLE, shard.EACH_ROWS))
    found = distributed.fetch(program(whole, state, feed.source, drawn)(state, feed.source, drawn))
    if len(run.seeds) > 1:
        found = jax.tree.map(lambda flags: flags[replica], found)
    return diagnosis.first(found, order) or "looked at again, all of it is finite"


def _shown(test: list[dict[str, float]]) -> str:
    return f", test error {np.mean([t['error'] for t in test]):.2%}" if test else ""


def _start(run: Run, first: int) -> dict[str, Any]:
    """One entry of run.json."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": first,
        "command": command.command_line(),
        "devices": [f"{d.platform}:{d.device_kind}" for d in jax.devices()],
        "versions": command.versions(),
        "data_fingerprint": run.dataset.fingerprint,
        "chance_error": _chance_error(run.dataset),
    }


def _chance_error(dataset: sources.Dataset) -> float:
    """Of always naming the largest class; of a streamed data set, as if all were as large."""
    if isinstance(dataset.train, sources.Split):
        labels = dataset.train.labels
        return 1 - float(np.bincount(labels).max()) / len(labels)
    return 1 - 1 / dataset.info.num_classes
