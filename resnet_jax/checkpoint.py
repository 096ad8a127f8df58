"""Checkpoints: the training state by step, saved in the background, the newest restored.

A thin hand on orbax, which writes each step into a folder of its own and renames it when whole.
"""

import jax
import orbax.checkpoint as ocp

from resnet_jax.training.directory import AnyPath, is_remote
from resnet_jax.training.state import TrainState


class Checkpoints:
    """The `checkpoints/` of one run. Use as a context: leaving it waits for unfinished saves."""

    def __init__(self, folder: AnyPath, keep: int = 2):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True
        )
        self._manager = ocp.CheckpointManager(
            folder if is_remote(folder) else folder.absolute(), options=options
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """The newest saved step, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState) -> None:
        """Save `state` under `step`; returns once it is copied from the device."""
        self._manager.save(step, args=ocp.args.StandardSave(state))  # pyright: ignore

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state saved under `step`, with the shapes, types and placement of `like`."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(step, args=ocp.args.StandardRestore(target))  # pyright: ignore
