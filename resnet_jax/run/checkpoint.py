"""Checkpoints: the training state by step, saved in the background and restored after a stop.

Orbax writes each step into its own folder, and renames the folder when the step is complete. Then
the step gets a manifest with checksums (manifest.py) and a line in the list of saved steps. A step
without a valid manifest is damaged, except the newest unlisted step, which is an interrupted save.

    checkpoints/STEP/                 files of Orbax
    checkpoints/STEP/manifest.json    size and xxh64 of each of these files
    saved.jsonl                       {"step": STEP}, one line for each saved step
"""

import contextlib
import dataclasses
import functools
import gc
import itertools
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from resnet_jax import distributed
from resnet_jax.run import directory, manifest, records
from resnet_jax.run.directory import AnyPath, is_remote
from resnet_jax.run.manifest import MANIFEST, NO_MANIFEST, verify

SAVED = "saved.jsonl"

# Fields of the state that every version has saved. A checkpoint without one is never filled up.
FIRST_FIELDS = ("step", "params", "batch_stats", "opt_state", "key", "skipped")

# Orbax logs each error several times with its traceback, and raises the error as well.
for _logger in ("absl", "asyncio"):
    logging.getLogger(_logger).addFilter(
        lambda record: "orbax" not in record.pathname + record.getMessage()
    )


class Found(NamedTuple):
    """The steps in a run's directory.

    Attributes:
        step: the newest good step; None if no step is good.
        damaged: newer saved steps that are damaged, and why.
        unfinished: newer steps whose save was interrupted.
    """

    step: int | None
    damaged: dict[int, str]
    unfinished: list[int]


def find(workdir: AnyPath) -> Found:
    """Find the newest step whose files all match its manifest; change nothing.

    At most one save can be interrupted. It is newer than all listed steps.

    Raises: OSError if steps were saved and none of them is good.
    """
    # Read the list before the folders: if a run lists a new step in between, the step counts as
    # interrupted, not as damaged.
    listed, list_problem = _listed_steps(workdir)
    folder = workdir / "checkpoints"
    paths = list(folder.iterdir()) if folder.is_dir() else []
    on_disk = {int(path.name) for path in paths if path.name.isdecimal() and path.is_dir()}
    newest_listed = max(listed, default=-1)
    damaged, unfinished = {}, []
    for step in sorted(on_disk | {newest_listed} - {-1}, reverse=True):
        problem = verify(folder / str(step)) if step in on_disk else "its folder is gone"
        if problem is None:
            return Found(step, damaged, unfinished)
        if problem == NO_MANIFEST and step > newest_listed and step == max(on_disk):
            unfinished.append(step)
        else:
            damaged[step] = problem
    if damaged or list_problem:
        problems = [f"step {step}: {problem}" for step, problem in damaged.items()]
        raise OSError(
            f"steps were saved in {workdir} and none is good any more "
            f"({'; '.join(problems) or list_problem}); restore {folder} from a copy, or start "
            "again in another --workdir"
        )
    return Found(None, {}, unfinished)


def finished(workdir: AnyPath, steps: int) -> bool:
    """Return whether step `steps`, the last of a run, is saved and good."""
    folder = workdir / "checkpoints" / str(steps)
    return folder.is_dir() and verify(folder) is None


def _listed_steps(workdir: AnyPath) -> tuple[list[int], str]:
    """Return the steps in the list of saved steps, and what is wrong with the list or ""."""
    path = workdir / SAVED
    try:
        listed = [int(line["step"]) for line in records.read(path)]
        if not listed and path.exists() and directory.read_bytes(path):
            return [], f"{path} has no complete line"
    except (OSError, ValueError, TypeError) as error:
        return [], str(error)
    return listed, ""


def seal(workdir: AnyPath, step: int) -> None:
    """Write the manifest of a complete step, and then add the step to the list of saved steps."""
    manifest.write(workdir / "checkpoints" / str(step))
    records.append(workdir / SAVED, [{"step": step}])


