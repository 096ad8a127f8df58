"""What every command shares: flags, help, one line for an error, the cache, versions, devices."""

import argparse
import contextlib
import difflib
import itertools
import os
import re
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import jax

from resnet_jax import choices, config_file
from resnet_jax.config_help import config_help
from resnet_jax.keys import LARGEST, Config
from resnet_jax.run.interrupt import keyboard_interrupts
from resnet_jax.run.output import keep_running

Arguments = argparse.Namespace

# What XLA says if a device or the host has no memory left. RESOURCE_EXHAUSTED alone may also mean
# a full disk, too many open files or a quota.
NO_MEMORY = re.compile("out of memory|RESOURCE_EXHAUSTED.*(memory|allocat|hbm)", re.IGNORECASE)
MEMORY_ADVICE = (
    "make --config.batch_size smaller or set --config.remat=block or sqrt, ask "
    "`python -m resnet_jax.describe --memory=16GB` what fits, and give each of several runs on one "
    "GPU its share by XLA_CLIENT_MEM_FRACTION"
)
# For a command that takes no config.
DEVICE_ADVICE = "end other programs on this device, or use the CPU: JAX_PLATFORMS=cpu"


# The hyphen, and what a word processor makes of it.
HYPHENS = "-\u2010\u2011\u2012\u2013\u2014"


