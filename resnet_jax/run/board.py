"""TensorBoard scalars, written by the caller's thread.

tensorboardX's own SummaryWriter writes from a thread, and once more when the process exits. On a
full disk each of these writes prints its own traceback. `Board` raises an OSError to the caller.
"""

import os
import socket
import time
from typing import Any

from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import scalar

from resnet_jax.run.directory import AnyPath, naming

_MESSAGES: Any = event_pb2  # pyright does not see the names, which protobuf makes at run time

SECONDS = 120.0  # the longest time that a scalar stays in the buffer while scalars are added


class Board:
    """An event file in `folder` of a start of the run that begins at step `first`.

    TensorBoard ignores the scalars of earlier starts after step `first`.
    Raises: OSError that names the file, from every method.
    """

    def __init__(self, folder: AnyPath, first: int):
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / f"{name}.{first}"
        with naming(self._path):
            self._file = RecordWriter(str(self._path))
        self._flush_time = 0.0
        self._write(first, file_version="brain.Event:2")
        self._write(first, session_log=_MESSAGES.SessionLog(status=_MESSAGES.SessionLog.START))

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Add the point (step, value) to the curve `name`."""
        self._write(step, summary=scalar(name, value))
        if time.monotonic() > self._flush_time:
            with naming(self._path):
                self._file.flush()
            self._flush_time = time.monotonic() + SECONDS

    def close(self) -> None:
        """Write the buffer and close the file."""
        with naming(self._path):
            try:
                self._file.flush()
            finally:
                self._file.close()

    def _write(self, step: int, **content: object) -> None:
        event = _MESSAGES.Event(wall_time=time.time(), step=step, **content)
        with naming(self._path):
            self._file.write(event.SerializeToString())
