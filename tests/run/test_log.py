"""The log: which means go to which file, and how steps that are not finite end the run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from resnet_jax.run import log, records


class Board:
    """The scalars that were added."""

    def __init__(self):
        self.scalars = []

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))


@pytest.fixture
def make_log(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "schedule", lambda config: lambda step: 0.1 * step)

    def make(score="error", **changes):
        config = ConfigDict({"seed": 3, "replicas": 1, "nonfinite": "stop"} | changes)
        explain = lambda state, step, replica: f"{state} broke at {step} in replica {replica}"
        return log.Log(tmp_path / "metrics.jsonl", config, Board(), explain, score)

    return make


def chunk(loss, **others):
    """Sums of a chunk on the device: for each step, over 10 examples."""
    loss = np.array(loss, np.float32)
    zero = np.zeros_like(loss)
    sums = {"loss": loss, "examples": zero + 10, "skipped": zero.astype(np.int32)} | others
    return jax.tree.map(jnp.asarray, sums)


def test_all_means_are_recorded_and_loss_score_and_rate_are_shown(make_log):
    run_log = make_log(score="bits_per_byte")
    run_log.add(2, chunk([10.0, 20.0], bits_per_byte=np.array([5.0, 7.0]), error=np.zeros(2)))
    assert records.read(run_log.path) == []
    run_log.flush("state")
    run_log.write(2, "test", [{"loss": 2.0, "bits_per_byte": 1.0, "examples": 5}])
    means = {"loss": 1.5, "bits_per_byte": 0.6, "error": 0.0, "examples": 20}
    assert records.read(run_log.path) == [
        {"step": 2, "split": "train", "seed": 3} | means,
        {"step": 2, "split": "test", "seed": 3, "loss": 2.0, "bits_per_byte": 1.0, "examples": 5},
    ]
    assert run_log.board.scalars == [
        ("train/loss", 1.5, 2),
        ("train/bits_per_byte", 0.6, 2),
        ("learning_rate", 0.1, 2),
        ("test/loss", 2.0, 2),
        ("test/bits_per_byte", 1.0, 2),
    ]


def test_each_replica_has_its_own_records_and_curves(make_log):
    run_log = make_log(replicas=2)
    run_log.add(1, chunk([[10.0], [20.0]], error=np.array([[1.0], [2.0]])))
    run_log.flush("state")
    assert [(row["seed"], row["loss"]) for row in records.read(run_log.path)] == [(3, 1), (4, 2)]
    names = [name for name, *_ in run_log.board.scalars]
    assert names[:2] == ["train/seed3/loss", "train/seed3/error"]


def test_a_task_whose_score_is_its_loss_has_a_single_curve(make_log):
    run_log = make_log(score="loss")
    run_log.write(1, "test", [{"loss": 2.0}])
    assert run_log.board.scalars == [("test/loss", 2.0, 1)]


def test_a_step_that_is_not_finite_ends_the_run_and_is_named(make_log):
    run_log = make_log()
    run_log.add(3, chunk([1.0, np.nan, 1.0], skipped=np.array([0, 1, 1])))
    with pytest.raises(FloatingPointError, match="loss is nan at step 2; old broke at 2 in rep.*0"):
        run_log.flush("old")
    run_log = make_log(replicas=2)
    run_log.add(3, chunk([[1.0], [1.0]], skipped=np.array([[0], [1]])))
    with pytest.raises(FloatingPointError, match="step 3 of seed 4 is not finite; .* replica 1"):
        run_log.flush("old")
    with pytest.raises(FloatingPointError, match="the test loss of seed 3 is inf after step 3"):
        make_log().write(3, "test", [{"loss": np.inf}])
    assert records.read(run_log.path) == []


def test_skipped_steps_are_counted_and_too_many_in_a_row_end_the_run(make_log):
    run_log = make_log(nonfinite="skip")
    skipped = {"skipped": np.ones(6, np.int32), "examples": np.zeros(6)}
    run_log.add(6, chunk(np.zeros(6), **skipped))
    run_log.add(7, chunk([10.0]))
    run_log.add(13, chunk(np.zeros(6), **skipped))
    run_log.flush("state")
    first, second, _ = records.read(run_log.path)
    assert (first["examples"], first["skipped"]) == (0, 6) and "loss" not in first
    assert (second["examples"], second["skipped"], second["loss"]) == (10, 0, 1.0)
    run_log.add(19, chunk(np.zeros(6), **skipped))
    with pytest.raises(FloatingPointError, match="10 steps in a row .* before step 19"):
        run_log.flush("state")
