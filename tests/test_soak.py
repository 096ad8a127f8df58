"""A run that is killed at a random moment ends as an unbroken run; see benchmarks/soak.py."""

import dataclasses
import functools
import re
import signal

import jax
import jax.numpy as jnp
import pytest

from benchmarks import soak
from configs import mnist
from resnet_jax import families
from resnet_jax.run import checkpoint, directory, records
from resnet_jax.training import state as states
from resnet_jax.training.optimizer import optimizer

slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The runs train a ResNet of a single block, which is compiled in a second."""
    monkeypatch.setattr(soak, "CONFIG", "configs/digits.py:depth=4")
    monkeypatch.setattr(soak, "CHANGES", f"{soak.CHANGES} model.stages=(1,)")


# The slow scenarios take two minutes: pytest -m slow tests/test_soak.py
@pytest.mark.parametrize(
    "name,kills", [("resident", 1), slow("streamed", 2), slow("two", 2), slow("asked", 2)]
)
def test_runs_that_are_killed_end_as_the_unbroken_run(name, kills, tmp_path):
    counts = soak.soak(name, kills, tmp_path, seed=0, cold=False)
    assert counts.kills == kills and counts.runs > 0
    assert counts.lost == 0 and counts.different == 0


@pytest.mark.slow  # a minute: pytest -m slow tests/test_soak.py
def test_two_processes_that_are_stopped_and_then_killed_end_as_the_unbroken_run(tmp_path):
    """SIGTERM to a single process saves the same step in both; SIGKILL to it ends the other."""
    run, rare = tmp_path / "run", "eval_every=25 checkpoint_every=25"
    words = (*soak.SCENARIOS["two"].words, *(f"--config.{change}" for change in rare.split()))
    two = dataclasses.replace(soak.SCENARIOS["two"], words=words)
    unbroken = soak.Start(two, tmp_path / "unbroken")
    assert unbroken.finish() == [0, 0], unbroken.output()

    stopped = soak.Start(two, run)
    assert stopped.wait(lambda: records.read(run / "metrics.jsonl")), stopped.output()
    stopped.processes[1].send_signal(signal.SIGTERM)
    assert stopped.finish() == [143, 143], stopped.output()
    message = re.search(r"saved at step (\d+) after SIGTERM", stopped.output())
    saved = [line["step"] for line in records.read(run / "saved.jsonl")]
    assert message and saved[-1] == int(message[1]) < 100

    killed = soak.Start(two, run)
    assert killed.ready() and f"resumes at step {message[1]}" in killed.output()
    killed.processes[1].send_signal(signal.SIGKILL)
    # Process 0 does not wait for the lost process.
    assert killed.finish() == [1, -signal.SIGKILL], killed.output()
    assert "error: process 1 of 2 ended before the run did" in killed.output()
    assert "same command" in killed.output()

    resumed = soak.Start(two, run)
    assert resumed.finish() == [0, 0], resumed.output()
    assert soak.same(run, tmp_path / "unbroken")


def write_run(workdir, seed=0, log=""):
    """Write the directory of a run that ended with zeros in its state, but for the key."""
    config = mnist.get_config("family=lenet")
    create = functools.partial(
        states.create, seed, families.build(config), config.data.shape, optimizer(config)
    )
    state = dataclasses.replace(jax.eval_shape(create), key=jax.random.key(seed))
    fill = lambda a: a if isinstance(a, jax.Array) else jnp.zeros(a.shape, a.dtype)
    directory.claim(workdir, config)
    with checkpoint.Checkpoints(workdir, checkpoint.Found(None, {}, [])) as checkpoints:
        checkpoints.save(0, jax.tree.map(fill, state))
    (workdir / "metrics.jsonl").write_text(log)
    return workdir


def test_runs_are_the_same_if_their_records_and_all_bits_of_their_states_are(tmp_path):
    run, same = write_run(tmp_path / "run"), write_run(tmp_path / "same")
    assert soak.same(run, same)
    assert not soak.same(run, write_run(tmp_path / "log", log="{}\n"))
    assert not soak.same(run, write_run(tmp_path / "seed", seed=1))
