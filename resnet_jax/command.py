"""What every command shares: flags, one clear line when they are wrong, the device, the cache."""

import contextlib
import difflib
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import jax
from absl import flags

from resnet_jax import config


def run(
    main: Callable[..., None],
    takes: str = "",
    join: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> None:
    """Parse the flags and call `main`; a flag that is wrong is one line and status 2.

    `takes` names the arguments that may stand beside the flags; `main` gets them all, one or more.
    `join` makes this process one of many while `main` runs, see distributed.py.
    """
    try:
        rest = flags.FLAGS(sys.argv)[1:]
    except Exception as error:  # ml_collections and absl raise a dozen kinds
        fail(_explain(error))
    if unknown := _unknown_key():  # which may be a whole part of the config, --config.model={...}
        fail(unknown)
    for word in sys.argv[1:]:
        name, _, value = word.lstrip("-").partition("=")
        if name == "config.model.family":  # its other values would not follow
            fail(f"a family is chosen by the config's argument: configs/NAME.py:family={value}")
    if rest and not takes:
        fail(f"unexpected argument {rest[0]!r}; flags are written --name=value")
    if takes and not rest:
        fail(f"no {takes} is given")
    use_compilation_cache()
    with contextlib.ExitStack() as stack:
        with refusals():
            stack.enter_context(join())
        try:
            main(*rest)
        except (FloatingPointError, OSError) as error:  # it diverged; its data or its disk failed
            fail(str(error), status=1)
        except KeyboardInterrupt:
            fail("interrupted", 128 + signal.SIGINT)


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
    """Raise where no file can be written at `path`, which `flag` gave; `example` is a good name."""
    if not path.parent.is_dir():
        raise ValueError(f"{flag}={path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise ValueError(f"{flag}={path} is a folder; give a file, {path / example}")


def given_keys() -> list[str]:
    """The keys of the config that the command line sets, by `--config.KEY=VALUE`."""
    words = [word.lstrip("-").partition("=")[0] for word in sys.argv[1:] if word.startswith("-")]
    return [w.partition("config.")[2] for w in words if w.startswith(("config.", "noconfig."))]


def _unknown_key() -> str:
    """What is wrong where the config has no such key; '' where it has all."""
    known = config.flatten(config.base())
    for key in given_keys():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.0)[0]
            return f"unknown config key --config.{key}; nearest: --config.{near}"
    return ""


def _explain(error: Exception) -> str:
    if unknown := _unknown_key():
        return unknown
    if isinstance(error, flags.UnrecognizedFlagError):
        near = difflib.get_close_matches(error.flagname, list(flags.FLAGS), 1, 0.0)[0]
        return f"unknown flag --{error.flagname}; nearest: --{near}"
    words = str(error.args[0] if isinstance(error, KeyError) else error)
    # A config file's own refusal reaches us inside a traceback, as its last line.
    return re.sub(
        r"Error whilst parsing config file:\s+Traceback .*\n\w+Error: ", "", words, flags=re.DOTALL
    )


def use_compilation_cache() -> None:
    """Keep compiled programs between runs, in JAX_COMPILATION_CACHE_DIR where it is set."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", str(home / "resnet_jax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def devices() -> str:
    """The devices in words, and a warning where a GPU is present and JAX runs on the CPU."""
    found = jax.devices()
    line = f"devices: {len(found)} x {found[0].platform} {found[0].device_kind}"
    if found[0].platform == "cpu":
        line = f"devices: cpu, {os.cpu_count()} cores"
        if Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists():
            line += (
                "; WARNING: an NVIDIA GPU is present and JAX runs on the CPU, "
                "install it with: make setup ACCELERATOR=cuda13"
            )
    return line


def versions() -> dict[str, str]:
    """What a result depends on: the packages' versions, Python's, the machine's and ours."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        **{name: metadata.version(name) for name in names},
        "python": platform.python_version(),
        "machine": platform.platform(),
        "revision": revision(),
    }


def revision() -> str:
    """The git revision of this checkout, marked where files differ from it; '' outside of git."""
    git = lambda *words: subprocess.run(
        ("git", *words), cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except OSError:
        return ""


def command_line() -> str:
    """The command as it was typed, to be run again from the repository's folder."""
    return shlex.join(["python", *sys.orig_argv[1:]])
