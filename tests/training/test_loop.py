"""Whole runs on scikit-learn's digits: what they write, how they go on, what they refuse."""

import json
import shutil

import jax
import numpy as np
import pytest

from resnet_jax import families, train
from resnet_jax.run import checkpoint, directory, records
from resnet_jax.training import state
from resnet_jax.training.optimizer import optimizer
from tests.recipes import recipe


def small(**changes):
    """A network of a single block and 4 channels, 10 steps, chunks of 2."""
    values = {
        "model__stages": (1,),
        "model__width": 4,
        "steps": 10,
        "chunk_steps": 2,
        "eval_every": 4,
        "checkpoint_every": 4,
        "schedule__boundaries": (6, 8),
        "data__pad": 1,
        "data__flip": True,
    }
    return recipe("digits", "depth=4", **(values | changes))


def run(workdir, config):
    prepared = train.prepare(config, workdir)
    assert prepared is not None
    train.train(prepared)


def restored(workdir, config, step):
    def create():
        return state.create(0, families.build(config), tuple(config.data.shape), optimizer(config))

    return checkpoint.restore(workdir, step, jax.eval_shape(create))


def weights(workdir, config):
    found = restored(workdir, config, config.steps)
    return jax.tree.map(np.asarray, (found.params, found.batch_stats, found.opt_state))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    run(workdir, small())
    return workdir


def test_a_run_leaves_its_config_its_starts_its_records_and_its_checkpoints(unbroken):
    assert json.loads((unbroken / "config.json").read_text("utf-8"))["model"]["depth"] == 4
    (start,) = directory.read_starts(unbroken)
    assert start["step"] == 0 and start["examples_per_second"] > 0
    assert {"command", "devices", "versions", "data_fingerprint", "seconds"} <= start.keys()
    lines = records.read(unbroken / "metrics.jsonl")
    assert [r["step"] for r in lines if r["split"] == "train"] == [2, 4, 6, 8, 10]
    assert [r["step"] for r in lines if r["split"] == "test"] == [4, 8, 10]
    assert all(r["examples"] == 297 for r in lines if r["split"] == "test")
    keys = [(r["step"], r["split"], r["seed"]) for r in lines]
    assert len(set(keys)) == len(keys)
    assert list((unbroken / "tensorboard").glob("events*"))
    mean = np.array(json.loads((unbroken / "normalisation.json").read_text("utf-8"))["mean"])
    assert mean.shape == (8, 8, 1)


def test_a_run_that_lost_its_end_ends_like_the_unbroken_one_bit_for_bit(unbroken, tmp_path):
    workdir = tmp_path / "broken"
    shutil.copytree(unbroken, workdir)
    shutil.rmtree(workdir / "checkpoints" / "10")
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "split": "tra')
    run(workdir, small())
    assert [s["step"] for s in directory.read_starts(workdir)] == [0, 8]
    same = (workdir / "metrics.jsonl").read_text("utf-8") == (unbroken / "metrics.jsonl").read_text(
        "utf-8"
    )
    assert same
    ours, theirs = weights(workdir, small()), weights(unbroken, small())
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_finished_run_returns_at_once_and_may_be_given_more_steps(unbroken, tmp_path):
    assert train.prepare(small(), unbroken) is None
    workdir = tmp_path / "longer"
    shutil.copytree(unbroken, workdir)
    run(workdir, small(steps=12))
    lines = records.read(workdir / "metrics.jsonl")
    assert [r["step"] for r in lines if r["split"] == "train"] == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"model__width": 8}, "model.width is 4 in that run and 8 now"),
        ({"seed": 1}, "seed is 0 in that run and 1 now"),
        ({"steps": 8}, "steps is 10 in that run and 8 now"),
    ],
)
def test_another_run_in_the_same_directory_is_refused_by_name(unbroken, changes, message):
    before = sorted(p.name for p in unbroken.iterdir())
    with pytest.raises(ValueError, match=message):
        train.prepare(small(**changes), unbroken)
    assert sorted(p.name for p in unbroken.iterdir()) == before


def test_a_directory_that_is_not_ours_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="not empty and holds no run"):
        train.prepare(small(), tmp_path)


def test_nothing_is_written_if_something_is_wrong(tmp_path):
    workdir = tmp_path / "new"
    for changes in ({"batch_size": 2000}, {"data__name": "cifar10"}, {"data__shape": (32, 32, 3)}):
        with pytest.raises(ValueError):
            train.prepare(small(**changes), workdir)
    assert not workdir.exists()


