"""metrics.jsonl: what is written, read, cut and averaged, and errors that name the file."""

import errno

import pytest

from resnet_jax.run import records


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
    rows = [record(1, 0.9), record(2, 0.5), record(3, 0.3), record(3, 0.7, "test")]
    rows += [record(4, 0.1, seed=1), record(4, 0.1, examples=0)]
    assert records.last_epoch(rows, 20, 0)["error"] == pytest.approx(0.4)
    assert records.last_epoch(rows, 11, 0)["error"] == pytest.approx(0.4)
    assert records.last_epoch(rows, 10**6, 0)["error"] == pytest.approx(1.7 / 3)
    assert records.last_epoch(rows, 10, 1) == {"loss": 0.1, "error": 0.1}


def test_the_last_epoch_has_the_score_of_the_task():
    rows = [record(1, 0.9) | {"bits_per_byte": 2.0}, record(2, 0.5) | {"bits_per_byte": 1.0}]
    averaged = records.last_epoch(rows, 20, 0, score="bits_per_byte")
    assert averaged == {"loss": pytest.approx(0.7), "bits_per_byte": 1.5}


def test_records_after_the_restored_step_are_cut_and_half_a_line_is_not_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    records.append(path, [record(1, 0.9), record(2, 0.5)])
    records.append(path, [record(3, 0.1)])
    with path.open("a") as file:
        file.write('{"step": 4, "spl')
    assert [row["step"] for row in records.read(path)] == [1, 2, 3]
    records.cut(path, 2)
    assert records.read(path) == [record(1, 0.9), record(2, 0.5)]
    assert records.read(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("line", ["{{", "[1]", '{"loss": 1}', "3", '{"step": "2"}'])
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(OSError, match=f"{path}, line 2, is damaged"):
        records.read(path)


def test_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"No space left on device: '{path}'") as raised:
        records.append(path, [record(1, 0.9)])
    assert raised.value.errno == errno.ENOSPC
