"""A config from the command line: a config file, its argument, and overrides of single keys."""

import ast
import contextlib
import difflib
import importlib.util
import os
import re
import sys
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_jax import config as configs
from resnet_jax.choices import ArgumentError, explain_unknown, keys_of_parts
from resnet_jax.keys import Config, Key
from resnet_jax.recipe import Source

TRUE, FALSE = ("true", "t", "1", "yes"), ("false", "f", "0", "no")
# {key: text} of `--config.KEY=TEXT`; True stands for `--config.KEY`, False for `--noconfig.KEY`.
Overrides = Mapping[str, str | bool]


def load(spec: str, overrides: Overrides | None = None) -> Config:
    """Return the locked config of `FILE[:switch=value,...]`, with the overrides {key: text}.

    Raises: ValueError in one line, for a file that is missing or that fails (with its line), and
        for an override that the config does not take.
    """
    return override(read(*_parts(spec)), overrides or {})


def ranges(spec: str) -> dict[str, Any]:
    """Return the SEARCH of the file in `FILE[:switch=value,...]`: {key: what a search draws}.

    A file without SEARCH has {}.
    """
    with _module(_parts(spec)[0]) as module:
        return getattr(module, "SEARCH", {})


def source(spec: str) -> Source | None:
    """Return where the recipe of the file in `FILE[:switch=value,...]` comes from, or None."""
    with _module(_parts(spec)[0]) as module:
        return getattr(module, "SOURCE", None)


def _parts(spec: str) -> tuple[Path, str]:
    # A folder's name may have a colon, too.
    match = re.fullmatch(r"(.*?\.py)(?::(.*))?", spec, re.DOTALL)
    path, argument = match.groups() if match else spec.partition(":")[::2]
    return Path(os.path.expanduser(path)), argument or ""


def read(path: Path, argument: str) -> Config:
    """Return what the file's `get_config(argument)` returns. Nothing is kept between two calls."""
    with _module(path) as module:
        config = module.get_config(argument)
        if not isinstance(config, ConfigDict):
            raise ValueError(
                f"get_config returned {type(config).__name__}; it must return what "
                "resnet_jax.config.make returns"
            )
        configs.check_keys(config)
    return config.lock()


def refuse_other_networks(spec: str, config: Config) -> None:
    """Raise an ArgumentError if the file's recipe is not for the config's network.

    Commands that train call this. A network may be described and imported by any file's values.
    """
    path, _ = _parts(spec)
    with _module(path) as module:
        if not hasattr(module, "SOURCE") or not list(module.SOURCE.misfits(config)):
            return
        others = {}
        for file in sorted(path.resolve().parent.glob("*.py")):
            with contextlib.suppress(Exception):  # another file's mistakes are not of interest here
                other = importlib.import_module(f"{PACKAGE}.{file.stem}")
                if other.get_config().data.name == config.data.name:
                    others[str(path.with_name(file.name))] = getattr(other, "SOURCE", None)
        raise ArgumentError(module.SOURCE.refusal(config, path, others))


# The name under which a config file's folder is a package while the file is read.
PACKAGE = "the config file's folder"


@contextlib.contextmanager
def _module(path: Path) -> Iterator[Any]:
    """Run a config file, and turn what is raised inside into a ValueError with the file's line.

    The file's folder is a package, so that `from . import other` means that folder, whatever else
    is called `configs` in the working directory. It may also import a file beside it by name.
    """
    if not path.is_file():
        raise ValueError(f"there is no config file {path}{_near(path)}")
    folder = path.resolve().parent
    spec = importlib.util.spec_from_file_location(f"{PACKAGE}.{path.stem}", path)
    assert spec is not None and spec.loader is not None, "the file was there a moment ago"
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = types.ModuleType(PACKAGE)
    sys.modules[PACKAGE].__path__ = [str(folder)]
    for place in map(str, (folder, folder.parent)):
        if place not in sys.path:
            sys.path.append(place)
    try:
        spec.loader.exec_module(module)
        yield module
    except ArgumentError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{path}{_line(spec.origin, error)}: {kind}{error}") from error
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            del sys.modules[name]


def _near(path: Path) -> str:
    files = [file for folder in (path.parent, Path("configs")) for file in folder.glob("*.py")]
    names = sorted({str(file) for file in files if file.stem != "__init__"})
    matches = difflib.get_close_matches(str(path)[:100], names, 1, 0.0)
    return f"; nearest: {matches[0]}" if matches else ""


def _line(file: str | None, error: Exception) -> str:
    """Return the last line of the config file that led to the error, in words."""
    if isinstance(error, SyntaxError) and error.filename == file and error.lineno:
        return f", line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f", line {lines[-1]}" if lines else ""


def override(config: Config, overrides: Overrides) -> Config:
    """Return a locked copy of the config in which each key has the value that its text says.

    Raises: ValueError for a key that the config does not have, and for a text of another type.
    """
    config = config.copy_and_resolve_references()
    flat, chosen = configs.flatten(config), configs.choices_of(config)
    keys = keys_of_parts(chosen)
    values = {}
    for key, text in overrides.items():
        if key not in keys or key == "model.depth":
            raise ValueError(explain_unknown(key, tuple(flat), chosen))
        values[key] = parse(key, text, keys[key])
    # A schedule that ends with the run still does if the command line sets the number of steps.
    if "steps" in values and flat.get("schedule.end") == flat["steps"]:
        values.setdefault("schedule.end", values["steps"])
    config.update_from_flattened_dict(values)
    return config.lock()


def parse(name: str, text: str | bool, key: Key) -> Any:
    """Return the value of a text, in the type of the key's default.

    Raises: ValueError with the type that is wanted.
    """
    default = key.default
    if isinstance(text, bool):
        if not isinstance(default, bool):
            raise ValueError(f"--config.{name} needs a value: --config.{name}=VALUE")
        return text
    try:
        return _PARSERS[type(default)](text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        example = default or key.rule.says.partition("such as ")[2] or (1, 2)
        kinds = {
            bool: "true or false",
            int: f"a whole number, such as {default}",
            float: f"a number, such as {default}",
            tuple: f"values in brackets, such as {example}",
        }
        raise ValueError(f"--config.{name}={text[:80]} is not {kinds[type(default)]}") from error


def _bool(text: str) -> bool:
    if text.lower() not in TRUE + FALSE:
        raise ValueError(text)
    return text.lower() in TRUE


def _tuple(text: str) -> tuple[Any, ...]:
    value = ast.literal_eval(text.strip())
    if isinstance(value, int | float):
        value = (value,)
    if not isinstance(value, tuple | list):
        raise ValueError(text)
    return tuple(value)


_PARSERS: dict[type, Any] = {str: str, bool: _bool, int: int, float: float, tuple: _tuple}


def split(words: Sequence[str]) -> tuple[dict[str, str | bool], list[str]]:
    """Take the overrides `--config.KEY=VALUE` out of a command line: (overrides, other words).

    `--config.KEY VALUE` works too. `--config.KEY` alone is true, and `--noconfig.KEY` is false.
    """
    overrides, others = {}, []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        name, equals, text = word.lstrip("-").partition("=")
        prefix, _, key = name.partition(".")
        if not word.startswith("-") or prefix not in ("config", "noconfig") or "." not in name:
            others.append(word)
        elif prefix == "config":
            if not equals:
                text = waiting.pop(0) if waiting and not waiting[0].startswith("--") else True
            overrides[key] = text
        elif equals:  # `--noconfig.KEY` takes no value
            others.append(word)
        else:
            overrides[key] = False
    return overrides, others
