"""Help says what a command is for, its flags, and the keys of configs; errors point the way."""

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_jax import __main__ as listing
from resnet_jax import choices, config_file
from resnet_jax import config as configs
from resnet_jax.command import Parser
from tests.in_process import command
from tests.recipes import recipe

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "configs" / "digits.py"
COMMANDS = tuple(listing.COMMANDS)
WITH_CONFIG = ("train", "describe", "check_data", "convert")


def runs_a_command(path):
    """Return whether a module ends with `command.run(main)`, and so is a command."""
    return "command.run(main)" in {
        ast.unparse(node) for node in ast.walk(ast.parse(path.read_text("utf-8")))
    }


def test_the_package_lists_every_command():
    modules = {path.stem for path in (ROOT / "resnet_jax").glob("*.py") if runs_a_command(path)}
    assert modules == set(COMMANDS)
    done = subprocess.run(
        (sys.executable, "-m", "resnet_jax"), capture_output=True, text=True, check=True
    )
    listed = re.findall(r"^    python -m resnet_jax\.(\w+) +\w", done.stdout, re.MULTILINE)
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_has_purpose_flags_and_an_example(name, flag):
    done = command(name, flag)
    assert (done.status, done.err) == (0, "")
    module = importlib.import_module(f"resnet_jax.{name}")
    assert done.out.startswith(f"usage: python -m resnet_jax.{name} [-h]")
    purpose = " ".join(done.out.partition("\n\n")[2].partition("\n\n")[0].split())
    assert purpose.endswith(".") and len(purpose) > 30
    assert purpose.split()[:2] == (module.__doc__ or "").split()[:2]
    assert "\nexample:\n  python -m " in done.out
    assert ("config switches" in done.out) == (name in WITH_CONFIG)
    lines = done.out.splitlines()
    assert all(len(line) <= 100 for line in lines if not line.startswith("  python -m "))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_help_parses(name, monkeypatch):
    """The words of the example are accepted, and its config loads."""
    example = command(name, "--help").out.partition("\nexample:\n")[2].partition("\n\n")[0]
    python, flag, module, *words = shlex.split(example)
    assert (python, flag, module) == ("python", "-m", f"resnet_jax.{name}")

    class Accepted(Exception):
        pass

    def read(self, words):
        arguments = real_read(self, words)
        if getattr(arguments, "config", None):
            configs.check(config_file.load(arguments.config, arguments.overrides))
        raise Accepted

    real_read = Parser.read
    monkeypatch.setattr(Parser, "read", read)
    monkeypatch.chdir(ROOT)
    with pytest.raises(Accepted):
        importlib.import_module(f"resnet_jax.{name}").main(words)


def entries(text):
    """Return {name: its meaning} of the switches or keys that a help lists."""
    rows = {}
    for line in text.splitlines():
        if entry := re.match(r"    ([\w.]+) +(\S.*)", line):
            name = entry[1]
            rows.setdefault(name, entry[2])
        elif line.startswith(28 * " ") and rows:
            rows[name] += " " + line.strip()
    return rows


def test_help_lists_every_switch_and_every_key_with_its_default_and_meaning():
    out = command("train", "--help").out
    switches, _, keys = out.partition("config switches")[2].partition("config keys, set by")
    rows = entries(switches)
    assert rows.keys() == {name for name, _ in choices.every_switch()} | {"depth"}
    for name, switch in choices.every_switch():
        assert set(switch.parts) <= set(re.findall(r"\w+", rows[name]))
    chosen = {switch.key for _, switch in choices.every_switch()} | {"model.depth"}
    assert entries(keys).keys() == choices.all_keys().keys() - chosen
    assert all(re.search(r"\w.* \[.+\]$", meaning) for meaning in entries(keys).values())
    assert (
        "steps between evaluations; a multiple of chunk_steps [1000]" in entries(keys)["eval_every"]
    )
    assert "of family=vit:\n" in keys and "of task=classification:\n" in keys


@pytest.mark.parametrize("separator", ["=", " "])
def test_help_with_a_config_lists_its_keys_alone_with_their_values(separator):
    spec = f"{DIGITS}:family=vit,depth=2"
    words = [*f"--config{separator}{spec}".split(), "--config.steps=7", "--help"]
    out = command("describe", *words).out
    switches, _, keys = out.partition("config switches")[2].partition("keys of this config, set by")
    config = recipe("digits", "family=vit,depth=2")
    assert entries(keys).keys() == configs.keys_of(config).keys() - {"model.depth"}
    assert entries(keys)["model.width"].endswith("[64]")
    assert entries(keys)["steps"].endswith("[7]")
    assert entries(switches)["family"].endswith("[vit]")
    assert entries(switches)["depth"].endswith("[2]")
    assert entries(switches)["norm"].endswith(": layer, none [layer]")


def test_help_survives_a_config_that_cannot_be_read():
    for spec in ("none.py", f"{DIGITS}:depht=8", "x" * 5000):
        done = command("describe", f"--config={spec}", "--help")
        assert done.status == 0 and "config keys, set by --config.KEY=VALUE" in done.out


