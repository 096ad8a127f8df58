"""The manifest of a checkpoint: size and xxh64 of every file, so that a changed bit is noticed.

    {"files": {NAME: [SIZE, XXH64], ...}, "xxh64": XXH64 of the entry "files"}

Orbax stores no checksums: a bit that flips on the disk would be restored without a word.
"""

import errno
import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import xxhash

from resnet_jax.run import directory
from resnet_jax.run.directory import AnyPath

MANIFEST = "manifest.json"
NO_MANIFEST = f"{MANIFEST} is gone"
BUFFER = 1 << 20  # bytes that are read and hashed at a time


def write(folder: AnyPath) -> None:
    """Write the manifest of a complete checkpoint. Raises: OSError that names the file."""
    entries = {path.relative_to(folder).as_posix(): measure(path) for path in sorted(files(folder))}
    manifest = {"files": entries, "xxh64": digest(entries)}
    # The text ends with a bracket, so that a manifest which lost its end is not valid JSON.
    directory.write(folder / MANIFEST, json.dumps(manifest, indent=1))


def verify(folder: AnyPath) -> str | None:
    """Return how the files of a checkpoint differ from its manifest; None if every bit is right.

    Raises: OSError if a file cannot be read for a reason that may pass, such as a lost network.
    """
    try:
        manifest = json.loads(directory.read_bytes(folder / MANIFEST))
        entries = manifest["files"]
        if manifest["xxh64"] != digest(entries):
            return f"{MANIFEST} has changed"
        for name, (saved_size, saved_digest) in entries.items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                return f"{MANIFEST} names {name}, which is outside of the step's folder"
            size, file_digest = measure(folder / name)
            if size != saved_size:
                return f"{name} has {size} bytes instead of {saved_size}"
            if file_digest != saved_digest:
                return (
                    f"the content of {name} has changed (xxh64 {file_digest} instead of "
                    f"{saved_digest})"
                )
    except FileNotFoundError as error:
        return f"{str(error.filename or error).removeprefix(str(folder)).lstrip('/')} is gone"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} is damaged: {error}"
    except OSError as error:
        if error.errno == errno.EIO:  # a defect of the disk, which does not pass
            return str(error)
        raise
    return None


def measure(path: AnyPath) -> tuple[int, str]:
    """Return a file's size in bytes and its xxh64. Raises: OSError that names the file."""
    size, hashed = 0, xxhash.xxh64()
    with directory.naming(path), path.open("rb") as file:
        while part := file.read(BUFFER):
            size += len(part)
            hashed.update(part)
    return size, hashed.hexdigest()


def files(folder: AnyPath) -> Iterator[AnyPath]:
    """Yield all files below a folder except manifests."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from files(path)
        elif path.name != MANIFEST:
            yield path


def digest(entries: dict[str, Any]) -> str:
    """Return the xxh64 of a manifest's entry "files"."""
    return xxhash.xxh64_hexdigest(json.dumps(entries).encode())
