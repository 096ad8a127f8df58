"""A run's files, on a disk and in an object store."""

import importlib
import subprocess
import sys
import uuid

import fsspec
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem

from resnet_jax import checkpoint
from resnet_jax.training import directory, metrics


class Store(MemoryFileSystem):
    """An object store in memory, under the name of Google's: nothing can be added to an object."""

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
    for name in Store.protocol:  # for this process, in which nothing else goes there
        fsspec.register_implementation(name, Store, clobber=True)
    folder = uuid.uuid4().hex
    yield epath.Path(f"gs://bucket/{folder}/run")
    assert any(name.endswith(f"{folder}/run/config.json") for name in Store.store), Store.store


def test_a_run_keeps_its_files_wherever_it_lives(workdir):
    config = importlib.import_module("configs.digits").get_config("depth=8")
    directory.refuse_another(workdir, config)
    directory.claim(workdir, config)
    directory.refuse_another(workdir, config)
    other = importlib.import_module("configs.digits").get_config("depth=14")
    with pytest.raises(ValueError, match="model.depth: 8 there, 14 now"):
        directory.refuse_another(workdir, other)
    assert not checkpoint.finished(workdir, config.steps)
    directory.add_start(workdir, {"step": 0, "data_fingerprint": "a+b"})
    directory.close_run(workdir, {"seconds": 1.0})
    assert directory.read_starts(workdir) == [
        {"step": 0, "data_fingerprint": "a+b", "seconds": 1.0}
    ]
    log = workdir / "metrics.jsonl"
    for step in (1, 2, 3):
        metrics.append(log, [{"step": step, "split": "train"}])
    metrics.cut(log, 2)
    assert [record["step"] for record in metrics.read(log)] == [1, 2]


def test_a_step_is_sealed_found_and_moved_aside_wherever_the_run_lives(workdir):
    config = importlib.import_module("configs.digits").get_config("depth=8")
    directory.claim(workdir, config)
    for step in (2, 4):
        inner = workdir / "checkpoints" / str(step) / "default"
        inner.mkdir(parents=True, exist_ok=True)
        for name in ("a", "b"):
            (inner / name).write_bytes(name.encode() * step)
        checkpoint.seal(workdir, step)
    assert checkpoint.find(workdir) == checkpoint.Found(4, {}, [])
    for aside in ("4", "4-1"):
        (workdir / "checkpoints" / "4" / "default" / "a").write_bytes(b"abaa")
        found = checkpoint.find(workdir)
        assert found.step == 2 and "the content of default/a has changed" in found.damaged[4]
        checkpoint._clear(workdir, found)
        assert not (workdir / "checkpoints" / "4").exists()
        assert (workdir / "damaged" / aside / "default" / "a").read_bytes() == b"abaa"
        for name in ("a", "b"):
            (workdir / "checkpoints" / "4" / "default").mkdir(parents=True, exist_ok=True)
            (workdir / "checkpoints" / "4" / "default" / name).write_bytes(name.encode() * 4)
        checkpoint.seal(workdir, 4)


def test_data_is_another_only_where_both_starts_know_that_part(tmp_path):
    directory.add_start(tmp_path, {"data_fingerprint": "files+content"})
    directory.refuse_other_data(tmp_path, "files")  # streamed now
    for now in ("other", "files+other"):
        with pytest.raises(ValueError, match="has changed since it began"):
            directory.refuse_other_data(tmp_path, now)


def test_a_directory_is_one_runs_while_its_process_lives(tmp_path):
    """And anyone's again when it was killed, though nothing could be put in order."""
    words = (
        "from pathlib import Path; from resnet_jax.training import directory; import sys, time\n"
    )
    words += "with directory.locked(Path(sys.argv[1])): print('holds', flush=True); time.sleep(600)"
    holder = subprocess.Popen(
        (sys.executable, "-c", words, str(tmp_path)), stdout=subprocess.PIPE, text=True
    )
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


def test_a_run_that_was_killed_before_its_config_was_written_can_begin(tmp_path):
    config = importlib.import_module("configs.digits").get_config("depth=8")
    (tmp_path / "config.json.tmp").write_text("{")
    (tmp_path / "lock").write_text("")
    directory.refuse_another(tmp_path, config)
    directory.claim(tmp_path, config)
    assert not (tmp_path / "config.json.tmp").exists()
