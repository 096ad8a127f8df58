"""Scalars for TensorBoard, written where they are added: no thread, and nothing left for the exit.

tensorboardX's own SummaryWriter writes from a thread and once more when the process exits, each of
which says a full disk in a traceback of its own.
"""

import os
import socket
import time
from typing import Any

from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

from resnet_jax.training.directory import AnyPath

_MESSAGES: Any = event_pb2  # its names are made at run time

# Between two times that what was added is written through.
SECONDS = 120.0


class Board:
    """An event file in `folder`, of a run that goes on at step `first`; later ones are forgotten.

    Raises: OSError, here and where it is used, as writing a file does.
    """

    def __init__(self, folder: AnyPath, first: int):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file, self._due = RecordWriter(str(folder / f"{name}.{first}")), 0.0
        self._write(first, file_version="brain.Event:2")
        self._write(first, session_log=_MESSAGES.SessionLog(status=_MESSAGES.SessionLog.START))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """One point of a curve."""
        self._write(step, summary=scalar(name, value))
        if time.monotonic() > self._due:
            self._file.flush()
            self._due = time.monotonic() + SECONDS

    def close(self) -> None:
        """Write what is left."""
        try:
            self._file.flush()
        finally:
            self._file.close()

    def _write(self, step: int, **what: object) -> None:
        event = _MESSAGES.Event(wall_time=time.time(), step=step, **what)
        self._file.write(event.SerializeToString())
