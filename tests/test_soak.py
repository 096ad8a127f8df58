"""Killed at random moments a run ends as if nothing had been; more of it: benchmarks/soak.py."""

import dataclasses
import functools
import re
import shutil
import signal
import time

import pytest

from benchmarks import soak
from resnet_jax import convert
from resnet_jax.training import metrics

slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "name,kills", [("resident", 2), slow("streamed", 2), slow("two", 2), slow("asked", 2)]
)
def test_runs_that_are_killed_end_as_the_unbroken_one(name, kills, tmp_path):
    counts = soak.soak(name, kills, tmp_path, seed=1, cold=False)
    assert counts.kills == kills and counts.runs > 0
    assert counts.lost == 0 and counts.different == 0


def test_two_processes_asked_and_then_killed_end_as_if_nothing_had_been(tmp_path):
    """One alone is asked, and both save the same step; one is killed, and the other says so."""
    run, rare = tmp_path / "run", "eval_every=25 checkpoint_every=25"
    words = (*soak.SCENARIOS["two"].words, *(f"--config.{change}" for change in rare.split()))
    two = dataclasses.replace(soak.SCENARIOS["two"], words=words)
    unbroken = soak.Start(two, tmp_path / "unbroken")
    assert unbroken.finish() == [0, 0], unbroken.said()

    asked = soak.Start(two, run)
    assert asked.wait(lambda: metrics.read(run / "metrics.jsonl")), asked.said()
    asked.processes[1].send_signal(signal.SIGTERM)
    assert asked.finish() == [143, 143], asked.said()
    found = re.search(r"saved at step (\d+) after SIGTERM", asked.said())
    saved = [line["step"] for line in metrics.read(run / "saved.jsonl")]
    assert found and saved[-1] == int(found[1]) < 100

    killed = soak.Start(two, run)
    assert killed.ready() and f"resumes at step {found[1]}" in killed.said()
    killed.processes[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    assert killed.finish() == [1, -signal.SIGKILL], killed.said()
    assert time.monotonic() - began < 30  # it does not wait for a peer that is gone
    assert "error: process 1 of 2 ended before the run did" in killed.said()
    assert "same command" in killed.said()

    again = soak.Start(two, run)
    assert again.finish() == [0, 0], again.said()
    assert soak.same(run, tmp_path / "unbroken")


def test_it_sees_what_is_different(imported, tmp_path):
    shutil.copytree(imported[0], tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    assert soak.same(tmp_path / "run", tmp_path / "other")
    (tmp_path / "other" / "metrics.jsonl").write_text("{}\n")
    assert not soak.same(tmp_path / "run", tmp_path / "other")


def test_it_sees_states_that_differ_by_their_seed_alone(imported, tmp_path):
    _, config, weights = imported
    other = config.copy_and_resolve_references()
    other.seed += 1
    for run, its in ((tmp_path / "run", config), (tmp_path / "other", other)):
        convert.import_weights("akamaster", weights, its, run)
        (run / "metrics.jsonl").write_text("")
    assert soak.same(tmp_path / "run", tmp_path / "run")
    assert not soak.same(tmp_path / "run", tmp_path / "other")