@pytest.mark.parametrize(
    "word,says",
    [
        ("--lr=0.1", "unknown flag --lr; nearest: --config.optimizer.learning_rate"),
        ("--learning_rat=0.1", "; nearest: --config.optimizer.learning_rate"),
        ("--optimizer.lr=0.1", "; nearest: --config.optimizer.learning_rate"),
        ("--bs=8", "unknown flag --bs; nearest: --config.batch_size"),
        ("--steps=8", "unknown flag --steps; nearest: --config.steps"),
        ("--name=digits", "unknown flag --name; nearest: --config.data.name"),
        ("--datadir=x", "unknown flag --datadir; nearest: --data_dir"),
        ("--block=basic", "block is chosen in the config's argument: configs/NAME.py:block=VALUE"),
        ("--depth=8", "depth is chosen in the config's argument: configs/NAME.py:depth=VALUE"),
        ("--xyzzy", "unknown flag --xyzzy; see python -m resnet_jax.train --help"),
        ("--s=8", "unknown flag --s; see python -m resnet_jax.train --help"),
        ("--kind=batch", "unknown flag --kind; see python -m resnet_jax.train --help"),
        ("-x", "unknown flag --x; see python -m resnet_jax.train --help"),
    ],
)
def test_an_unknown_flag_names_a_near_one_or_none(word, says):
    line = command("train", f"--config={DIGITS}", "--workdir=none", word).refusal
    assert line.endswith(says)


def test_a_missing_config_file_names_the_nearest(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    for path in ("configs/digit.py", "configs/digits", "digits.py", "/nowhere/digits.py"):
        line = command("describe", f"--config={path}").refusal
        assert line == f"there is no config file {path}; nearest: configs/digits.py"
    monkeypatch.chdir(tmp_path)
    assert command("describe", "--config=a.py").refusal == "there is no config file a.py"


def test_values_may_stand_behind_a_space_and_switches_alone():
    words = ["--config.steps", "300", "--noconfig.data.flip", "--workdir", "w", "--config.model.x"]
    overrides, others = config_file.split(words)
    assert overrides == {"steps": "300", "data.flip": False, "model.x": True}
    assert others == ["--workdir", "w"]
    spec = f"{ROOT}/configs/cifar10.py:depth=20"
    config = config_file.load(spec, {"steps": "300", "data.flip": False})
    assert (config.steps, config.data.flip) == (300, False)
    assert config_file.load(spec, {"data.flip": True}) == config_file.load(spec)


OWN = """
from own import base
from resnet_jax.config import choose, make

def get_config(argument=""):
    return make(choose(argument, depth=8), base.RECIPE)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Return a function that writes a config file into a folder outside of the checkout."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "base.py").write_text('RECIPE = {"data.name": "digits", "data.shape": (8, 8, 1)}\n')

    def write(text):
        (folder / "mine.py").write_text(text)
        return folder / "mine.py"

    return write


def test_a_config_file_of_ones_own_works_from_any_directory(own, tmp_path):
    """The file, and another one that it imports from its own folder."""
    own(OWN)
    code = "from resnet_jax import config_file; print(config_file.load('own/mine.py').data.name)"
    done = subprocess.run(
        (sys.executable, "-c", code), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "digits\n", done.stderr
    config = config_file.load(f"{ROOT}/configs/imagenet_torchvision.py:depth=18")
    assert config.data.name == "imagenet2012"


@pytest.mark.parametrize(
    "old,new,says",
    [
        ("argument, depth=8)", "argument, depth=8", "line 6: SyntaxError: "),
        ("choose(", "chose(", "line 6: NameError: name 'chose' is not defined"),
        (
            "base.RECIPE",
            '{"optimizer.learning_rat": 0.1}',
            "line 6: unknown config key 'optimizer.learning_rat' in a recipe; nearest: optim",
        ),
        ("base.RECIPE", '{"steps": "many"}', "line 6: steps='many' must be int, such as 64000"),
        (
            "base.RECIPE",
            '{"norm.kind": "bach"}',
            "line 6: norm.kind='bach' in a recipe is not one of",
        ),
        (
            "base.RECIPE",
            '{"model.depth": 20}',
            "line 6: model.depth=20 in a recipe has no effect; choose it in the argument",
        ),
        ("base.RECIPE", '{"steps": int("x")}', "line 6: invalid literal for int()"),
        ("import base", "import bass", "line 2: ImportError: "),
        ("get_config", "get_confog", ": AttributeError: "),
        (
            "    return make(choose(argument, depth=8), base.RECIPE)",
            "    config = make(choose(argument, depth=8), base.RECIPE).unlock()\n"
            "    config.optimizer.learnig_rate = 0.5\n    return config",
            "unknown config key --config.optimizer.learnig_rate; nearest: --config.optimizer.l",
        ),
        (
            "    return make(choose(argument, depth=8), base.RECIPE)",
            "    config = make(choose(argument, depth=8), base.RECIPE).unlock()\n"
            "    config.model.patch = 4\n    return config",
            "model.patch is a key of family=vit; this config has family=resnet",
        ),
        (
            "    return make(choose(argument, depth=8), base.RECIPE)",
            "    config = make(choose(argument, depth=8), base.RECIPE).unlock()\n"
            "    del config.steps\n    return config",
            ": the config lacks steps",
        ),
        ('(argument="")', "()", ": TypeError: get_config() takes 0 positional arguments but 1 was"),
        ("return make", "return dict", ": "),
        (
            "    return",
            "    return {}\n    return",
            ": get_config returned dict; it must return what",
        ),
    ],
)
def test_an_error_in_a_config_file_names_file_and_line(own, monkeypatch, old, new, says):
    assert old in OWN
    path = own(OWN.replace(old, new, 1))
    line = command("describe", f"--config={path}").refusal
    assert line.startswith(str(path)) and says in line
    monkeypatch.chdir(path.parent.parent)
    relative = command("describe", f"--config={os.path.relpath(path)}").refusal
    assert relative == line.replace(f"{path.parent.parent}/", "")


@pytest.mark.parametrize("argument", ["depht=8", "depth=x", "family=resnets", "norm=bach"])
def test_a_mistake_in_the_argument_is_not_said_of_the_file(own, argument):
    line = command("describe", f"--config={own(OWN)}:{argument}").refusal
    assert "mine.py" not in line and argument in line
