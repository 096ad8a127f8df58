"""The files of a run's directory, on a disk and in an object store."""

import errno
import subprocess
import sys
import uuid

import fsspec
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from resnet_jax.run import checkpoint, directory, records
from tests.recipes import recipe


class Store(MemoryFileSystem):
    """An object store in memory under the name of Google's store; it cannot append to objects."""

    protocol = ("gs", "gcs")
    store: dict = {}  # noqa: RUF012 - shared by all instances, as a store is
    pseudo_dirs = [""]  # noqa: RUF012

    def __init__(self, *arguments, finalize_on_close=None, **options):
        super().__init__(*arguments, **options)

    def _open(self, path, mode="rb", **options):
        assert "a" not in mode, "an object store cannot append"
        return super()._open(path, mode, **options)


@pytest.fixture(params=["local", "gs"])
def workdir(request, tmp_path):
    if request.param == "local":
        yield epath.Path(tmp_path / "run")
        return
    for name in Store.protocol:  # in this process no other test uses a store of that name
        fsspec.register_implementation(name, Store, clobber=True)
    folder = uuid.uuid4().hex
    yield epath.Path(f"gs://bucket/{folder}/run")
    assert any(name.endswith(f"{folder}/run/config.json") for name in Store.store), Store.store


def test_a_run_keeps_its_files_in_every_kind_of_directory(workdir, digits):
    config = digits(8)
    directory.refuse_another(workdir, config)
    directory.claim(workdir, config)
    directory.refuse_another(workdir, config)
    with pytest.raises(ValueError, match="another run .*model.depth is 8 in that run and 14 now"):
        directory.refuse_another(workdir, digits(14))
    assert not checkpoint.finished(workdir, config.steps)
    directory.add_start(workdir, {"step": 0, "data_fingerprint": "a+b"})
    directory.close_run(workdir, {"seconds": 1.0})
    assert directory.read_starts(workdir) == [
        {"step": 0, "data_fingerprint": "a+b", "seconds": 1.0}
    ]
    path = workdir / "metrics.jsonl"
    for step in (1, 2, 3):
        records.append(path, [{"step": step, "split": "train"}])
    records.cut(path, 2)
    assert [record["step"] for record in records.read(path)] == [1, 2]


def test_a_step_is_sealed_found_and_moved_in_every_kind_of_directory(workdir, digits):
    directory.claim(workdir, digits(8))
    folder = workdir / "checkpoints" / "4"

    def write(step):
        inner = workdir / "checkpoints" / str(step) / "default"
        inner.mkdir(parents=True, exist_ok=True)
        for name in ("a", "b"):
            (inner / name).write_bytes(name.encode() * step)
        checkpoint.seal(workdir, step)

    write(2)
    write(4)
    assert checkpoint.find(workdir) == checkpoint.Found(4, {}, [])
    for aside in ("4", "4-1"):
        (folder / "default" / "a").write_bytes(b"abaa")
        found = checkpoint.find(workdir)
        assert found.step == 2 and "the content of default/a has changed" in found.damaged[4]
        checkpoint._clear(workdir, found)
        assert not folder.exists()
        assert (workdir / "damaged" / aside / "default" / "a").read_bytes() == b"abaa"
        write(4)


def test_fingerprints_are_compared_in_the_parts_that_both_have(tmp_path):
    directory.add_start(tmp_path, {"data_fingerprint": "files+content"})
    directory.refuse_other_data(tmp_path, "files")  # of streamed data
    for now in ("other", "files+other"):
        with pytest.raises(ValueError, match="has changed since it began"):
            directory.refuse_other_data(tmp_path, now)


HOLD = """
import sys, time
from pathlib import Path
from resnet_jax.run import directory
with directory.locked(Path(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(600)
"""


def test_a_directory_is_locked_while_its_process_lives(tmp_path):
    """A killed process cannot unlock the directory; the kernel does."""
    command = (sys.executable, "-c", HOLD, str(tmp_path))
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout and holder.stdout.readline() == "holds\n"
        says = f"is in use by process {holder.pid} on .* since .*use another --workdir"
        with pytest.raises(BlockingIOError, match=says):
            directory.refuse_in_use(tmp_path)
        with pytest.raises(BlockingIOError, match=says), directory.locked(tmp_path):
            pass
    finally:
        holder.kill()
        holder.communicate()
    directory.refuse_in_use(tmp_path)
    with directory.locked(tmp_path), pytest.raises(BlockingIOError):
        directory.refuse_in_use(tmp_path)
    with directory.locked(tmp_path):
        pass


def test_a_run_that_was_killed_before_its_config_was_written_can_start(tmp_path, digits):
    (tmp_path / "config.json.tmp").write_text("{")
    (tmp_path / "lock").write_text("")
    directory.refuse_another(tmp_path, digits(8))
    directory.claim(tmp_path, digits(8))
    assert not (tmp_path / "config.json.tmp").exists()


def test_a_longer_cosine_is_another_run_unless_its_end_is_kept(tmp_path):
    load = lambda **changes: recipe("digits", "depth=8,schedule=cosine", **changes)
    directory.claim(tmp_path, load(steps=100, schedule__end=100))
    with pytest.raises(ValueError, match="100 in that run and 200 now .to keep it, set --"):
        directory.refuse_another(tmp_path, load(steps=200, schedule__end=200))
    directory.refuse_another(tmp_path, load(steps=200, schedule__end=100))


def test_a_directory_that_holds_something_else_is_refused(tmp_path, digits):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is not empty and holds no run; use another"):
        directory.refuse_another(tmp_path, digits(8))
    with pytest.raises(ValueError, match="is not empty and holds no run; use another"):
        directory.refuse_another(tmp_path / "thesis.tex", digits(8))


@pytest.mark.parametrize("content", ["{", "[1]", "3", "\udcff"])
def test_a_damaged_list_of_starts_is_named(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(OSError, match=f"{tmp_path}/run.json is damaged: "):
        directory.read_starts(tmp_path)


def test_every_error_of_the_disk_names_the_file(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    no_space = OSError(errno.ENOSPC, "No space left on device")

    def fails(*_):
        raise no_space

    with monkeypatch.context() as full_disk:
        full_disk.setattr(directory.os, "write", fails)
        full_disk.setattr(directory.os, "fsync", fails)
        says = rf"\[Errno 28\] No space left on device: '{path}'"
        with pytest.raises(OSError, match=says), directory.locked(tmp_path):
            pass
        with pytest.raises(OSError, match=f"'{tmp_path}/file.tmp'"):
            directory.write(tmp_path / "file", "text")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/nowhere"):
        directory.read(tmp_path / "nowhere")


def test_errors_of_the_run_itself_are_not_given_the_locks_name(tmp_path):
    with pytest.raises(OSError) as raised, directory.locked(tmp_path):
        raise OSError(errno.EIO, "of the run")
    assert raised.value.filename is None
