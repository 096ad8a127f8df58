"""Benchmarks that end in time: what was not measured by then is null, and says why."""

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from absl import flags

from benchmarks import common

OUT_OF_TIME = "out of time"


@dataclasses.dataclass
class Sheet:
    """A report in the making: every row and ratio that is planned is there from the start."""

    rows: list[common.Row]
    ratios: common.Ratios

    def row(self, **names: Any) -> common.Row:
        """The row that has these values."""
        return next(row for row in self.rows if names.items() <= row.items())


class Clock:
    """The seconds that are left, and what was made in them."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds
        self.longest: dict[str, float] = {}

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def make(
        self, row: common.Row, kind: str, what: Callable, expected: float | None = None
    ) -> Any:
        """`what()`, or None where it fails or will not fit, which the row's `why` then says.

        It fits where it takes no longer than `expected`, or than any of its kind took so far.
        """
        needs = self.longest.get(kind, 0.0) if expected is None else expected
        if self.left() < max(needs, 1.0):
            row["why"] = f"{OUT_OF_TIME}: {self.left():.0f} s left, about {needs:.0f} needed"
            return None
        try:
            with self._spend(kind):
                return what()
        except RuntimeError as error:  # jax's and torch's, memory that is not there included
            row["why"] = (str(error).strip() or type(error).__name__).splitlines()[0]
            return None

    @contextlib.contextmanager
    def _spend(self, kind: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.longest[kind] = max(self.longest.get(kind, 0.0), time.monotonic() - began)


class Plan(NamedTuple):
    """What a command will do: the sheet, who fills it, and what ends other processes."""

    sheet: Sheet
    measure: Callable[[Sheet, Clock], None]
    close: Callable[[], None]


def run(name: str, begin: Callable[[], Plan]) -> None:
    """Fill the sheet of `begin()` for --seconds, and report what is in it then.

    What is compiling when time is up cannot be stopped: the command reports and leaves.
    """
    seconds = flags.DEFINE_float("seconds", 540.0, "time to measure in", lower_bound=1.0)

    def main() -> tuple[list[common.Row], common.Ratios]:
        (sheet, measure, close), before = begin(), common.load_average()

        def leave() -> None:
            common.report(name, before, sheet.rows, sheet.ratios)
            close()
            os._exit(0)

        alarm = threading.Timer(seconds.value, leave)
        alarm.daemon = True
        alarm.start()
        try:
            measure(sheet, Clock(seconds.value))
        finally:
            alarm.cancel()
            close()
        return sheet.rows, sheet.ratios

    # Before the device is opened: torch needs memory beside JAX, which else takes three quarters.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    common.run(name, main)
