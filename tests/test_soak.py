"""Killed at random moments a run ends as if nothing had been; more of it: benchmarks/soak.py."""

import functools
import shutil

import pytest

from benchmarks import soak
from resnet_jax import convert

slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "name,kills", [("resident", 2), slow("streamed", 2), slow("two", 2), slow("asked", 2)]
)
def test_runs_that_are_killed_end_as_the_unbroken_one(name, kills, tmp_path):
    counts = soak.soak(name, kills, tmp_path, seed=1, cold=False)
    assert counts.kills == kills and counts.runs > 0
    assert counts.lost == 0 and counts.different == 0


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
