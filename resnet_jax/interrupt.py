"""SIGTERM and SIGINT: the first asks a run to save and end, the second ends it at once.

Python calls a signal's handler when the interpreter's main thread is next at work, which inside the
compiler or a long step may be minutes away. A thread of ours hears of it at once.
"""

import contextlib
import os
import signal
import socket
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupt(contextlib.AbstractContextManager):
    """Listens while it is open. Until `begin` there is nothing to save: a signal ends the process.

    The process ends with status 128 + the signal's number: 143 after SIGTERM, 130 after SIGINT.
    Only a program's main thread can listen; elsewhere signals do what they did.
    """

    def __init__(self, what: str):
        """`what` is interrupted, for the words to the user."""
        self._what = what
        self._received: signal.Signals | None = None
        self._unsaved = False
        self._lock = threading.Lock()

    def __enter__(self) -> "Interrupt":
        self._thread = None
        if threading.current_thread() is not threading.main_thread():
            return self
        self._heard, written = socket.socketpair()
        written.setblocking(False)
        self._written = written
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self._wakeup = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        # The handlers do nothing: what matters is that their numbers are written to the socket.
        # What who started us has us ignore stays ignored.
        ours = [one for one in SIGNALS if signal.getsignal(one) != signal.SIG_IGN]
        self._before = {one: signal.signal(one, lambda *_: None) for one in ours}
        return self

    def __exit__(self, *_) -> None:
        if self._thread is None:
            return
        for one, handler in self._before.items():
            signal.signal(one, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._written.close()
        self._thread.join()
        self._heard.close()

    def begin(self) -> None:
        """From here on there is something to save."""
        with self._lock:
            self._unsaved = True

    @property
    def received(self) -> signal.Signals | None:
        """The signal that asks for an end."""
        return self._received

    def _listen(self) -> None:
        while number := self._heard.recv(1):
            if number[0] not in SIGNALS:
                continue
            name = signal.Signals(number[0]).name
            with self._lock:
                if self._received is not None:
                    _leave(f"{self._what}: {name} again, ends without saving", number[0])
                if not self._unsaved:
                    _leave(f"{self._what}: {name} before there was anything to save", number[0])
                self._received = signal.Signals(number[0])
            _say(f"{self._what}: {name}, saves at the end of this chunk and ends; again: at once")


def _leave(words: str, number: int) -> None:
    _say(words)
    os._exit(128 + number)


def _say(words: str) -> None:
    # Not by print, whose lock the main thread may hold; on a terminal below the progress bar.
    with contextlib.suppress(OSError):  # nobody reads any more, which must not keep us
        below = "\n" * os.isatty(2)
        os.write(2, f"{below}{words}\n".encode())
