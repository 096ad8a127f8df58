"""What a result depends on beside its config: devices, versions, the revision, the command."""

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax

# A git hook, for example, sets these: they would name another repository than this one.
GIT_OF_ANOTHER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")


def devices() -> str:
    """Return the devices in words, with a warning if a GPU is present and JAX runs on the CPU."""
    devices = jax.devices()
    line = f"devices: {len(devices)} x {devices[0].platform} {devices[0].device_kind}"
    if devices[0].platform == "cpu":
        line = f"devices: cpu, {os.cpu_count()} cores"
        if Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists():
            line += (
                "; WARNING: an NVIDIA GPU is present and JAX runs on the CPU, "
                "install it with: make setup ACCELERATOR=cuda13"
            )
    return line


def versions() -> dict[str, str]:
    """Return what a result depends on: the versions of packages, Python, the machine and us."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        **{name: metadata.version(name) for name in names},
        "python": platform.python_version(),
        "machine": platform.platform(),
        "revision": revision(),
    }


def revision() -> str:
    """Return the git revision of this checkout, marked if files differ from it.

    The revision is empty without git, and if the package is not part of a checkout of its own: it
    may lie in another project's repository, which does not track it. The checkout may be
    another user's, which git refuses to read unless it is told that this is meant.
    """
    env = {name: os.environ[name] for name in os.environ if name not in GIT_OF_ANOTHER}
    git = lambda *words: subprocess.run(
        ("git", "-c", "safe.directory=*", *words),
        cwd=Path(__file__).parent,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    try:
        root = git("rev-parse", "--show-toplevel")
        if not root or Path(root).resolve() != Path(__file__).resolve().parent.parent:
            return ""
        if not git("ls-files", Path(__file__).name):  # the repository does not hold this file
            return ""
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except OSError:
        return ""


def command_line() -> str:
    """Return the command as it was typed, to be run again from the repository's folder."""
    return shlex.join(["python", *sys.orig_argv[1:]])
