"""The clean training error is that of the finished network on the training split, measured once."""

import json
import shutil

import jax.numpy as jnp
import pytest

from experiments.clean import clean, measure
from experiments.plan import Run
from resnet_jax import evaluate, trained
from resnet_jax.data import sources


@pytest.fixture
def run(imported, tmp_path):
    """Return a run with one seed and a checkpoint, in a directory of the test's own."""
    workdir, config, _ = imported
    own = tmp_path / "run"
    shutil.copytree(workdir, own)
    return Run("imported", "resnet", config, own, {})


def test_it_is_the_error_of_the_predictions_without_augmentation(run):
    digits = sources.load("digits", "").train
    guessed = trained.load(run.workdir).predict(digits.images).argmax(1)
    (means,) = clean(run)
    assert means["error"] == pytest.approx((guessed != digits.labels).mean())
    assert means["loss"] > 0


def test_it_is_measured_once_for_each_number_of_steps(run):
    measure([run])
    (means,) = clean(run)
    file = run.workdir / "clean.json"
    file.write_text(json.dumps({"step": run.config.steps, "seeds": [{"error": 0.5}]}))
    measure([run])
    assert clean(run) == [{"error": 0.5}]
    file.write_text(json.dumps({"step": run.config.steps + 1, "seeds": [{"error": 0.5}]}))
    assert clean(run) == [means]
    measure([run])
    assert json.loads(file.read_text()) == {"step": run.config.steps, "seeds": [means]}


def test_runs_that_differ_in_their_seed_are_measured_by_one_program(run, tmp_path, monkeypatch):
    other = run._replace(workdir=tmp_path / "other")
    shutil.copytree(run.workdir, other.workdir)
    load, compiled, programs = trained.load, evaluate.compiled, []

    def changed(workdir, *arguments):
        opened = load(workdir, *arguments)
        if workdir == other.workdir:
            opened.state.params["head"]["dense"]["bias"] = jnp.arange(10.0)
        return opened

    monkeypatch.setattr(trained, "load", changed)
    monkeypatch.setattr(evaluate, "compiled", lambda *a: programs.append(a) or compiled(*a))
    measure([run, other])
    assert len(programs) == 1
    together = clean(other)
    (other.workdir / "clean.json").unlink()
    assert clean(run) != clean(other) == together


def test_a_loss_that_is_not_finite_has_no_clean_error(run, monkeypatch):
    def loaded(*arguments):
        opened = load(*arguments)
        opened.state.params["head"]["dense"]["bias"] = jnp.full((10,), jnp.nan)
        return opened

    load = trained.load
    monkeypatch.setattr(trained, "load", loaded)
    assert clean(run) == [{}]