class Parser(argparse.ArgumentParser):
    """The flags of a command. A mistake is one line on stderr and status 2.

    `module` is the command as it is typed after `python -m`, `purpose` its first sentence and
    `example` a whole command line.
    """

    def __init__(self, module: str, purpose: str, example: str):
        super().__init__(
            prog=f"python -m {module}",
            description=textwrap.fill(purpose, 96),
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.takes_config = False
        self._words: list[str] = []
        # Its flags are read before argparse sees them (`_expanded`).
        self.add_argument("--flagfile", metavar="FILE", help="a file with a flag in each line")

    def add_config(self, required: bool = True) -> None:
        """Add --config, and the overrides of its keys."""
        self.takes_config = True
        self.add_argument(
            "--config",
            required=required,
            metavar="FILE[:switch=value,...]",
            help="a config file, such as configs/cifar10.py:depth=110,skip=none; "
            "--config.KEY=VALUE sets one of the keys below",
        )

    def add_run(self) -> None:
        """Add --workdir, --replica and --best, which say which network is taken."""
        self.add_argument("--workdir", required=True, help="the run's directory")
        self.add_argument(
            "--replica",
            type=whole(0),
            default=0,
            help="which network of a run with several replicas, from 0 (default: 0)",
        )
        self.add_argument(
            "--best",
            action="store_true",
            help="take the best epoch by the validation split, not the newest checkpoint",
        )

    def add_json(self, content: str) -> None:
        """Add --json, the file to which the command writes its `content`."""
        self.add_argument("--json", type=file, metavar="FILE", help=f"file to write {content} to")

    def add_data(self) -> None:
        """Add --data_dir and --data_name, which say where the data of a run is now."""
        self.add_argument("--data_dir", help="tensorflow-datasets folder (data.dir)")
        self.add_argument(
            "--data_name",
            help="the data set to use instead of the run's (data.name)",
        )

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, and leave with status 2."""
        fail(f"{message}; see {self.prog} --help")

    def format_help(self) -> str:
        """Return the help, with the switches and keys of configs."""
        text = super().format_help()
        return f"{text}\n{config_help(self._config())}" if self.takes_config else text

    def _config(self) -> Config | None:
        """Return the config that stands on the command line with --help, if it can be read."""
        overrides, others = config_file.split(self._words)
        specs = [word.partition("=")[2] for word in others if word.startswith("--config=")]
        specs += [after for word, after in itertools.pairwise(others) if word == "--config"]
        with contextlib.suppress(ValueError, OSError):
            return config_file.load(specs[-1], overrides) if specs else None
        return None

    def read(self, words: Sequence[str] | None = None) -> Arguments:
        """Parse a command line, or this process's; `overrides` are those of the config.

        Raises: SystemExit, after one line that says what is wrong.
        """
        words = list(self._expanded(sys.argv[1:] if words is None else words))
        self._words = words
        overrides, others = config_file.split(words) if self.takes_config else ({}, words)
        # A misspelt flag is reported before the flag that it leaves missing.
        for word in itertools.takewhile(lambda word: word != "--", others):
            bare = word.lstrip(HYPHENS)
            if bare != word and not word.startswith("--"):
                name = f"--{bare.partition('=')[0]}"
                if name in self._option_string_actions or name.startswith("--config."):
                    fail(f"{word[:80]} is no flag, which begins with two hyphens: {name}")
            if word.startswith("--") and word.partition("=")[0] not in self._option_string_actions:
                fail(self._explain(word))
        arguments, unknown = self.parse_known_intermixed_args(others)
        if unknown:
            fail(self._explain(unknown[0]))
        arguments.overrides = overrides
        return arguments

    def _expanded(self, words: Sequence[str]) -> Iterator[str]:
        """Yield the words, with the flags of a file in the place of --flagfile=FILE."""
        waiting = list(words)
        while waiting:
            name, equals, path = (word := waiting.pop(0)).partition("=")
            if name != "--flagfile":
                yield word
                continue
            path = path if equals else waiting.pop(0) if waiting else ""
            if not path:
                self.error("--flagfile needs a file: --flagfile=FILE")
            try:
                lines = file(path).read_text("utf-8-sig").splitlines()
            except (OSError, ValueError, argparse.ArgumentTypeError) as error:
                self.error(f"--flagfile={path}: {error}")
            flags = [flag for flag in map(str.strip, lines) if flag and flag[0] != "#"]
            if any(flag.startswith("--flagfile") for flag in flags):
                self.error(f"--flagfile={path}: a file of flags cannot name another one")
            yield from flags

    def _explain(self, word: str) -> str:
        if not word.startswith("-"):
            return f"unexpected argument {word!r}; flags are written --name=value"
        name = word.lstrip("-").partition("=")[0]
        if self.takes_config:
            switches = dict.fromkeys(switch for switch, _ in choices.every_switch())
            if name in (*switches, "depth"):
                return f"{name} is chosen in the config's argument: configs/NAME.py:{name}=VALUE"
        flags = [flag for action in self._actions for flag in action.option_strings]
        known = {flag.lstrip("-"): flag for flag in flags if flag.startswith("--")}
        if self.takes_config:
            keys = list(itertools.filterfalse(choices.switch_of, choices.all_keys()))
            known = {key.rpartition(".")[2]: f"--config.{key}" for key in reversed(keys)} | known
        last = name.rpartition(".")[2]
        # For example lr for learning_rate.
        initials = {
            "".join(word[0] for word in known_name.split("_")): known_name
            for known_name in known
            if "_" in known_name
        }
        near = difflib.get_close_matches(last[:80], list(known), 1, 0.7)
        near = [initials[last]] if last in initials else near
        return f"unknown flag --{name[:80]}" + (
            f"; nearest: {known[near[0]]}" if near else f"; see {self.prog} --help"
        )


def file(text: str) -> Path:
    """Return the path of a flag; the shell expands no `~` behind `=`.

    Raises: argparse.ArgumentTypeError if `~` stands for a home directory that does not exist.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from error


def whole(lowest: int, largest: int = LARGEST) -> Callable[[str], int]:
    """Return the type of a flag that takes whole numbers from `lowest` to `largest`."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from error
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{value} is less than {lowest}")
        if value > largest:
            raise argparse.ArgumentTypeError(f"{value} is more than {largest}")
        return value

    return number


def load_config(arguments: Arguments, data_dir: str | None = None) -> Config:
    """Return the config of --config and its overrides; `data_dir` replaces data.dir.

    Raises: ValueError in one line.
    """
    overrides = dict(arguments.overrides)
    if data_dir is not None:
        overrides["data.dir"] = data_dir
    return config_file.load(arguments.config, overrides)


def run(main: Callable[[], None]) -> None:
    """Call a command's `main`; what it raises becomes one line and a status that is not 0."""
    keep_running()
    with keyboard_interrupts():
        try:
            use_compilation_cache()
            main()
        except (FloatingPointError, OSError) as error:  # a run diverged; data or a disk failed
            fail(str(error), status=1)
        except (RuntimeError, AssertionError, MemoryError) as error:
            said = (str(error).splitlines() or [""])[0]
            if isinstance(error, MemoryError) or NO_MEMORY.search(said):
                has_config = any(word.startswith("--config") for word in sys.argv)
                advice = MEMORY_ADVICE if has_config else DEVICE_ADVICE
                fail(f"there is not enough memory; {advice} ({said})", status=1)
            if said.startswith("RESOURCE_EXHAUSTED"):
                fail(said, status=1)
            # JAX raises either of two types in this file if it has no backend.
            if not traceback.extract_tb(error.__traceback__)[-1].filename.endswith("xla_bridge.py"):
                raise
            fail(no_device(os.environ.get("JAX_PLATFORMS", ""), said))
        except KeyboardInterrupt:
            fail("interrupted", 128 + signal.SIGINT)


def no_device(platforms: str, said: str) -> str:
    """Return the line for a JAX that has no backend; `said` are its own words, which may be none.

    Most of its own words say what to do about JAX_PLATFORMS, or that a device is in use.
    """
    named = f" for JAX_PLATFORMS={platforms!r}" if platforms else ""
    remedy = "; unset JAX_PLATFORMS to use what JAX finds" if named and not said else ""
    return f"JAX finds no device{named}{': ' * bool(said)}{said}{remedy}"


@contextlib.contextmanager
def refusals(*also: type[Exception]) -> Iterator[None]:
    """Turn a ValueError, an OSError or one of `also` raised inside into one line and status 2."""
    try:
        yield
    except (ValueError, OSError, *also) as error:
        fail(str(error))


def fail(message: str, status: int = 2) -> NoReturn:
    """Say what is wrong in one line and leave: status 2 for bad input, 1 for a run that failed."""
    print("error:", " ".join(message.split()), file=sys.stderr)
    sys.exit(status)


def check_file(flag: str, path: Path, example: str) -> None:
    """Raise a ValueError if no file can be written at `path`; `example` is a good name."""
    if not path.parent.is_dir():
        raise ValueError(f"{flag}={path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise ValueError(f"{flag}={path} is a folder; give a file, {path / example}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"{flag}={path}: this user may not write there; give another file")


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, in JAX_COMPILATION_CACHE_DIR if it is set.

    A user without a home directory, as in some containers, has no cache unless XDG_CACHE_HOME or
    JAX_COMPILATION_CACHE_DIR names a folder.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        with contextlib.suppress(OSError):  # a home that cannot be written
            if not cache.startswith("~"):
                Path(cache, "resnet_jax", "xla").mkdir(parents=True, exist_ok=True)
                jax.config.update("jax_compilation_cache_dir", f"{cache}/resnet_jax/xla")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
