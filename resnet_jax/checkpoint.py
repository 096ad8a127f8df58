"""Checkpoints: the training state by step, saved in the background, the newest good one restored.

Orbax writes each step into a folder of its own and renames it when whole, but knows no checksums:
a flipped bit would be restored in silence. So every step gets a manifest once it is whole, and then
a line in a list of what was saved. What does not match its manifest, or has none, is damage; but
for the newest step where it is not listed, which is a save that was cut short.

    checkpoints/STEP/                 orbax's
    checkpoints/STEP/manifest.json    size and xxh64 of every file in it, and of this list
    saved.jsonl                       {"step": STEP}, a line a step
"""

import contextlib
import errno
import gc
import itertools
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
import xxhash
from etils import epath

from resnet_jax import distributed
from resnet_jax.training import directory, metrics
from resnet_jax.training.directory import AnyPath, is_remote
from resnet_jax.training.state import TrainState

MANIFEST, SAVED = "manifest.json", "saved.jsonl"
UNSEALED = f"{MANIFEST} is gone"
BUFFER = 1 << 20  # bytes that are read and hashed at a time

# Orbax logs each error several times with its trace; it reaches us as an exception too.
for _logger in ("absl", "asyncio"):
    logging.getLogger(_logger).addFilter(
        lambda record: "orbax" not in record.pathname + record.getMessage()
    )


class Found(NamedTuple):
    """What is in a work directory: the newest good step, and what is newer and is not.

    `damaged` says why of each step that was saved; `unfinished` are saves that were cut short.
    """

    step: int | None
    damaged: dict[int, str]
    unfinished: list[int]


def find(workdir: AnyPath) -> Found:
    """Look for the newest step whose files are all as they were written; nothing is changed.

    One save at most can have been cut short, and it is newer than all that are listed.
    Raises: OSError where steps were saved and none of them is good any more.
    """
    # The list first: a step that a run seals meanwhile is then unfinished, and not damaged.
    listed, torn = _listed(workdir)
    folder = workdir / "checkpoints"
    inside = list(folder.iterdir()) if folder.is_dir() else []
    there = {int(p.name) for p in inside if p.name.isdecimal() and p.is_dir()}
    last = max(listed, default=-1)
    damaged, unfinished = {}, []
    for step in sorted(there | {last} - {-1}, reverse=True):
        wrong = verify(folder / str(step)) if step in there else "its folder is gone"
        if wrong is None:
            return Found(step, damaged, unfinished)
        if wrong == UNSEALED and step > last and step == max(there):
            unfinished.append(step)
        else:
            damaged[step] = wrong
    if damaged or torn:
        why = "; ".join(f"step {step}: {wrong}" for step, wrong in damaged.items()) or torn
        raise OSError(
            f"steps were saved in {workdir} and none is good any more ({why}); bring "
            f"{folder} back from a copy, or begin again in another --workdir"
        )
    return Found(None, {}, unfinished)


def finished(workdir: AnyPath, steps: int) -> bool:
    """Whether this step, a run's last, is saved and good."""
    folder = workdir / "checkpoints" / str(steps)
    return folder.is_dir() and verify(folder) is None


def _listed(workdir: AnyPath) -> tuple[list[int], str]:
    """The steps that were saved, and what is wrong with their list."""
    path = workdir / SAVED
    try:
        listed = [int(line["step"]) for line in metrics.read(path)]
    except (OSError, ValueError, TypeError) as error:
        return [], str(error)
    if not listed and path.exists() and path.read_bytes():
        return [], f"{path} is cut off"
    return listed, ""


def verify(folder: AnyPath) -> str | None:
    """Why a step's folder is not what was written, in words; None: it is, to the last bit."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = manifest["files"]
        if manifest["xxh64"] != _digest(files):
            return f"{MANIFEST} has changed"
        for name, (size, digest) in files.items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                return f"{MANIFEST} names {name}, which is outside of the step's folder"
            found = _measure(folder / name)
            if found[0] != size:
                return f"{name} has {found[0]} bytes, and had {size}"
            if found[1] != digest:
                return f"the content of {name} has changed (xxh64 {found[1]}, and was {digest})"
    except FileNotFoundError as error:
        return f"{str(error.filename or error).removeprefix(str(folder)).lstrip('/')} is gone"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} is damaged: {error}"
    except OSError as error:
        if error.errno == errno.EIO:  # others may pass: a folder that is away for a while
            return str(error)
        raise
    return None


def _measure(path: AnyPath) -> tuple[int, str]:
    """A file's size in bytes and xxh64."""
    size, digest = 0, xxhash.xxh64()
    with path.open("rb") as file:
        while part := file.read(BUFFER):
            size += len(part)
            digest.update(part)
    return size, digest.hexdigest()


