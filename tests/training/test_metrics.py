import jax.numpy as jnp
import pytest

from resnet_jax.training import metrics


def test_sums_count_masked_examples_only():
    logits = jnp.array([[5.0, 0.0], [0.0, 5.0], [5.0, 0.0]])
    labels = jnp.array([0, 0, 1])
    sums = metrics.sums(logits, labels, jnp.array([True, True, False]))
    means = metrics.mean(sums)
    assert means["examples"] == 2 and means["error"] == 0.5
    right, wrong = jnp.log(1 + jnp.exp(-5.0)), 5 + jnp.log(1 + jnp.exp(-5.0))
    assert means["loss"] == pytest.approx(float(right + wrong) / 2)


def test_means_of_many_batches_weigh_examples_not_batches():
    rows = {"loss": jnp.array([8.0, 1.0]), "error": jnp.array([4.0, 1.0])}
    means = metrics.mean(rows | {"examples": jnp.array([8.0, 2.0])})
    assert means == {"loss": 0.9, "error": 0.5, "examples": 10}


def record(step, error, split="train", seed=0, examples=10):
    return {
        "step": step,
        "split": split,
        "seed": seed,
        "loss": error,
        "error": error,
        "examples": examples,
    }


def test_the_last_epoch_is_taken_from_the_end_in_whole_records():
    records = [record(1, 0.9), record(2, 0.5), record(3, 0.3), record(3, 0.7, "test")]
    assert metrics.last_epoch(records, 20, 0)["error"] == pytest.approx(0.4)
    assert metrics.last_epoch(records, 11, 0)["error"] == pytest.approx(0.4)
    assert metrics.last_epoch(records, 10**6, 0)["error"] == pytest.approx(1.7 / 3)


def test_records_after_the_restored_step_are_cut_and_half_a_line_is_not_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, [record(1, 0.9), record(2, 0.5)])
    metrics.append(path, [record(3, 0.1)])
    with path.open("a") as file:
        file.write('{"step": 4, "spl')
    assert [r["step"] for r in metrics.read(path)] == [1, 2, 3]
    metrics.cut(path, 2)
    assert metrics.read(path) == [record(1, 0.9), record(2, 0.5)]
    assert metrics.read(tmp_path / "none.jsonl") == []