@distributed.by_first
def cut(workdir: AnyPath, step: int) -> None:
    """Remove the saved steps after `step`, because a run that goes on there saves them again."""
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.isdecimal() and int(path.name) > step:
            epath.Path(path).rmtree()
    kept = [listed for listed in _listed_steps(workdir)[0] if listed <= step]
    directory.write(workdir / SAVED, "".join(json.dumps({"step": s}) + "\n" for s in kept))


def restore(workdir: AnyPath, step: int, like: Any) -> Any:
    """Return the state that was saved as `step`, with the shapes, types and placement of `like`.

    A new version may add a field to the state. A field of `like` that the checkpoint lacks
    altogether starts at zero, with the placement of `like`; an empty tree stays empty. So whoever
    adds a field must choose it such that zeros, or an empty tree, reproduce what was computed
    without the field. `FIRST_FIELDS` are never filled with zeros.

    A saved field that `like` lacks is an error, unless the field holds no arrays: without it the
    run would silently compute something else than the version that wrote the checkpoint.

    Args:
        workdir: the run's directory.
        step: a step that `find` calls good.
        like: a dataclass of trees of arrays or of `jax.ShapeDtypeStruct`.

    Raises: OSError that names fields which `like` lacks, and arrays with other shapes than `like`.
    """
    folder = (workdir if is_remote(workdir) else workdir.absolute()) / "checkpoints" / str(step)
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    fields = {field.name: getattr(abstract, field.name) for field in dataclasses.fields(like)}
    with ocp.StandardCheckpointer() as checkpointer:
        metadata: Any = checkpointer.metadata(folder / "default")
        saved = metadata.item_metadata.tree
        unknown = {name: tree for name, tree in saved.items() if name not in fields}
        if names := [name for name, tree in unknown.items() if jax.tree.leaves(tree)]:
            raise OSError(
                f"{folder} has the field {', '.join(names)}, which this version does not know; use "
                "the version that wrote the checkpoint, run.json names its revision"
            )
        new_names = fields.keys() - saved.keys() - set(FIRST_FIELDS)
        new = {name: fields.pop(name) for name in new_names}
        _refuse_other_shapes(folder, saved, fields)
        restored = checkpointer.restore(folder / "default", fields | unknown)
    zeros = jax.jit(
        lambda: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), new),
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, new),
    )
    values = {name: restored[name] for name in fields} | (zeros() if new else {})
    return dataclasses.replace(like, **values)


def _refuse_other_shapes(folder: AnyPath, saved: Any, like: Any) -> None:
    """Raise if an array is missing or has another shape: Orbax would cut the array or fill it."""
    saved_shapes, shapes = _shapes(saved), _shapes(like)
    lines = [
        f"{name}: {saved_shapes.get(name, 'none')} there, {shapes.get(name, 'none')} here"
        for name in sorted(
            saved_shapes.keys() | shapes.keys(), key=lambda name: ("params" not in name, name)
        )
        if saved_shapes.get(name) != shapes.get(name)
    ]
    if lines:
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise OSError(f"{folder} is of another network ({'; '.join(lines[:3])}{more})")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array by the array's name; a key has the shape of its numbers."""
    shapes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)
        shapes[jax.tree_util.keystr(path, simple=True, separator="/")] = tuple(leaf.shape)
    return shapes