def _inside(folder: AnyPath) -> Iterator[AnyPath]:
    """All files below a folder."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from _inside(path)
        elif path.name != MANIFEST:
            yield path


def _digest(files: dict[str, Any]) -> str:
    return xxhash.xxh64_hexdigest(json.dumps(files).encode())


def seal(workdir: AnyPath, step: int) -> None:
    """Write the manifest of a step that is whole, and then list it."""
    folder = workdir / "checkpoints" / str(step)
    files = {
        path.relative_to(folder).as_posix(): _measure(path) for path in sorted(_inside(folder))
    }
    manifest = {"files": files, "xxh64": _digest(files)}
    # It ends with a bracket, so that any file that was cut is no JSON.
    directory.write(folder / MANIFEST, json.dumps(manifest, indent=1))
    metrics.append(workdir / SAVED, [{"step": step}])


def restore(workdir: AnyPath, step: int, like: TrainState) -> TrainState:
    """The state saved under `step`, with the shapes, types and placement of `like`.

    Raises: OSError naming the arrays of other shapes than those of `like`.
    """
    path = (workdir if is_remote(workdir) else workdir.absolute()) / "checkpoints" / str(step)
    with ocp.StandardCheckpointer() as checkpointer:
        saved: Any = checkpointer.metadata(path / "default")
        _refuse_other_shapes(path, saved.item_metadata.tree, like)
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return checkpointer.restore(path / "default", target)


def _refuse_other_shapes(path: AnyPath, saved: Any, like: TrainState) -> None:
    """Raise where an array is missing or of another shape: orbax would cut it, or fill it up."""
    there, here = _shapes(saved), _shapes(like)
    lines = [
        f"{name}: {there.get(name, 'none')} there, {here.get(name, 'none')} here"
        for name in sorted(
            there.keys() | here.keys(), key=lambda name: ("params" not in name, name)
        )
        if there.get(name) != here.get(name)
    ]
    if lines:
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise OSError(f"{path} is of another network ({'; '.join(lines[:3])}{more})")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    # A key is its two numbers where it is stored.
    return {name(path): tuple(leaf.shape) for path, leaf in leaves if name(path) != "key"}


class Checkpoints:
    """What one run saves. Use as a context: leaving it waits for what is not saved yet.

    What `find` found to be damaged is moved to WORKDIR/damaged; what is unfinished is removed, or
    moved too where there is nothing else.
    Raises: OSError from `save`, `check` and leaving, where a save that was begun has failed.
    """

    def __init__(self, workdir: AnyPath, found: Found, keep: int = 2):
        self._workdir = workdir if is_remote(workdir) else workdir.absolute()
        _clear(self._workdir, found)
        distributed.wait("cleared")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
        )
        self._manager = ocp.CheckpointManager(self._workdir / "checkpoints", options=options)
        self._hook, sys.unraisablehook = sys.unraisablehook, _quiet
        self._sealing: threading.Thread | None = None
        self._failed: OSError | None = None
        self.saved = found.step  # the newest good step

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, *_) -> None:
        self.wait()
        with warnings.catch_warnings(), contextlib.ExitStack() as stack:
            stack.callback(setattr, sys, "unraisablehook", self._hook)
            if self._failed:  # which closing would raise again, in orbax's words
                stack.enter_context(contextlib.suppress(Exception))
                warnings.filterwarnings("ignore", ".* was never awaited", RuntimeWarning)
                gc.collect()  # what orbax did not finish warns when it goes
            self._manager.close()
        if kind is None:  # else what is raised already says more
            self.check()
            distributed.wait("sealed")  # by process 0, which ends when another one does

    def save(self, step: int, state: TrainState) -> None:
        """Save `state` under `step`; returns once it is copied from the device."""
        self.wait()
        self.check()
        with self._saving(step):
            self._manager.save(step, args=ocp.args.StandardSave(state))  # pyright: ignore
        self._sealing = threading.Thread(target=self._finish, args=(step,))
        self._sealing.start()

    def check(self) -> None:
        """Raise what a save in the background failed with."""
        if self._failed is not None:
            raise self._failed

    def _finish(self, step: int) -> None:
        try:
            with self._saving(step):
                self._manager.wait_until_finished()
                if distributed.first():
                    seal(self._workdir, step)
            self.saved = step
        except OSError as error:
            self._failed = error

    def wait(self) -> None:
        """Until nothing is being saved."""
        if self._sealing is not None:
            self._sealing.join()

    @contextlib.contextmanager
    def _saving(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # orbax and its stores raise kinds of their own
            last = "none was before" if self.saved is None else f"the last is of step {self.saved}"
            raise OSError(f"the checkpoint of step {step} cannot be saved, {last}: {error}") from (
                error
            )


def _move(folder: AnyPath, target: AnyPath) -> None:
    """Move a folder, which in an object store is no more than the names of its objects."""
    if not is_remote(folder):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        return
    for path in [*_inside(folder), folder / MANIFEST]:
        if path.exists():
            (target / path.relative_to(folder)).write_bytes(path.read_bytes())
    epath.Path(folder).rmtree()


def _quiet(unraisable: Any) -> None:
    """Show no trace of the writes that were under way when another one of their save failed."""
    if "Event loop is closed" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


@distributed.by_first
def _clear(workdir: AnyPath, found: Found) -> None:
    """Out of the way: orbax counts every folder, and saves nothing older than the newest."""
    for step in found.unfinished:
        folder = workdir / "checkpoints" / str(step)
        if found.step is None:
            kept = _aside(workdir, step)
            print(f"warning: the first save, of step {step}, was cut short; it is kept in {kept}")
        else:
            epath.Path(folder).rmtree()
    for step, wrong in found.damaged.items():
        folder = workdir / "checkpoints" / str(step)
        words = f"the checkpoint of step {step} is damaged: {wrong}"
        if folder.exists():
            words += f"; it is kept in {_aside(workdir, step)}"
        print(f"warning: {words}; step {found.step} is used instead", flush=True)
    if found.step is not None:  # a torn or wrong line would stay
        listed = sorted({step for step in _listed(workdir)[0] if step < found.step} | {found.step})
        lines = [json.dumps({"step": step}) + "\n" for step in listed]
        directory.write(workdir / SAVED, "".join(lines))


def _aside(workdir: AnyPath, step: int) -> AnyPath:
    """Move a step's folder out of the way; returns where to."""
    names = itertools.chain([str(step)], (f"{step}-{i}" for i in itertools.count(1)))
    target = next(p for name in names if not (p := workdir / "damaged" / name).exists())
    _move(workdir / "checkpoints" / str(step), target)
    return target
