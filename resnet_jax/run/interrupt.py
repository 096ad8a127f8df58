"""SIGTERM, SIGINT and SIGHUP: the first asks a run to save and end, the second ends it at once.

The system sends SIGHUP if the terminal of a run is closed; a run under nohup ignores it.

Python calls a signal handler in the main thread, between two of its instructions. The main thread
may be inside the compiler or a long step for minutes. A thread of `Interrupt` receives the signal
at once.

This module imports nothing large, so that a package can call `end_silently` before its imports.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

# Windows has no SIGHUP.
HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)
SIGNALS = (signal.SIGTERM, signal.SIGINT, HANGUP)


def end_silently(package: str) -> None:
    """Let SIGINT end a command of `package` without a traceback while its imports still run.

    A package calls this with its own name, first of all in its __init__.py. The call changes
    nothing unless Python was started as `python -m PACKAGE` or `python -m PACKAGE.MODULE`: in a
    notebook or a script that imports the package, Ctrl-C raises KeyboardInterrupt as before. If
    the parent process ignores SIGINT, the command ignores SIGINT.

    The kernel then ends the process, and a shell reports status 130. The command must call
    `keyboard_interrupts` when it can handle KeyboardInterrupt.
    """
    # While Python imports the package of `-m MODULE`, argv[0] is "-m" instead of MODULE.
    module = sys.orig_argv[-len(sys.argv)].removeprefix("-m") if sys.argv[:1] == ["-m"] else ""
    if (
        f"{module}.".startswith(f"{package}.")
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) == signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def keyboard_interrupts() -> Iterator[None]:
    """Inside this context SIGINT raises KeyboardInterrupt again after `end_silently`."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) != signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


class Interrupt(contextlib.AbstractContextManager):
    """A context that receives SIGTERM, SIGINT and SIGHUP.

    Before `begin` is called, nothing can be saved, and a signal ends the process. After `begin`,
    the first signal is only noted in `received`, and the second signal ends the process. The
    process ends with status 128 + the signal's number: 143 after SIGTERM, 130 after SIGINT, 129
    after SIGHUP.

    Signals that the parent process ignores stay ignored. Only the main thread of a program can
    receive signals; in other threads the context does nothing.
    """

    def __init__(self, name: str):
        """`name` is the name of the run in messages."""
        self._name = name
        self._received: signal.Signals | None = None
        self._can_save = False
        self._lock = threading.Lock()

    def __enter__(self) -> "Interrupt":
        self._thread = None
        if threading.current_thread() is not threading.main_thread():
            return self
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self._earlier_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        # Python writes the number of a signal that has a handler to the socket at once. That is
        # all that is needed, so the handlers themselves do nothing.
        not_ignored = [s for s in SIGNALS if signal.getsignal(s) != signal.SIG_IGN]
        self._earlier_handlers = {s: signal.signal(s, lambda *_: None) for s in not_ignored}
        return self

    def __exit__(self, *_) -> None:
        if self._thread is None:
            return
        for number, handler in self._earlier_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._earlier_fd)
        self._writer.close()
        self._thread.join()
        self._reader.close()

    def begin(self) -> None:
        """Tell that from now on the run has something to save."""
        with self._lock:
            self._can_save = True

    @property
    def received(self) -> signal.Signals | None:
        """The signal that asks the run to save and end; None if no signal came."""
        return self._received

    def _listen(self) -> None:
        while number := self._reader.recv(1):
            if number[0] not in SIGNALS:
                continue
            name = signal.Signals(number[0]).name
            with self._lock:
                if self._received is not None:
                    self._end(f"received {name}, too, and ends without saving", number[0])
                if not self._can_save:
                    self._end(f"received {name} before it had anything to save", number[0])
                self._received = signal.Signals(number[0])
            self._say(
                f"received {name}, saves at the end of this chunk and ends; a second signal ends "
                "it at once"
            )

    def _end(self, message: str, number: int) -> None:
        self._say(message)
        os._exit(128 + number)

    def _say(self, message: str) -> None:
        """Write a line to stderr; on a terminal, below the progress bar."""
        # Not by `print`, because the main thread may hold its lock. If nobody reads stderr any
        # more, the error must not keep the process alive.
        with contextlib.suppress(OSError):
            new_line = "\n" * os.isatty(2)
            os.write(2, f"{new_line}{self._name}: {message}\n".encode())
