"""Damage of every kind to every file of a checkpoint, and what is done about it."""

import importlib
import json
import shutil

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax import checkpoint, config, families, trained
from resnet_jax.training import directory, loop, metrics, state
from resnet_jax.training.optimizer import optimizer


def small():
    """A network of 8 layers and 2 channels, 6 steps, all of which are saved two by two."""
    made = importlib.import_module("configs.digits").get_config("depth=8")
    changes = {"model.width": 2, "steps": 6, "chunk_steps": 2, "eval_every": 6}
    made.update_from_flattened_dict(changes | {"checkpoint_every": 2, "batch_size": 16})
    config.check(made)
    return made


def run(workdir):
    prepared = loop.prepare(small(), workdir)
    assert prepared is not None
    loop.train(prepared)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run that is finished, and of which steps 4 and 6 are saved."""
    workdir = tmp_path_factory.mktemp("unbroken")
    run(workdir)
    return workdir


@pytest.fixture
def workdir(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "run")
    return tmp_path / "run"


def files(workdir, step):
    return sorted(p for p in (workdir / "checkpoints" / str(step)).rglob("*") if p.is_file())


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path, bit=0):
    data = bytearray(path.read_bytes())
    data[bit // 8 % max(1, len(data))] ^= 1 << bit % 8
    path.write_bytes(data)


def test_what_is_whole_is_found_and_the_newest_of_it(workdir):
    assert checkpoint.find(workdir) == checkpoint.Found(6, {}, [])
    assert checkpoint.finished(workdir, 6) and not checkpoint.finished(workdir, 8)
    assert [line["step"] for line in metrics.read(workdir / "saved.jsonl")] == [2, 4, 6]


@pytest.mark.parametrize("harm", [truncate, flip, lambda path: path.unlink()])
def test_every_file_that_is_harmed_is_named_and_the_step_before_it_used(workdir, harm):
    names = [path.relative_to(workdir) for path in files(workdir, 6)]
    assert len(names) > 8
    for name in names:
        kept = (workdir / name).read_bytes()
        if not kept and harm in (truncate, flip):
            continue
        harm(workdir / name)
        found = checkpoint.find(workdir)
        assert found.step == 4 and set(found.damaged) == {6} and not found.unfinished
        assert name.name in found.damaged[6]
        assert not checkpoint.finished(workdir, 6)
        (workdir / name).write_bytes(kept)
    assert checkpoint.find(workdir).step == 6


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_bit_that_flips_anywhere_is_seen(unbroken, data):
    path = data.draw(st.sampled_from([p for p in files(unbroken, 6) if p.stat().st_size]))
    bit = data.draw(st.integers(0, 8 * path.stat().st_size - 1))
    flip(path, bit)
    try:
        wrong = checkpoint.verify(unbroken / "checkpoints" / "6")
        assert wrong is not None and path.name in wrong
    finally:
        flip(path, bit)
    assert checkpoint.verify(unbroken / "checkpoints" / "6") is None


def test_a_step_whose_folder_is_gone_is_told(workdir):
    shutil.rmtree(workdir / "checkpoints" / "6")
    assert checkpoint.find(workdir) == checkpoint.Found(4, {6: "its folder is gone"}, [])


def test_where_nothing_is_good_any_more_it_never_begins_again(workdir, capsys):
    """Neither in the search nor in a run: everything is as it was afterwards."""
    flip(files(workdir, 6)[-1])
    flip(files(workdir, 4)[-1])
    before = sorted(p for p in workdir.rglob("*"))
    with pytest.raises(OSError, match=r"none is good any more \(step 6: .*; step 4: "):
        checkpoint.find(workdir)
    with pytest.raises(OSError, match="none is good any more"):
        run(workdir)
    with pytest.raises(OSError, match="none is good any more"):
        trained.load(workdir)
    assert sorted(p for p in workdir.rglob("*")) == before
    assert "starts at step 0" not in capsys.readouterr().out
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(OSError, match="step 6: its folder is gone"):
        run(workdir)
    (workdir / "saved.jsonl").write_text("{{\n")
    with pytest.raises(OSError, match="saved.jsonl, line 1, is damaged"):
        run(workdir)


@pytest.mark.parametrize("content", [None, "", "{{{\n", '{"step": 2}\n{"st', '[1, "x"]\n'])
def test_a_list_of_saves_that_is_lost_or_harmed_hides_no_good_step(workdir, content):
    (workdir / "saved.jsonl").unlink()
    if content is not None:
        (workdir / "saved.jsonl").write_text(content)
    assert checkpoint.find(workdir).step == 6


def unseal(workdir, step):
    (workdir / "checkpoints" / str(step) / "manifest.json").unlink()


def test_a_save_that_was_cut_short_is_no_damage(workdir):
    """It has no manifest and is newer than all that is listed; it is the only one."""
    shutil.copytree(workdir / "checkpoints" / "6", workdir / "checkpoints" / "8")
    unseal(workdir, 8)
    assert checkpoint.find(workdir) == checkpoint.Found(6, {}, [8])
    metrics.append(workdir / "saved.jsonl", [{"step": 8}])
    assert checkpoint.find(workdir) == checkpoint.Found(6, {8: "manifest.json is gone"}, [])
    unseal(workdir, 6)
    assert checkpoint.find(workdir).step == 4


def test_a_first_save_that_was_cut_short_is_kept_aside_and_told(workdir, capsys):
    (workdir / "saved.jsonl").unlink()
    shutil.rmtree(workdir / "checkpoints" / "4")
    unseal(workdir, 6)
    assert checkpoint.find(workdir) == checkpoint.Found(None, {}, [6])
    run(workdir)
    said = capsys.readouterr().out
    assert "the first save, of step 6, was cut short; it is kept in" in said
    assert "starts at step 0, nothing was saved before" in said
    assert (workdir / "damaged" / "6" / "default").is_dir()


def test_steps_that_all_lack_their_manifest_are_no_cut_save(workdir):
    """Another version's, or of a copy without them: nothing is deleted, nothing begins again."""
    (workdir / "saved.jsonl").unlink()
    unseal(workdir, 4)
    unseal(workdir, 6)
    before = sorted(p for p in workdir.rglob("*"))
    with pytest.raises(OSError, match="none is good any more"):
        run(workdir)
    assert sorted(p for p in workdir.rglob("*")) == before


