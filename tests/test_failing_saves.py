"""Disks that are full, read-only or limited: one line, a status, and the last good checkpoint."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest

from resnet_jax import checkpoint

CHANGES = "steps=4 chunk_steps=2 eval_every=4 checkpoint_every=4 batch_size=16"


def may_mount():
    """A file system of our own takes a namespace of our own, which not every machine gives."""
    words = ("unshare", "-rm", "mount", "-t", "tmpfs", "none", "/tmp")
    return bool(
        shutil.which("unshare")
        and not subprocess.run(words, capture_output=True, check=False).returncode
    )


mounts = pytest.mark.skipif(not may_mount(), reason="no unshare here, or it may not mount")


def train(workdir, *changes):
    """The command, for a shell."""
    words = [sys.executable, "-m", "resnet_jax.train", "--config=configs/digits.py:depth=8"]
    words += [f"--config.{change}" for change in (*CHANGES.split(), *changes)]
    return shlex.join([*words, f"--workdir={workdir}"])


def shell(script, *around):
    """Run lines of a shell, inside of another command."""
    return subprocess.run(
        (*around, "sh", "-c", script),
        env=os.environ | {"TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A finished run of four steps. Its programs are kept: no limit is met by keeping them."""
    workdir = tmp_path_factory.mktemp("saved") / "run"
    assert shell(train(workdir)).returncode == 0
    return workdir


def fails(done, *says, status=1):
    """It failed in one line that says all of this."""
    assert done.returncode == status, done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    for words in says:
        assert words in done.stderr


@pytest.mark.parametrize("steps,failing", [(40, 8), (6, 6)], ids=["on the way", "the last"])
def test_a_save_that_fails_in_the_background_ends_the_run(saved, tmp_path, steps, failing):
    """By a limit on the size of a file, a quota's way to fail, which only a checkpoint exceeds."""
    shutil.copytree(saved, tmp_path / "run")
    done = shell(f"ulimit -f 200; {train(tmp_path / 'run', f'steps={steps}')}")
    says = f"the checkpoint of step {failing} cannot be saved, the last is of step 4"
    fails(done, says, "File too large")
    assert checkpoint.find(tmp_path / "run").step == 4


@mounts
def test_a_full_disk_is_one_line_and_the_last_checkpoint_is_kept(saved, tmp_path):
    size = sum(p.stat().st_size for p in saved.rglob("*") if p.is_file())
    found = "import sys, pathlib, resnet_jax.checkpoint as c; "
    found += "print('found', c.find(pathlib.Path(sys.argv[1])).step)"
    run = tmp_path / "run"
    lines = (
        f"mount -t tmpfs -o size={size + 200_000} none {tmp_path} && cp -r {saved} {run}",
        f"{train(run, 'steps=40')}; status=$?",
        shlex.join([sys.executable, "-c", found, str(run)]),
        "exit $status",
    )
    done = shell("\n".join(lines), "unshare", "-rm")
    fails(done, "No space left on device")
    assert done.stdout.endswith("found 4\n")


@mounts
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    mount = f"mount -t tmpfs -o ro none {tmp_path}"
    done = shell(f"{mount} && {train(tmp_path / 'run')}", "unshare", "-rm")
    fails(done, "Read-only file system", str(tmp_path / "run"))
