"""The files of a run's directory: config.json (what the run is), run.json (each start), the lock.

The same command in the same directory resumes the run. Another run in that directory is refused.
If a run has many processes, only process 0 writes.
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

LOCK = "lock"  # the file that the process of a run locks

# etils.epath reads and writes both local directories and those of an object store (gs://).
AnyPath = Path | epath.Path


def at(name: str | AnyPath) -> AnyPath:
    """Return the directory of this name: a local folder, or gs://BUCKET/FOLDER. Nothing is written.

    Raises: ValueError for an empty name, for another kind of address, and if a package that
        accesses gs:// is missing, with the command that installs it.
    """
    name = str(name)
    if not name:
        raise ValueError("--workdir is empty; name a folder, such as --workdir=runs/resnet-20")
    if not is_remote(name):
        try:
            if (path := epath.Path(name).expanduser()).parts[:1] and path.parts[0][0] == "~":
                raise RuntimeError("there is no such user")
            return path
        except RuntimeError as error:  # there is no home directory
            raise ValueError(f"--workdir={name}: {error}") from error
    if not name.startswith("gs://"):
        raise ValueError(f"--workdir={name} is neither a folder nor gs://BUCKET/FOLDER")
    needed = {"gcsfs": "gcsfs", "google.cloud.storage": "google-cloud-storage"}
    for module, package in needed.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(
                f"--workdir={name} needs {package}: pip install {' '.join(needed.values())}"
            ) from error
    return epath.Path(name)


def refuse_unwritable(workdir: AnyPath) -> None:
    """Raise unless a run can write its files and checkpoints to `workdir`.

    Raises: ValueError for a local directory that cannot be made, that this user may not write to,
        or whose path Orbax cannot handle: it has [, ], * or ?, or bytes that are not UTF-8.
    """
    if is_remote(workdir):
        return
    if wrong := sorted(set("[]*?") & set(str(workdir.absolute()))):
        raise ValueError(
            f"--workdir={workdir}: the path has {' '.join(wrong)}, and Orbax would restore no "
            "checkpoint from it; use another name"
        )
    try:
        str(workdir).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(str(workdir))
        raise ValueError(
            f"--workdir={shown!r} is not UTF-8, and Orbax would save no checkpoint there; use "
            "another name"
        ) from error
    nearest = next(folder for folder in (workdir, *workdir.parents) if folder.exists())
    if not nearest.is_dir():
        raise ValueError(f"--workdir={workdir} cannot be made, because {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"--workdir={workdir}: this user may not write to {nearest}")


def refuse_another(workdir: AnyPath, config: Config) -> None:
    """Raise unless `workdir` is absent, empty, or the directory of a run with this config.

    Raises: ValueError that names the keys with different values, and both values.
    """
    config_path = workdir / "config.json"
    if config_path.exists():
        lines = configs.differences(config, configs.from_saved(read(config_path), str(config_path)))
        if lines:
            raise ValueError(
                f"{workdir} holds another run ({'; '.join(lines)}); use another --workdir"
            )
    elif workdir.exists() and (
        not workdir.is_dir()
        or any(path.name not in (LOCK, "config.json.tmp") for path in workdir.iterdir())
    ):
        raise ValueError(f"{workdir} is not empty and holds no run; use another --workdir")


@contextlib.contextmanager
def locked(workdir: AnyPath) -> Iterator[None]:
    """Lock the directory for this process; the lock ends with the context or with the process.

    The kernel holds the lock (flock), also over NFS. An object store has no lock.
    Raises: BlockingIOError that names the process which holds the lock.
    """
    if fcntl is None or is_remote(workdir):
        yield
        return
    lock = workdir / LOCK
    with open(lock, "a+", encoding="utf-8") as file:  # epath's `open` has no mode "a+"
        _flock(workdir, file, fcntl.LOCK_EX)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        holder = f"process {os.getpid()} on {socket.gethostname()} since {now}\n"
        with naming(lock):  # without a buffer, which closing would write a second time
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), holder.encode())
        yield


def refuse_in_use(workdir: AnyPath) -> None:
    """Raise if another process holds the lock of `workdir`; write nothing.

    Raises: BlockingIOError that names the process which holds the lock.
    """
    if fcntl is not None and not is_remote(workdir) and (workdir / LOCK).exists():
        with (workdir / LOCK).open(encoding="utf-8") as file:
            _flock(workdir, file, fcntl.LOCK_SH)


def _flock(workdir: AnyPath, file: Any, kind: int) -> None:
    """Lock an open lock file; three attempts, because `refuse_in_use` locks it for a moment."""
    for is_last_attempt in (False, False, True):
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)  # pyright: ignore
            return
        except BlockingIOError as error:
            if is_last_attempt:
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise BlockingIOError(
                    f"{workdir} is in use by {holder}; wait until that process ends, or use "
                    "another --workdir"
                ) from error
            time.sleep(0.1)
        except OSError as error:
            print(f"warning: {workdir} cannot be locked ({error}): start no second run in it")
            return


def refuse_other_data(workdir: AnyPath, fingerprint: str) -> None:
    """Raise if the run began on data with another content than `fingerprint` says.

    A fingerprint has parts, joined by "+". Streamed data has fewer parts than the same data in
    memory; only the parts that both have are compared.
    Raises: ValueError with both fingerprints; OSError if run.json is damaged.
    """
    for start in read_starts(workdir):
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
    """Create the directory and its config.json, which is the first file that a run writes."""
    workdir.mkdir(parents=True, exist_ok=True)
    write(workdir / "config.json", configs.to_json(config))


@by_first
def add_start(workdir: AnyPath, start: dict[str, Any]) -> None:
    """Add an entry for this start of the run to run.json."""
    write(workdir / "run.json", json.dumps([*read_starts(workdir), start], indent=2) + "\n")


@by_first
def close_run(workdir: AnyPath, end: dict[str, Any]) -> None:
    """Add measurements of this start to its entry, the last of run.json."""
    starts = read_starts(workdir)
    starts[-1] |= end
    write(workdir / "run.json", json.dumps(starts, indent=2) + "\n")


def read_starts(workdir: AnyPath) -> list[dict[str, Any]]:
    """Return the entries of run.json, one for each start; an empty list if the file is absent.

    Raises: OSError if the file is damaged.
    """
    path = workdir / "run.json"
    starts = read(path) if path.exists() else []
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise OSError(f"{path} is damaged: it is not a list of starts")
    return starts


def read(path: AnyPath) -> Any:
    """Return the content of a JSON file. Raises: OSError that names a file which is not JSON."""
    try:
        return json.loads(read_bytes(path))
    except ValueError as error:
        raise OSError(f"{path} is damaged: {error}") from error


def read_bytes(path: AnyPath) -> bytes:
    """Return the bytes of a file. Raises: OSError that names the file."""
    with naming(path):
        return path.read_bytes()


@by_first
def write(path: AnyPath, text: str) -> None:
    """Replace the whole file; a process that is killed leaves the old file or the new file.

    Raises: OSError that names the file.
    """
    if is_remote(path):  # an object store replaces a whole object or nothing
        with naming(path):
            path.write_bytes(text.encode())
        return
    temporary = path.with_suffix(path.suffix + ".tmp")
    to_disk(temporary, "w", text)
    temporary.replace(path)
    with contextlib.suppress(OSError):  # some systems cannot open a folder
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)  # the new name reaches the disk, too
        finally:
            os.close(handle)


def to_disk(path: AnyPath, mode: Literal["w", "a"], text: str) -> None:
    """Write to a local file and wait for the disk, so that a later checkpoint can rely on it.

    Raises: OSError that names the file.
    """
    with naming(path), path.open(mode, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def naming(path: AnyPath) -> Iterator[None]:
    """Add `path` to an OSError that names no file: a full disk does not say which file it lacks."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def is_remote(path: str | AnyPath) -> bool:
    """Return whether `path` is in an object store, which can neither append nor rename at once."""
    return "://" in str(path)