def test_a_list_of_saves_is_put_in_order_when_the_run_goes_on(workdir):
    (workdir / "saved.jsonl").write_text('{"step": 4}\n{"step": 90}\n{"st')
    run_to_8 = small()
    run_to_8.steps = 8
    prepared = loop.prepare(run_to_8, workdir)
    assert prepared is not None
    loop.train(prepared)
    assert [line["step"] for line in metrics.read(workdir / "saved.jsonl")] == [4, 6, 8]


def test_a_manifest_cannot_make_us_read_elsewhere(workdir):
    path = workdir / "checkpoints" / "6" / "manifest.json"
    (workdir / "outside").write_text("")
    for name in ("../../outside", str(workdir / "outside")):
        named = {name: checkpoint._measure(workdir / "outside")}
        path.write_text(json.dumps({"files": named, "xxh64": checkpoint._digest(named)}))
        assert "outside of the step's folder" in (checkpoint.verify(path.parent) or "")


def test_a_run_goes_on_from_the_step_before_and_ends_as_if_nothing_were(unbroken, workdir, capsys):
    """The damaged step is kept aside; and once more, with a second one of that number."""
    for _ in range(2):
        path = next(p for p in files(workdir, 6) if p.parent.name == "d")
        flip(path, 8 * (path.stat().st_size // 2))
        run(workdir)
        said = capsys.readouterr().out
        assert "step 6 is damaged: the content of default/" in said and path.name in said
        assert "resumes at step 4" in said
        assert checkpoint.find(workdir) == checkpoint.Found(6, {}, [])
        logs = [(w / "metrics.jsonl").read_text() for w in (workdir, unbroken)]
        assert logs[0] == logs[1]
        ours, theirs = (jax.tree.leaves(trained.load(w).state) for w in (workdir, unbroken))
        for a, b in zip(ours, theirs, strict=True):
            assert (a == b).all()
    assert sorted(p.name for p in (workdir / "damaged").iterdir()) == ["6", "6-1"]


def test_who_only_reads_uses_the_step_before_and_changes_nothing(workdir, capsys):
    flip(files(workdir, 6)[0])
    # As a run that is saving now has it.
    (workdir / "checkpoints" / "8.orbax-checkpoint-tmp").mkdir()
    before = sorted(p for p in workdir.rglob("*"))
    assert int(trained.load(workdir).state.step) == 4
    assert "step 6 is damaged" in capsys.readouterr().out
    assert sorted(p for p in workdir.rglob("*")) == before


@pytest.mark.parametrize(
    "key,value,says",
    [
        ("model.depth", 14, r"stage1/layers/body/conv1/kernel: \(1, 3, 3, .* \(2, 3, 3, .* here"),
        ("model.width", 4, r"head/dense/kernel: \(8, 10\) there, \(16, 10\) here"),
        ("model.skip", "B", r"skip/conv/kernel: none there, \(1, 1, 2, 4\) here"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_by_names_and_shapes(workdir, key, value, says):
    other = small()
    other.update_from_flattened_dict({key: value})

    def create():
        return state.create(0, families.build(other), tuple(other.data.shape), optimizer(other))

    with pytest.raises(OSError, match="is of another network") as refused:
        checkpoint.restore(workdir, 6, jax.eval_shape(create))
    assert refused.match(says)
    with pytest.raises(ValueError, match=f"{key}: {small().model[key[6:]]} there, {value} now"):
        directory.refuse_another(workdir, other)


def test_records_that_are_lost_are_told(workdir, capsys):
    shutil.rmtree(workdir / "checkpoints" / "6")
    (workdir / "metrics.jsonl").unlink()
    run(workdir)
    assert "has no records of step 4, which is saved" in capsys.readouterr().out


def test_a_file_of_ours_that_is_damaged_is_named(workdir):
    shutil.rmtree(workdir / "checkpoints" / "6")
    for name in ("config.json", "run.json", "metrics.jsonl", "normalisation.json"):
        kept = (workdir / name).read_bytes()
        for harmed in (b"\xff" + kept, kept.replace(b"step", b"stop"), kept.replace(b"mean", b"m")):
            (workdir / name).write_bytes(harmed)
            if harmed == kept or (name == "run.json" and harmed[:1] == kept[:1]):
                continue
            with pytest.raises((OSError, ValueError), match=f"{name}.* is damaged|another run"):
                trained.normalisation(trained.load(workdir)) if "norm" in name else run(workdir)
        (workdir / name).write_bytes(kept)
    assert np.isfinite(metrics.read(workdir / "metrics.jsonl")[0]["loss"])
