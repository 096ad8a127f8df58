"""Train a network: from a config to its last checkpoint.

`prepare` checks everything that can be wrong and writes nothing; `train` is the whole run, to be
read from top to bottom. The experiments call both, too.
"""

import contextlib
import functools
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from tqdm import tqdm

from resnet_jax import cluster, command, config_file, distributed, families, provenance
from resnet_jax import config as configs
from resnet_jax.keys import Config
from resnet_jax.run import best, checkpoint, directory, programs, records, start
from resnet_jax.run.checkpoint import Checkpoints
from resnet_jax.run.interrupt import Interrupt
from resnet_jax.run.log import ADVICE, Log
from resnet_jax.run.start import Run, say
from resnet_jax.tasks import TASKS
from resnet_jax.tasks.task import Task
from resnet_jax.training import feeds, groups, shard
from resnet_jax.training import step as steps
from resnet_jax.training.compile import ONCE, program
from resnet_jax.training.evaluation import evaluator
from resnet_jax.training.optimizer import optimizer


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, and train."""
    parser = command.Parser(
        "resnet_jax.train",
        "Train a network on all devices that JAX sees. The same command in the same directory goes "
        "on where the run stopped.",
        "python -m resnet_jax.train --config=configs/digits.py:depth=20 --workdir=runs/resnet-20",
    )
    parser.add_config()
    parser.add_argument("--workdir", required=True, help="the run's directory")
    parser.add_argument("--data_dir", help="tensorflow-datasets folder (data.dir)")
    cluster.add_flags(parser)
    arguments = parser.read(words)
    with contextlib.ExitStack() as stack:
        with command.refusals():
            config = command.load_config(arguments, arguments.data_dir)
            config_file.refuse_other_networks(arguments.config, config)
            stack.enter_context(cluster.join(arguments))
            run = prepare(config, arguments.workdir)
        if run is None:
            say(f"{arguments.workdir}: finished at step {config.steps}")
        else:
            train(run)


def prepare(config: Config, workdir: str | directory.AnyPath) -> Run | None:
    """Check everything that can be wrong and load the data; return None if the run is finished.

    Nothing is written. Raises: ValueError in one line for a config, data set, batch or number of
    devices that does not fit, and for a directory of another run; OSError for a directory that is
    damaged or in use.
    """
    workdir = directory.at(workdir)
    with Interrupt(str(workdir)):
        configs.check(config)
        start.refuse_different_processes(configs.flatten(json.loads(configs.to_json(config))))
        mesh = shard.mesh(config.replicas)
        directory.refuse_another(workdir, config)
        directory.refuse_in_use(workdir)
        config = start.resolved(config, workdir, mesh)
        shard.check(config, mesh)
        if distributed.agree(checkpoint.finished(workdir, config.steps)):
            return None
        directory.refuse_unwritable(workdir)
        task = TASKS[config.task]
        dataset = task.build(config)
        if dataset.train is None:
            raise ValueError(
                f"{config.data.name} has no split train; evaluate --data_name measures a run on it"
            )
        directory.refuse_other_data(workdir, dataset.fingerprint)
        statistics = task.statistics(config, dataset)
        facts = {"data's fingerprint": dataset.fingerprint, "data.stream": dataset.streamed}
        start.refuse_different_processes(facts | {"statistics": statistics})
        return Run(config, workdir, mesh, dataset, statistics)


def train(run: Run, facts: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Train to `config.steps`, from the newest good checkpoint if there is one, else from the seed.

    Imported weights are a checkpoint of step 0. The run writes config.json, run.json,
    normalisation.json, metrics.jsonl, tensorboard/, checkpoints/ and saved.jsonl, and best/ if
    there is a validation split. SIGTERM, SIGINT and SIGHUP end it at the next chunk's end, saved
    (run/interrupt.py).
    Raises: FloatingPointError with the step and the layer if something is not finite; OSError for
        data that cannot be read, for a directory that cannot be written or is in use, and if none
        of the saved checkpoints is good; SystemExit with status 128 + the signal's number.
    """
    say(provenance.devices())
    began = time.perf_counter()
    config, workdir, mesh, task = run.config, run.workdir, run.mesh, run.task
    with contextlib.ExitStack() as held, Interrupt(str(workdir)) as interrupt:
        # --- directory
        start.claim(workdir, config, held)
        with contextlib.ExitStack() as stack:
            found = start.find_checkpoint(workdir)
            checkpoints = stack.enter_context(Checkpoints(workdir, found))
            first = found.step or 0
            earlier_starts = directory.read_starts(workdir)

            # --- network, optimizer and state
            axis = shard.axis(mesh)
            net = families.build(config, axis)
            state = programs.first_state(run, net, found.step)
            prepare_batch = task.prepare(config, run.statistics)
            for line in groups.in_words(config, state.params):
                say(line)
            start.record(workdir, run.dataset, run.statistics, task.score, first, facts)

            # --- data
            feed = stack.enter_context(feeds.feed(mesh, run.dataset, "train", config, first))
            tested = stack.enter_context(feeds.feed(mesh, run.dataset, "test", config))

            # --- programs
            compiled = functools.partial(program, deterministic=config.deterministic)
            step = functools.partial(
                steps.train_step,
                apply=net.apply,
                prepare=prepare_batch,
                measure=task.measure,
                optimizer=optimizer(config),
                skip=config.nonfinite == "skip",
                parts=config.accumulate,
                ema_decay=config.optimizer.ema_decay,
            )
            chunk = shard.SPREAD[config.parallel](
                functools.partial(steps.chunk, step=step, fetch=feed.fetch, axis=axis),
                mesh,
                (shard.EACH, feed.spec, shard.EACH_ROWS),
                (shard.EACH, shard.EACH),
            )
            lengths = programs.chunk_lengths(config, first)
            chunks = {
                n: compiled(chunk, state, feed.source, feed.drawn(n), donate=(0,))
                for n in set(lengths)
            }
            refresh = programs.statistics_refresher(run, state, feed)
            evaluate = evaluator(
                net.apply, prepare_batch, task.measure, state, tested, mesh, config.deterministic
            )
            finite = compiled(shard.spread(programs.finite, mesh, (shard.EACH,)), state, level=ONCE)
            ready = time.perf_counter() - began
            say(f"{workdir}: {_beginning(found.step, earlier_starts)}, ready after {ready:.1f} s")

            # --- records
            board = _board(workdir, first)
            if board:
                stack.callback(board.close)
            diagnose = functools.partial(programs.diagnose, run, net, feed)
            log = Log(workdir / "metrics.jsonl", config, board, diagnose, task.score)
            validate = stack.enter_context(
                programs.validator(run, net.apply, prepare_batch, state, first, log)
            )

            # --- loop: chunk after chunk; a checkpoint, an evaluation and a stop come at chunk ends
            interrupt.begin()
            stop, save = distributed.Wish(), distributed.Wish()
            quiet = None if distributed.first() else True  # None: no bar unless on a terminal
            bar = tqdm(total=config.steps, initial=first, unit="step", disable=quiet)
            at, test, speed = first, [], 0.0
            clock = saved_at = time.perf_counter()
            for index, length in enumerate(lengths, start=1):
                dispatched = time.perf_counter()
                state, sums = chunks[length](state, feed.source, feed.draw(at, length))
                at += length
                # The last chunk's numbers are fetched while this chunk runs.
                log.flush(state)
                log.add(at, sums)
                is_best = False
                if at % config.eval_every == 0 or at == config.steps:
                    log.flush(state)
                    state = refresh(state)
                    test = evaluate(state)
                    log.write(at, "test", test)
                    is_best = validate(at, state)
                checkpoints.check()
                now = time.perf_counter()
                speed = (at - first) * config.batch_size * config.replicas / (now - clock)
                # The next chunk will take as long as this one: save now if that is too late.
                late = 2 * now - dispatched - saved_at > 60 * config.checkpoint_minutes
                due = at % config.checkpoint_every == 0 or at == config.steps
                due |= save.granted(late, index) or is_best
                stops = stop.granted(interrupt.received is not None, index)
                if due or stops:
                    log.flush(state)  # the records of a step are written before its checkpoint
                    if not distributed.fetch(finite(state)).all():
                        raise FloatingPointError(
                            f"a parameter or statistic is not finite after step {at}, which is not "
                            f"saved; {ADVICE}"
                        )
                    checkpoints.save(at, state)
                    saved_at = time.perf_counter()
                bar.update(length)
                bar.set_postfix_str(f"{speed:.0f} examples/s" + _shown(task, test))
                if bar.disable and (at % config.eval_every == 0 or at == config.steps):
                    say(f"step {at}/{config.steps}{_shown(task, test)}, {speed:.0f} examples/s")
                if log.board:
                    log.board.add_scalar("examples_per_second", speed, at)
                if stops:
                    break
            bar.close()

        # --- end: everything is saved
        if at < config.steps:  # a signal, to this process or to another process of the run
            asked = interrupt.received or signal.SIGTERM
            say(f"{workdir}: saved at step {at} after {asked.name}; the same command goes on")
            sys.exit(128 + asked)
        seconds = time.perf_counter() - began
        measured = {"seconds": seconds, "compile_seconds": ready, "examples_per_second": speed}
        directory.close_run(workdir, measured)
    _say_result(run, test, seconds)


