"""Runs whose directory was harmed: a run resumes from the newest good step and ends as before."""

import os
import shutil
import signal

import jax
import pytest

from resnet_jax import trained
from resnet_jax.run import checkpoint, records


def flip(workdir, step):
    """Flip a bit in the largest file of a step; return the file's name."""
    files = (p for p in (workdir / "checkpoints" / str(step)).rglob("*") if p.is_file())
    path = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path.name


def assert_same(workdir, other):
    logs = [(w / "metrics.jsonl").read_text("utf-8") for w in (workdir, other)]
    assert logs[0] == logs[1]
    states = (jax.tree.leaves(trained.load(w).state) for w in (workdir, other))
    for a, b in zip(*states, strict=True):
        assert (a == b).all()


def test_a_run_resumes_before_the_damaged_step_and_ends_as_the_unbroken_one(
    unbroken, copied, train, capsys
):
    name = flip(copied, 6)
    # A run that is saving now has this folder.
    (copied / "checkpoints" / "8.orbax-checkpoint-tmp").mkdir()
    before = sorted(copied.rglob("*"))
    assert int(trained.load(copied).state.step) == 4
    assert "step 6 is damaged" in capsys.readouterr().out
    assert sorted(copied.rglob("*")) == before  # who only reads changes nothing
    train(copied)
    said = capsys.readouterr().out
    assert "step 6 is damaged: the content of default/" in said and name in said
    assert "resumes at step 4" in said
    assert_same(copied, unbroken)
    assert [path.name for path in (copied / "damaged").iterdir()] == ["6"]


def test_a_run_without_a_good_step_never_starts_again(copied, train, capsys):
    flip(copied, 6)
    flip(copied, 4)
    before = sorted(copied.rglob("*"))
    for use in (train, trained.load):
        with pytest.raises(OSError, match="none is good any more"):
            use(copied)
    assert sorted(copied.rglob("*")) == before
    assert "starts at step 0" not in capsys.readouterr().out


def test_a_run_that_lost_its_records_says_so(copied, train, capsys):
    shutil.rmtree(copied / "checkpoints" / "6")
    (copied / "metrics.jsonl").unlink()
    train(copied)
    assert "has no records of step 4, which is saved" in capsys.readouterr().out


def read_statistics(workdir):
    trained.statistics(trained.load(workdir))


@pytest.mark.parametrize(
    "name,word",
    [
        ("config.json", "width"),
        ("run.json", "data_fingerprint"),
        ("metrics.jsonl", "step"),
        ("normalisation.json", "mean"),
    ],
)
def test_a_damaged_file_is_named(copied, train, name, word):
    shutil.rmtree(copied / "checkpoints" / "6")
    kept = (copied / name).read_bytes()
    for harmed in (b"\xff" + kept, kept.replace(word.encode(), b"other")):
        assert harmed != kept
        (copied / name).write_bytes(harmed)
        says = f"{name}.* (is damaged|has the unknown)"
        with pytest.raises((OSError, ValueError), match=says):
            read_statistics(copied) if name == "normalisation.json" else train(copied)
    assert checkpoint.find(copied).step == 4


def test_a_run_that_is_asked_to_end_saves_and_the_same_command_goes_on(
    unbroken, train, tmp_path, monkeypatch, capsys
):
    """SIGINT comes while the first chunk's records are written."""

    def append_and_interrupt(path, rows):
        append(path, rows)
        if path.name == "metrics.jsonl" and not interrupted:
            interrupted.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    append, interrupted = records.append, []
    with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr(records, "append", append_and_interrupt)
        train(tmp_path / "run")
    signal.signal(signal.SIGINT, earlier)
    assert ended.value.code == 130 and interrupted
    said = capsys.readouterr().out
    assert "saved at step 4 after SIGINT; the same command goes on" in said
    assert checkpoint.find(tmp_path / "run").step == 4
    train(tmp_path / "run")
    assert "resumes at step 4" in capsys.readouterr().out
    assert_same(tmp_path / "run", unbroken)
