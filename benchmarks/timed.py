"""Benchmarks that end in time: numbers that are missing then are null, and the row says why."""

import argparse
import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks import common
from resnet_jax import command

OUT_OF_TIME = "out of time"


@dataclasses.dataclass
class Sheet:
    """A report that is being filled: it has every planned row and ratio from the start."""

    rows: list[common.Row]
    ratios: common.Ratios

    def row(self, **names: Any) -> common.Row:
        """Return the row that has these values."""
        return next(row for row in self.rows if names.items() <= row.items())


class Clock:
    """The seconds that are left, and the longest time that each kind of program has taken."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds
        self.longest: dict[str, float] = {}

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.monotonic()

    def make(
        self, row: common.Row, kind: str, build: Callable, expected: float | None = None
    ) -> Any:
        """Return `build()`, or None if it fails or will not fit; the row's `why` then says so.

        It fits if the time left is at least `expected`, or the longest time of its kind so far.
        """
        needs = self.longest.get(kind, 0.0) if expected is None else expected
        if self.left() < max(needs, 1.0):
            row["why"] = f"{OUT_OF_TIME}: {self.left():.0f} s left, about {needs:.0f} needed"
            return None
        try:
            with self._spend(kind):
                return build()
        except RuntimeError as error:  # JAX and PyTorch raise it, also if memory does not suffice
            row["why"] = (str(error).strip() or type(error).__name__).splitlines()[0]
            return None

    @contextlib.contextmanager
    def _spend(self, kind: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.longest[kind] = max(self.longest.get(kind, 0.0), time.monotonic() - began)


class Plan(NamedTuple):
    """What a command will do: the sheet, the function that fills it, and the end of helpers."""

    sheet: Sheet
    measure: Callable[[Sheet, Clock], None]
    close: Callable[[], None]


def parser(name: str, doc: str | None, flags: str = "") -> command.Parser:
    """Return the parser of a benchmark that ends in time, with the flags that all of them have."""
    parser = common.parser(name, doc, flags)
    flag = parser.add_argument
    flag("--seconds", type=_seconds, default=540.0, help="time to measure (default: %(default)s)")
    flag(
        "--dtype",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="type of activations (default: %(default)s)",
    )
    flag(
        "--rounds",
        type=command.whole(1),
        default=5,
        help="measurements of each (default: %(default)s)",
    )
    flag(
        "--xla_option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a flag of XLA, for our programs; may be given several times",
    )
    return parser


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if (seconds := float(text)) >= 1:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")


def options(words: Sequence[str]) -> dict[str, Any]:
    """Return the options NAME=VALUE of --xla_option, as XLA's compiler takes them.

    Another word is one line and status 2.
    """
    values: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not name or not equals:
            command.fail(f"--xla_option={word} is not NAME=VALUE, with the name of a flag of XLA")
        values[name] = {"true": True, "false": False}.get(value.lower(), value)
    return values


def run(name: str, arguments: command.Arguments, begin: Callable[[], Plan]) -> None:
    """Fill the sheet of `begin()` for --seconds, and report it.

    A compilation cannot be stopped. If a compilation is under way when the time is up, the command
    reports and ends its process.
    """

    def measure() -> tuple[list[common.Row], common.Ratios]:
        (sheet, fill, close), before = begin(), common.load_average()
        report = lambda: common.report(name, arguments.json, before, sheet.rows, sheet.ratios)

        def leave() -> None:
            try:
                report()
                close()
            finally:
                os._exit(0)

        alarm = threading.Timer(arguments.seconds, leave)
        alarm.daemon = True
        alarm.start()
        try:
            fill(sheet, Clock(arguments.seconds))
        except Exception:
            report()  # so that an error does not lose minutes of measurements
            raise
        finally:
            alarm.cancel()
            close()
        return sheet.rows, sheet.ratios

    common.run(name, arguments, measure)


def start(main: Callable[[], None]) -> None:
    """Call the `main` of a benchmark as a command that shares the device with PyTorch."""
    # JAX would take three quarters of the device's memory at its start, and PyTorch needs some.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    common.start(main)
