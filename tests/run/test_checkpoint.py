"""Damage to every file of a checkpoint, fields that are new or gone, and saves that fail."""

import contextlib
import functools
import json
import resource
import shutil
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax.run import checkpoint, directory, manifest, records


@struct.dataclass
class State:
    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any
    key: Any
    skipped: Any


@struct.dataclass
class NewerState(State):
    average: Any
    gains: Any


def state_at(step, shape=(3, 4), **others):
    params = {"head": {"kernel": jnp.full(shape, step, jnp.float32)}}
    fields = {
        "step": jnp.int32(step),
        "params": params,
        "batch_stats": {},
        "opt_state": optax.sgd(0.1, momentum=0.9).init(params),
        "key": jax.random.key(7),
        "skipped": jnp.int32(0),
    }
    return (NewerState if others else State)(**fields | others)


def train(workdir, last=6, state=state_at):
    """Save every second step, from the newest good step on."""
    found = checkpoint.find(workdir)
    with checkpoint.Checkpoints(workdir, found) as checkpoints:
        for step in range((found.step or 0) + 2, last + 1, 2):
            checkpoints.save(step, state(step))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run that saved the steps 2, 4 and 6, of which 4 and 6 are kept."""
    workdir = tmp_path_factory.mktemp("unbroken")
    train(workdir)
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


def unseal(workdir, step):
    (workdir / "checkpoints" / str(step) / "manifest.json").unlink()


def listed(workdir):
    return [line["step"] for line in records.read(workdir / "saved.jsonl")]


def test_the_newest_good_step_is_found_and_restored(workdir):
    assert checkpoint.find(workdir) == checkpoint.Found(6, {}, [])
    assert checkpoint.finished(workdir, 6) and not checkpoint.finished(workdir, 8)
    assert listed(workdir) == [2, 4, 6]
    for like in (state_at(0), jax.eval_shape(lambda: state_at(0))):
        restored = checkpoint.restore(workdir, 6, like)
        assert jax.tree.structure(restored) == jax.tree.structure(state_at(6))
        equal = jax.tree.map(lambda a, b: bool((a == b).all()), restored, state_at(6))
        assert all(jax.tree.leaves(equal))


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
def test_any_bit_that_flips_anywhere_is_noticed(unbroken, data):
    path = data.draw(st.sampled_from([p for p in files(unbroken, 6) if p.stat().st_size]))
    bit = data.draw(st.integers(0, 8 * path.stat().st_size - 1))
    flip(path, bit)
    try:
        problem = checkpoint.verify(unbroken / "checkpoints" / "6")
        assert problem is not None and path.name in problem
    finally:
        flip(path, bit)
    assert checkpoint.verify(unbroken / "checkpoints" / "6") is None


def test_a_step_without_its_folder_is_damaged(workdir):
    shutil.rmtree(workdir / "checkpoints" / "6")
    assert checkpoint.find(workdir) == checkpoint.Found(4, {6: "its folder is gone"}, [])


def test_without_a_good_step_the_search_fails_and_changes_nothing(workdir):
    flip(files(workdir, 6)[-1])
    flip(files(workdir, 4)[-1])
    before = sorted(workdir.rglob("*"))
    with pytest.raises(OSError, match=r"none is good any more \(step 6: .*; step 4: "):
        checkpoint.find(workdir)
    assert sorted(workdir.rglob("*")) == before
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(OSError, match="step 6: its folder is gone"):
        checkpoint.find(workdir)
    (workdir / "saved.jsonl").write_text("{{\n")
    with pytest.raises(OSError, match="saved.jsonl, line 1, is damaged"):
        checkpoint.find(workdir)
    (workdir / "saved.jsonl").write_text('{"st')
    with pytest.raises(OSError, match="saved.jsonl has no complete line"):
        checkpoint.find(workdir)


@pytest.mark.parametrize("content", [None, "", "{{{\n", '{"step": 2}\n{"st', '[1, "x"]\n'])
def test_a_list_of_saves_that_is_lost_or_harmed_hides_no_good_step(workdir, content):
    (workdir / "saved.jsonl").unlink()
    if content is not None:
        (workdir / "saved.jsonl").write_text(content)
    assert checkpoint.find(workdir).step == 6


def test_an_interrupted_save_is_not_damage(workdir):
    """It has no manifest and is newer than all listed steps; there is at most one."""
    shutil.copytree(workdir / "checkpoints" / "6", workdir / "checkpoints" / "8")
    unseal(workdir, 8)
    assert checkpoint.find(workdir) == checkpoint.Found(6, {}, [8])
    records.append(workdir / "saved.jsonl", [{"step": 8}])
    assert checkpoint.find(workdir) == checkpoint.Found(6, {8: "manifest.json is gone"}, [])
    unseal(workdir, 6)
    assert checkpoint.find(workdir).step == 4


def test_an_interrupted_first_save_is_moved_and_the_run_starts(workdir, capsys):
    (workdir / "saved.jsonl").unlink()
    shutil.rmtree(workdir / "checkpoints" / "4")
    unseal(workdir, 6)
    assert checkpoint.find(workdir) == checkpoint.Found(None, {}, [6])
    train(workdir)
    said = capsys.readouterr().out
    assert "the first save, of step 6, was interrupted; it is kept in" in said
    assert (workdir / "damaged" / "6" / "default").is_dir()
    assert listed(workdir) == [2, 4, 6]


def test_several_steps_without_a_manifest_are_damage(workdir):
    """Another program wrote them, or a copy left them out: nothing is deleted."""
    (workdir / "saved.jsonl").unlink()
    unseal(workdir, 4)
    unseal(workdir, 6)
    with pytest.raises(OSError, match="none is good any more"):
        checkpoint.find(workdir)


def test_the_list_of_saves_is_put_in_order_when_the_run_resumes(workdir):
    (workdir / "saved.jsonl").write_text('{"step": 4}\n{"step": 90}\n{"st')
    train(workdir, last=8)
    assert listed(workdir) == [4, 6, 8]


def test_a_manifest_cannot_make_the_program_read_other_files(workdir):
    path = workdir / "checkpoints" / "6" / "manifest.json"
    (workdir / "outside").write_text("")
    for name in ("../../outside", str(workdir / "outside")):
        entries = {name: manifest.measure(workdir / "outside")}
        path.write_text(json.dumps({"files": entries, "xxh64": manifest.digest(entries)}))
        assert "outside of the step's folder" in (checkpoint.verify(path.parent) or "")


def test_a_damaged_step_is_kept_aside_and_saved_again(workdir, capsys):
    """Twice, so that a second damaged step of the same number is kept, too."""
    for _ in range(2):
        path = next(p for p in files(workdir, 6) if p.parent.name == "d")
        flip(path, 8 * (path.stat().st_size // 2))
        train(workdir)
        said = capsys.readouterr().out
        assert "step 6 is damaged: the content of default/" in said and path.name in said
        assert "step 4 is used instead" in said
        assert checkpoint.find(workdir) == checkpoint.Found(6, {}, [])
    assert sorted(p.name for p in (workdir / "damaged").iterdir()) == ["6", "6-1"]


def refused(workdir, like):
    with pytest.raises(OSError) as raised:
        checkpoint.restore(workdir, 6, like)
    return str(raised.value)


def test_arrays_with_other_shapes_are_refused_by_name(workdir):
    said = refused(workdir, state_at(0, shape=(3, 5)))
    assert "checkpoints/6 is of another network (params/head/kernel: (3, 4) there, (3, 5)" in said
    other = state_at(0)
    other.params["head"]["bias"] = jnp.zeros(4)
    assert "params/head/bias: none there, (4,) here" in refused(workdir, other)
    stats = dict(batch_stats={"mean": jnp.zeros(2)})
    assert "batch_stats/mean: none there, (2,) here" in refused(workdir, other.replace(**stats))
    two_keys = state_at(0).replace(key=jax.random.split(jax.random.key(7)))
    assert "key: (2,) there, (2, 2) here" in refused(workdir, two_keys)


def test_a_new_field_of_the_state_starts_at_zero_where_like_places_it(workdir):
    sharding = jax.NamedSharding(jax.make_mesh((1,), ("data",)), jax.P("data"))
    average = {
        "a": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16, sharding=sharding),
        "b": jax.ShapeDtypeStruct((), jnp.int32),
    }
    like = jax.eval_shape(lambda: state_at(0, average=None, gains={}))
    restored = checkpoint.restore(workdir, 6, like.replace(average=average))
    assert isinstance(restored, NewerState)
    assert (restored.params["head"]["kernel"] == 6).all() and restored.gains == {}
    for name, leaf in restored.average.items():
        assert (leaf.shape, leaf.dtype) == (average[name].shape, average[name].dtype)
        assert isinstance(leaf, jax.Array) and (leaf == 0).all()
    assert restored.average["a"].sharding == sharding


@pytest.mark.parametrize("lacking", ["params", "opt_state", "step"])
def test_a_field_that_every_version_saves_is_not_made_of_zeros(tmp_path, lacking):
    (tmp_path / "run").mkdir()

    def incomplete(step):
        fields = {name: getattr(state_at(step), name) for name in checkpoint.FIRST_FIELDS}
        return {name: value for name, value in fields.items() if name != lacking}

    train(tmp_path / "run", state=incomplete)
    assert f"{lacking}" in refused(tmp_path / "run", state_at(0))


def test_a_field_that_is_gone_is_refused_unless_it_is_empty(tmp_path):
    (tmp_path / "run").mkdir()
    train(tmp_path / "run", state=lambda step: state_at(step, average=jnp.ones(2), gains={}))
    said = refused(tmp_path / "run", state_at(0))
    assert "checkpoints/6 has the field average, which this version does not know" in said
    train(tmp_path / "run", 8, lambda step: state_at(step, average=None, gains={}))
    restored = checkpoint.restore(tmp_path / "run", 8, state_at(0))
    assert type(restored) is State and (restored.params["head"]["kernel"] == 8).all()


@contextlib.contextmanager
def limited_files(size):
    """Let no file grow beyond `size` bytes, as a quota does."""
    earlier = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, earlier[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier)


@pytest.mark.parametrize("on_leaving", [True, False])
def test_a_save_that_fails_in_the_background_is_raised_once(tmp_path, monkeypatch, on_leaving):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    noise = jnp.asarray(np.random.default_rng(0).random(100_000), jnp.float32)
    nothing = checkpoint.Found(None, {}, [])
    says = f"step 4 cannot be saved in {tmp_path}/checkpoints, the newest good .* step 2: .*large"
    with (
        pytest.raises(OSError, match=says),
        limited_files(100_000),
        checkpoint.Checkpoints(tmp_path, nothing) as checkpoints,
    ):
        checkpoints.save(2, state_at(2))
        checkpoints.wait()
        checkpoints.check()
        assert checkpoints.saved == 2
        checkpoints.save(4, state_at(4).replace(params=noise))
        checkpoints.wait()
        if not on_leaving:
            checkpoints.save(6, state_at(6))
            pytest.fail("the failed save of step 4 was not raised")
    assert checkpoint.find(tmp_path).step == 2
    # Other writes of the failed save may end even later than this.
    assert isinstance(sys.unraisablehook, functools.partial)


def test_a_run_without_a_failed_save_leaves_no_hook(tmp_path):
    before = sys.unraisablehook
    train(tmp_path / "run", last=2)
    assert sys.unraisablehook is before


def test_only_the_tracebacks_of_a_failed_saves_other_writes_are_hidden():
    class Unraisable:
        exc_value = None

    shown = []
    for error in (RuntimeError("Event loop is closed"), ValueError("another")):
        unraisable = Unraisable()
        unraisable.exc_value = error
        checkpoint._hide_closed_loop(shown.append, unraisable)
    assert [unraisable.exc_value.args for unraisable in shown] == [("another",)]


def test_a_checkpoint_on_a_full_disk_names_the_file(workdir, monkeypatch):
    (workdir / "saved.jsonl").unlink()
    (workdir / "saved.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"No space left on device: '{workdir}/saved.jsonl'"):
        checkpoint.seal(workdir, 6)
    with pytest.raises(OSError, match=f"No space left on device: '{workdir}/new.tmp'"):
        (workdir / "new.tmp").symlink_to("/dev/full")
        directory.write(workdir / "new", "text")
