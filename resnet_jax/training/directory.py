"""A run's directory: config.json (what it is), run.json (each start), metrics.jsonl, checkpoints/.

The same command in the same directory goes on where it stopped; another run is refused. Of many
processes the first alone writes.
"""

import contextlib
import importlib
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from etils import epath

from resnet_jax import config as configs
from resnet_jax.config import Config
from resnet_jax.distributed import by_first

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = "lock"  # a file that the process of a run holds

# A work directory may be local or an object store's (gs://), which etils.epath reads and writes.
AnyPath = Path | epath.Path


def refuse_another(workdir: AnyPath, config: Config) -> None:
    """Raise unless `workdir` is empty, absent, or a run of this very config.

    Raises: ValueError naming the keys that differ, with both values.
    """
    saved = workdir / "config.json"
    if saved.exists():
        lines = configs.differences(config, read(saved))
        if lines:
            raise ValueError(
                f"{workdir} holds another run ({'; '.join(lines)}); use another --workdir"
            )
    elif workdir.exists() and (
        not workdir.is_dir()
        or any(path.name not in (LOCK, "config.json.tmp") for path in workdir.iterdir())
    ):
        raise ValueError(f"{workdir} is not empty and holds no run of ours; use another --workdir")


@contextlib.contextmanager
def locked(workdir: AnyPath) -> Iterator[None]:
    """Hold the directory for this process, until it leaves or ends in whatever way.

    The kernel holds the lock (flock), also over NFS; in an object store there is none.
    Raises: BlockingIOError naming the process that holds it.
    """
    if fcntl is None or is_remote(workdir):
        yield
        return
    with open(workdir / LOCK, "a+") as file:  # epath has no such mode
        _flock(workdir, file, fcntl.LOCK_EX)
        file.truncate(0)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n")
        file.flush()
        yield


def refuse_in_use(workdir: AnyPath) -> None:
    """Raise as `locked` does, where another process holds the directory now; nothing is written."""
    if fcntl is not None and not is_remote(workdir) and (workdir / LOCK).exists():
        with (workdir / LOCK).open() as file:
            _flock(workdir, file, fcntl.LOCK_SH)


def _flock(workdir: AnyPath, file: Any, kind: int) -> None:
    for last in (False, False, True):  # another process may only be looking
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)  # pyright: ignore
            return
        except BlockingIOError as error:
            if last:
                file.seek(0)
                raise BlockingIOError(
                    f"{workdir} is in use by {file.read().strip() or 'another process'}; wait for "
                    "its end, or use another --workdir"
                ) from error
            time.sleep(0.1)
        except OSError as error:
            print(f"warning: {workdir} cannot be locked ({error}): start no second run in it")
            return


def refuse_without_clients(workdir: AnyPath) -> None:
    """Raise where `workdir` is an object store's and what reads and writes there is missing."""
    needed = {"gcsfs": "gcsfs", "google.cloud.storage": "google-cloud-storage"}
    if not is_remote(workdir):
        return
    for module, package in needed.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(
                f"--workdir={workdir} needs {package}: pip install {' '.join(needed.values())}"
            ) from error


def refuse_other_data(workdir: AnyPath, fingerprint: str) -> None:
    """Raise where the run began on data of other content than there is now."""
    for start in read_starts(workdir):
        # A streamed start knows less than one that had all of it in memory.
        if "data_fingerprint" not in start:
            raise OSError(f"{workdir / 'run.json'} is damaged: a start has no data_fingerprint")
        parts = zip(start["data_fingerprint"].split("+"), fingerprint.split("+"), strict=False)
        if any(then != now for then, now in parts):
            raise ValueError(
                f"the data of the run in {workdir} has changed since it began (fingerprint "
                f"{start['data_fingerprint']} then, {fingerprint} now); use another --workdir"
            )


@by_first
def claim(workdir: AnyPath, config: Config) -> None:
    """Make the directory this run's: nothing else is written before its config.json."""
    workdir.mkdir(parents=True, exist_ok=True)
    write(workdir / "config.json", configs.to_json(config))


@by_first
def add_start(workdir: AnyPath, start: dict[str, Any]) -> None:
    """Add this start to run.json."""
    write(workdir / "run.json", json.dumps([*read_starts(workdir), start], indent=2) + "\n")


@by_first
def close_run(workdir: AnyPath, end: dict[str, Any]) -> None:
    """Add what this start measured to its entry in run.json."""
    starts = read_starts(workdir)
    starts[-1] |= end
    write(workdir / "run.json", json.dumps(starts, indent=2) + "\n")


def read_starts(workdir: AnyPath) -> list[dict[str, Any]]:
    """The entries of run.json, one a start; none before the first."""
    path = workdir / "run.json"
    starts = read(path) if path.exists() else []
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise OSError(f"{path} is damaged: it is no list of starts")
    return starts


def read(path: AnyPath) -> Any:
    """What a JSON file of ours holds. Raises: OSError naming one that holds none."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise OSError(f"{path} is damaged: {error}") from error


@by_first
def write(path: AnyPath, text: str) -> None:
    """Replace a file whole, so that a kill leaves the old one or the new one."""
    if is_remote(path):  # an object appears whole or not at all
        path.write_text(text)
        return
    temporary = path.with_suffix(path.suffix + ".tmp")
    to_disk(temporary, "w", text)
    temporary.replace(path)
    with contextlib.suppress(OSError):  # some systems have no folders to open: its new name, too
        handle = os.open(path.parent, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def to_disk(path: AnyPath, mode: Literal["w", "a"], text: str) -> None:
    """Write a local file, so that it is there when a checkpoint is that counts on it.

    Raises: OSError with its name.
    """
    try:
        with path.open(mode) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:  # a full disk does not say what was written
        raise OSError(error.errno, error.strerror, str(path)) from error


def is_remote(path: AnyPath) -> bool:
    """Whether it is an object store's, which can neither append nor rename in one step."""
    return "://" in str(path)
