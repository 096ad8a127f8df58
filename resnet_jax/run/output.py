"""Standard output and standard error that end no run.

The reader of a pipe may leave (`| head`, a `tee` that Ctrl-C ends first), a terminal may be closed,
and a file's name may have bytes that the locale cannot show.
"""

import errno
import io
import os
import sys
from pathlib import Path


class _Descriptor(io.FileIO):
    """A file descriptor; what is written after its reader has left is dropped.

    `terminal` says whether it was a terminal at the start: a closed terminal is none any more.
    """

    terminal = False

    def write(self, data, /) -> int | None:
        """Write `data`. Raises: OSError for another reason, such as a full disk."""
        try:
            return super().write(data)
        except OSError as error:
            closed = error.errno == errno.EIO and self.terminal
            if error.errno != errno.EPIPE and not closed:
                raise
            return memoryview(data).nbytes


def keep_running() -> None:
    """Let this process go on if nobody reads its output, or if the locale lacks a character.

    A character that the locale lacks is shown as a backslash and its number.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed before the process started
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - stays
        elif stream is getattr(sys, f"__{name}__"):  # a test or a notebook has streams of its own
            stream.flush()
            descriptor = _Descriptor(stream.fileno(), "w", closefd=False)
            descriptor.terminal = stream.isatty()
            lenient = io.TextIOWrapper(
                # As Python itself does for `python -u`, which asks for no buffer.
                descriptor if stream.write_through else io.BufferedWriter(descriptor),
                stream.encoding,
                "backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, lenient)
