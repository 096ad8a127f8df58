"""From a config and a directory to a trained network."""

import dataclasses
import functools
import json
import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from resnet_jax import command, families
from resnet_jax import config as configs
from resnet_jax.checkpoint import Checkpoints
from resnet_jax.config import Config
from resnet_jax.data import augment, normalise, order, sources
from resnet_jax.training import directory, inputs, metrics
from resnet_jax.training import state as states
from resnet_jax.training import step as steps
from resnet_jax.training.compile import ONCE, program
from resnet_jax.training.evaluation import evaluator
from resnet_jax.training.optimizer import optimizer, schedule

# What a run that diverged says last.
ADVICE = (
    "earlier checkpoints are kept. A lower optimizer.learning_rate or a longer "
    "schedule.warmup_steps may help"
)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that has been checked and may start."""

    config: Config
    workdir: Path
    dataset: sources.Dataset
    normalisation: normalise.Normalisation


def prepare(config: Config, workdir: Path) -> Run | None:
    """Check everything that can be wrong, load the data, and write nothing; None: it is finished.

    Raises: ValueError in one line: config, data set, batch, a directory of another run.
    """
    configs.check(config)
    directory.refuse_another(workdir, config)
    if directory.finished(workdir, config.steps):
        return None
    dataset = inputs.dataset(config)
    directory.refuse_other_data(workdir, dataset.fingerprint)
    return Run(config, workdir, dataset, inputs.normalisation(config, dataset))


def train(run: Run) -> None:
    """Train to `config.steps`, from the last checkpoint where there is one, else from the seed.

    Imported weights are a checkpoint of step 0.

    Writes config.json, run.json, normalisation.json, metrics.jsonl, tensorboard/ and checkpoints/.
    Raises: FloatingPointError naming the step where the loss is not finite.
    """
    config, workdir, log = run.config, run.workdir, run.workdir / "metrics.jsonl"
    print(command.devices(), flush=True)
    began = time.perf_counter()
    # First of all: a run that is killed from here on is known for what it is.
    directory.claim(workdir, config)

    with Checkpoints(workdir / "checkpoints") as checkpoints:
        # --- where to start
        saved = checkpoints.latest()
        first = saved or 0
        net, optim = families.build(config), optimizer(config)
        create = functools.partial(states.create, config.seed, net, tuple(config.data.shape), optim)
        state = (
            program(create, level=ONCE)()
            if saved is None
            else checkpoints.restore(saved, jax.eval_shape(create))
        )
        directory.add_start(workdir, _start(run, first))
        directory.write(workdir / "normalisation.json", json.dumps(run.normalisation.to_json()))
        metrics.cut(log, first)

        # --- data, on the device
        train = run.dataset.train
        train_split = jax.device_put(
            steps.Resident(jnp.asarray(train.images), jnp.asarray(train.labels))
        )
        draw = functools.partial(
            order.chunk_indices,
            config.seed,
            batch_size=config.batch_size,
            num_examples=len(train),
        )

        # --- compile
        lengths = _chunks(config, first)
        step = functools.partial(
            steps.train_step, apply=net.apply, prepare=_augmented(run), optimizer=optim
        )
        chunk = functools.partial(steps.chunk, step=step)
        indices = lambda n: jax.ShapeDtypeStruct((n, config.batch_size), jnp.int32)
        chunks = {
            n: program(chunk, state, train_split, indices(n), donate=(0,)) for n in set(lengths)
        }
        evaluate = evaluator(net, run.normalisation, state, run.dataset.test, config.batch_size)
        finite = program(_finite, state, level=ONCE)
        compile_seconds = time.perf_counter() - began
        where = f"resumes at step {first}" if first else "starts at step 0"
        where += ", from the weights that were imported" if saved == 0 else ""
        print(f"{workdir}: {where}, ready after {compile_seconds:.1f} s", flush=True)

        # --- loop
        from tensorboardX import SummaryWriter  # late: it imports torch where torch is installed

        board = SummaryWriter(str(workdir / "tensorboard"), purge_step=first)
        bar = tqdm(total=config.steps, initial=first, unit="step", disable=None)
        write = functools.partial(_write, config, log, board)
        at, pending, clock, test = first, [], time.perf_counter(), {}
        for length in lengths:
            state, sums = chunks[length](state, train_split, draw(at, length))
            at += length
            # The last chunk's numbers are fetched while this one runs.
            _flush(pending, write)
            pending = [(at, sums)]
            if at % config.eval_every == 0 or at == config.steps:
                _flush(pending, write)
                test = evaluate(state)
                write(at, "test", test)
            if at % config.checkpoint_every == 0 or at == config.steps:
                _flush(pending, write)
                if not finite(state):
                    raise FloatingPointError(
                        f"a parameter or statistic is not finite after step {at}, which is not "
                        f"saved; {ADVICE}"
                    )
                checkpoints.save(at, state)
            speed = (at - first) * config.batch_size / (time.perf_counter() - clock)
            board.add_scalar("images_per_second", speed, at)
            bar.update(length)
            bar.set_postfix_str(f"{speed:.0f} images/s" + _shown(test))
        bar.close()
        board.close()

    seconds = time.perf_counter() - began
    end = {"seconds": seconds, "compile_seconds": compile_seconds, "images_per_second": speed}
    directory.close_run(workdir, end)
    error = metrics.last_epoch(metrics.read(log), len(run.dataset.train))["error"]
    print(f"{workdir}: train error {error:.2%}{_shown(test)} in {seconds:.0f} s", flush=True)


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
    leaves = jax.tree.leaves((state.params, state.batch_stats))
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _flush(pending, write) -> None:
    """Fetch and write the chunks that were dispatched, and forget them."""
    while pending:
        at, sums = pending.pop(0)
        sums = jax.device_get(sums)
        bad = np.flatnonzero(~np.isfinite(sums["loss"]))
        if bad.size:
            step = at - len(sums["loss"]) + int(bad[0]) + 1
            loss = float(sums["loss"][bad[0]])
            raise FloatingPointError(f"the training loss is {loss} at step {step}; {ADVICE}")
        write(at, "train", metrics.mean(sums))


def _write(config: Config, log: Path, board: Any, at: int, split: str, means) -> None:
    if not math.isfinite(means["loss"]):
        raise FloatingPointError(f"the {split} loss is {means['loss']} after step {at}; {ADVICE}")
    metrics.append(log, [{"step": at, "split": split, "seed": config.seed, **means}])
    for name in ("loss", "error"):
        board.add_scalar(f"{split}/{name}", means[name], at)
    if split == "train":
        board.add_scalar("learning_rate", np.asarray(schedule(config)(at - 1)), at)


def _shown(test: dict[str, float]) -> str:
    return f", test error {test['error']:.2%}" if test else ""


def _start(run: Run, first: int) -> dict[str, Any]:
    """One entry of run.json."""
    labels = run.dataset.train.labels
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": first,
        "command": command.command_line(),
        "devices": [f"{d.platform}:{d.device_kind}" for d in jax.devices()],
        "versions": command.versions(),
        "data_fingerprint": run.dataset.fingerprint,
        # Of always naming the largest class.
        "chance_error": 1 - float(np.bincount(labels).max()) / len(labels),
    }