@distributed.by_first
def _board(workdir: directory.AnyPath, first: int) -> Any:
    from resnet_jax.run.board import Board  # late: it imports torch if torch is installed

    return Board(workdir / "tensorboard", first)


def _beginning(saved: int | None, earlier_starts: Sequence[Any]) -> str:
    if saved:
        return f"resumes at step {saved}"
    if saved == 0:
        return "starts at step 0, from the weights that were imported"
    return "starts at step 0" + (", because nothing was saved before" if earlier_starts else "")


def _shown(task: Task, means: Sequence[dict[str, float]]) -> str:
    scores = [mean[task.score] for mean in means]
    return f", test {task.score} {np.mean(scores):{task.shown}}" if scores else ""


@distributed.by_first
def _say_result(run: Run, test: Sequence[dict[str, float]], seconds: float) -> None:
    lines, size = records.read(run.workdir / "metrics.jsonl"), len(run.dataset.train)
    score = run.task.score
    scores = [records.last_epoch(lines, size, seed, score)[score] for seed in run.seeds]
    trained = f"train {score} {np.mean(scores):{run.task.shown}}{_shown(run.task, test)}"
    say(f"{run.workdir}: {trained} in {seconds:.0f} s")
    if run.dataset.validation is not None:
        step = checkpoint.find(run.workdir / "best").step
        at_best = {r["split"]: r[score] for r in lines if r["step"] == step}
        lost = best.better_than(run.workdir, score, step or 0)
        say(
            f"best validation {score} {at_best['validation']:{run.task.shown}} at step {step}, "
            f"where the test {score} is {at_best['test']:{run.task.shown}} (evaluate --best)"
            + (f"; {lost}" if lost else "")
        )


if __name__ == "__main__":
    command.run(main)
