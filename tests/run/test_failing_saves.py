"""Disks that are full, read-only or limited: one line, a status, and the last good checkpoint."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest

from resnet_jax.run import checkpoint


def may_mount():
    """Return whether this machine lets a process mount its own file system."""
    words = ("unshare", "-rm", "mount", "-t", "tmpfs", "none", "/tmp")
    return bool(
        shutil.which("unshare")
        and not subprocess.run(words, capture_output=True, check=False).returncode
    )


mounts = pytest.mark.skipif(not may_mount(), reason="unshare is absent or may not mount")


@pytest.fixture
def command(changes):
    """command(workdir, steps) -> the training command of the small run as a line of a shell."""

    def line(workdir, steps):
        words = [sys.executable, "-m", "resnet_jax.train", "--config=configs/digits.py:depth=4"]
        words += [f"--config.{key}={value}" for key, value in (changes | {"steps": steps}).items()]
        return shlex.join([*words, f"--workdir={workdir}"])

    return line


def shell(*lines, inside=()):
    """Run lines of a shell; `inside` is a command that runs the shell."""
    return subprocess.run(
        (*inside, "sh", "-c", "\n".join(lines)),
        env=os.environ | {"TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def fails(done, *says):
    """Assert that the command failed with one line, which says all of this."""
    assert done.returncode == 1, done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    for words in says:
        assert words in done.stderr


def test_a_save_that_fails_in_the_background_ends_the_run(copied, command):
    """A limit on the size of files is how a quota fails; only a checkpoint exceeds this one.

    The run's compiled programs are already in the cache, so that none of them meets the limit.
    """
    done = shell("ulimit -f 60", command(copied, 40))
    says = f"the checkpoint of step 8 cannot be saved in {copied}/checkpoints, the newest good "
    fails(done, says, "checkpoint is of step 6", "File too large")
    assert checkpoint.find(copied).step == 6


def quote(path):
    """Return a path as a shell takes it; the temporary folder's name may have a space."""
    return shlex.quote(str(path))


@mounts
def test_a_disk_that_gets_full_keeps_the_last_checkpoint(unbroken, command, tmp_path):
    size = sum(path.stat().st_size for path in unbroken.rglob("*") if path.is_file())
    run = tmp_path / "disk" / "run"
    run.parent.mkdir()
    done = shell(
        f"mount -t tmpfs -o size={size + 200_000} none {quote(run.parent)}",
        f"cp -r {quote(unbroken)} {quote(run)}",
        f"{command(run, 40)}; status=$?",
        f"cp -r {quote(run)} {quote(tmp_path)}; exit $status",  # the mount ends with the shell
        inside=("unshare", "-rm"),
    )
    fails(done, "No space left on device", str(run))
    assert checkpoint.find(tmp_path / "run").step is not None


@mounts
def test_a_disk_that_takes_no_byte_is_one_line_with_the_file(command, tmp_path):
    done = shell(
        f"mount -t tmpfs -o size=4096 none {quote(tmp_path)}",
        f"head -c 4096 /dev/zero >{quote(tmp_path)}/all",
        command(tmp_path / "run", 6),
        inside=("unshare", "-rm"),
    )
    fails(done, f"No space left on device: '{tmp_path}/run/lock'")


@mounts
def test_a_folder_that_cannot_be_written_is_one_line(command, tmp_path):
    mount = f"mount -t tmpfs -o ro none {quote(tmp_path)}"
    done = shell(mount, command(tmp_path / "run", 6), inside=("unshare", "-rm"))
    assert (done.returncode, done.stderr) == (
        2,
        f"error: --workdir={tmp_path / 'run'}: this user may not write to {tmp_path}\n",
    )