class Checkpoints:
    """The saves of one run. Use it as a context: leaving the context waits for the last save.

    `found` is what `find` returned. Damaged steps are moved to WORKDIR/damaged. Interrupted saves
    are removed; if there is no good step, they are moved to WORKDIR/damaged, too. Orbax keeps the
    `keep` newest steps.

    Raises: OSError from `save`, from `check` and on leaving, if a save has failed.
    """

    def __init__(self, workdir: AnyPath, found: Found, keep: int = 2):
        self._workdir = workdir if is_remote(workdir) else workdir.absolute()
        self._folder = self._workdir / "checkpoints"
        _clear(self._workdir, found)
        distributed.wait("cleared")
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
        )
        with directory.naming(self._folder):
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._earlier_hook = sys.unraisablehook
        sys.unraisablehook = functools.partial(_hide_closed_loop, self._earlier_hook)
        self._sealing: threading.Thread | None = None
        self._failed: OSError | None = None
        self.saved = found.step  # the newest good step

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, *_) -> None:
        self.wait()
        if self._failed is None:
            try:
                self._manager.close()
            finally:
                sys.unraisablehook = self._earlier_hook
        else:
            # Closing raises the error of the failed save again, in Orbax's words. Other writes of
            # that save may end later, so that the hook stays.
            with warnings.catch_warnings(), contextlib.suppress(Exception):
                warnings.filterwarnings("ignore", ".* was never awaited", RuntimeWarning)
                gc.collect()  # unfinished coroutines of Orbax warn when they are collected
                self._manager.close()
        if kind is None:  # an exception that is under way already says more
            self.check()
            distributed.wait("sealed")  # process 0 must not end before it has sealed the step

    def save(self, step: int, state: Any) -> None:
        """Save `state` as `step`; return when the state is copied from the device."""
        self.wait()
        self.check()
        with self._saving(step):
            self._manager.save(step, args=ocp.args.StandardSave(state))  # pyright: ignore
        self._sealing = threading.Thread(target=self._finish, args=(step,))
        self._sealing.start()

    def check(self) -> None:
        """Raise the error of a save that failed in the background."""
        if self._failed is not None:
            raise self._failed

    def wait(self) -> None:
        """Wait for the save that is under way."""
        if self._sealing is not None:
            self._sealing.join()

    def _finish(self, step: int) -> None:
        try:
            with self._saving(step):
                self._manager.wait_until_finished()
                if distributed.first():
                    seal(self._workdir, step)
            self.saved = step
        except OSError as error:
            self._failed = error

    @contextlib.contextmanager
    def _saving(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Orbax and its stores raise their own types
            newest = "no checkpoint was saved before"
            if self.saved is not None:
                newest = f"the newest good checkpoint is of step {self.saved}"
            raise OSError(
                f"the checkpoint of step {step} cannot be saved in {self._folder}, {newest}: "
                f"{str(error) or repr(error)}"
            ) from error


def _hide_closed_loop(earlier_hook: Callable[[Any], Any], unraisable: Any) -> None:
    """Hide the traceback of a write that ends after another write of the same save failed."""
    if "Event loop is closed" not in str(unraisable.exc_value):
        earlier_hook(unraisable)


@distributed.by_first
def _clear(workdir: AnyPath, found: Found) -> None:
    """Remove or move all steps after the newest good step.

    Orbax counts every folder, and would not save a step that is older than the newest folder.
    """
    for step in found.unfinished:
        if found.step is None:
            kept = _move_to_damaged(workdir, step)
            print(f"warning: the first save, of step {step}, was interrupted; it is kept in {kept}")
        else:
            epath.Path(workdir / "checkpoints" / str(step)).rmtree()
    for step, problem in found.damaged.items():
        message = f"the checkpoint of step {step} is damaged: {problem}"
        if (workdir / "checkpoints" / str(step)).exists():
            message += f"; it is kept in {_move_to_damaged(workdir, step)}"
        print(f"warning: {message}; step {found.step} is used instead", flush=True)
    if found.step is not None:  # write the list again, because a line may be incomplete or wrong
        earlier = {step for step in _listed_steps(workdir)[0] if step < found.step}
        lines = [json.dumps({"step": step}) + "\n" for step in sorted(earlier | {found.step})]
        directory.write(workdir / SAVED, "".join(lines))


def _move_to_damaged(workdir: AnyPath, step: int) -> AnyPath:
    """Move a step's folder to WORKDIR/damaged, and return the new path."""
    names = itertools.chain([str(step)], (f"{step}-{i}" for i in itertools.count(1)))
    paths = (workdir / "damaged" / name for name in names)
    target = next(path for path in paths if not path.exists())
    _move(workdir / "checkpoints" / str(step), target)
    return target


def _move(folder: AnyPath, target: AnyPath) -> None:
    """Move a folder; in an object store a folder is only a part of the names of its objects."""
    if not is_remote(folder):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        return
    for path in [*manifest.files(folder), folder / MANIFEST]:
        if path.exists():
            (target / path.relative_to(folder)).write_bytes(path.read_bytes())
    epath.Path(folder).rmtree()