def test_a_run_that_broke_off_before_its_first_step_can_be_started_again(tmp_path, monkeypatch):
    def breaks(*_):
        raise MemoryError

    with monkeypatch.context() as broken:
        broken.setattr(state, "create", breaks)
        with pytest.raises(MemoryError):
            run(tmp_path / "run", small())
    with pytest.raises(ValueError, match="seed is 0 in that run and 1 now"):
        train.prepare(small(seed=1), tmp_path / "run")
    assert train.prepare(small(), tmp_path / "run") is not None


def test_a_run_on_data_that_changed_is_refused(unbroken, tmp_path):
    workdir = tmp_path / "changed"
    shutil.copytree(unbroken, workdir)
    shutil.rmtree(workdir / "checkpoints" / "10")
    directory.close_run(workdir, {"data_fingerprint": "other"})
    with pytest.raises(ValueError, match="has changed since it began .*other then"):
        train.prepare(small(), workdir)


def test_a_run_that_diverges_names_step_and_layer_and_saves_nothing_that_is_not_finite(tmp_path):
    workdir, config = tmp_path / "hot", small(optimizer__learning_rate=1e30, checkpoint_every=2)
    with pytest.raises(FloatingPointError, match=r"step \d+.*not finite is \w+.*kept"):
        run(workdir, config)
    saved = [int(p.name) for p in (workdir / "checkpoints").iterdir()]
    assert config.steps not in saved
    for at in saved:
        found = restored(workdir, config, at)
        assert all(np.isfinite(a).all() for a in jax.tree.leaves((found.params, found.batch_stats)))
    assert all(np.isfinite(r["loss"]) for r in records.read(workdir / "metrics.jsonl"))


def test_steps_that_are_skipped_are_counted_and_too_many_in_a_row_end_the_run(tmp_path):
    changes = {"optimizer__learning_rate": 1e30, "nonfinite": "skip", "chunk_steps": 5}
    config = small(**changes, steps=16, eval_every=15, checkpoint_every=15)
    with pytest.raises(FloatingPointError, match="10 steps in a row were not finite"):
        run(tmp_path / "run", config)
    first, second, *rest = records.read(tmp_path / "run" / "metrics.jsonl")
    assert first["skipped"] > 0 and np.isfinite(first["loss"]) and not rest
    assert first["examples"] == (5 - first["skipped"]) * config.batch_size
    assert (second["examples"], second["skipped"]) == (0, 5) and "loss" not in second


def test_what_the_last_step_spoiled_is_not_saved(tmp_path):
    """A rate that takes a parameter out of range in a step whose own numbers are finite."""
    changes = {"optimizer__learning_rate": 3e38, "optimizer__weight_decay": 1e3}
    config = small(**changes, chunk_steps=1, checkpoint_every=1, eval_every=10)
    with pytest.raises(FloatingPointError, match="not finite after step 1, which is not saved"):
        run(tmp_path / "run", config)
    assert checkpoint.find(tmp_path / "run").step is None


def test_a_directory_in_use_is_refused_before_and_after_it_is_checked(tmp_path):
    prepared = train.prepare(small(), tmp_path / "run")
    assert prepared is not None
    (tmp_path / "run").mkdir()
    with directory.locked(tmp_path / "run"):
        with pytest.raises(BlockingIOError, match="is in use by process"):
            train.prepare(small(), tmp_path / "run")
        with pytest.raises(BlockingIOError, match="is in use by process"):
            train.train(prepared)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]


def test_a_checkpoints_records_are_there_before_it_is(tmp_path, monkeypatch):
    def save(self, step, state):
        seen.append((step, records.read(tmp_path / "run" / "metrics.jsonl")[-1]["step"]))
        return kept(self, step, state)

    seen, kept = [], checkpoint.Checkpoints.save
    monkeypatch.setattr(checkpoint.Checkpoints, "save", save)
    run(tmp_path / "run", small(eval_every=10))
    assert seen == [(4, 4), (8, 8), (10, 10)]


def test_a_checkpoint_is_due_after_minutes_too(tmp_path):
    run(tmp_path / "run", small(checkpoint_every=10, checkpoint_minutes=1e-9))
    saved = [line["step"] for line in records.read(tmp_path / "run" / "saved.jsonl")]
    assert saved == [2, 4, 6, 8, 10]
