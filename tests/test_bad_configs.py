"""Any config is either refused in one line or builds: no traceback, and nothing is written.

`RESNET_JAX_EXAMPLES=5000 pytest -n0 tests/test_bad_configs.py` tries more of them than `make test`
does, and others in every run.
"""

import contextlib
import functools
import io
import os
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from absl import flags
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_collections import config_flags

from resnet_jax import command, families, memory
from resnet_jax import config as configs
from resnet_jax.data import augment, normalise
from resnet_jax.training import loop, shard
from resnet_jax.training import step as steps
from resnet_jax.training.optimizer import optimizer, schedule

ROOT = Path(__file__).parent.parent
BASE = configs.flatten(configs.base())
# Not drawn: other paths of files, and more devices than there are.
FREE = ("data.dir",)

# --- what a command does with its words


def refused_or_built(words, workdir):
    """The line that refuses these words of a command line; None where their network builds."""
    values, out, err = flags.FlagValues(), io.StringIO(), io.StringIO()
    argv = ["train", *words]
    with (
        mock.patch.object(flags, "FLAGS", values),
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(command, "use_compilation_cache"),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        config = config_flags.DEFINE_config_file("config", None, flag_values=values)
        try:
            command.run(lambda: accept(config.value, workdir))
        except SystemExit as end:
            assert end.code == 2
            line = err.getvalue()
            assert line.startswith("error: ") and len(line) > len("error: \n")
            assert len(line.splitlines()) == 1 and line.endswith("\n"), line
            assert not out.getvalue() and not workdir.exists()
            return line
    assert not out.getvalue() + err.getvalue() and not workdir.exists()
    return None


def accept(config, workdir):
    """What train does before it writes, without other data than digits; then what it compiles."""
    with command.refusals():
        if config.data.name == "digits":
            loop.prepare(config, workdir)
        else:
            configs.check(config)
            shard.check(config, shard.mesh(config.replicas))
        configs.check_given(config, command.given_keys())
    build(config)


# What shapes and types do not depend on.
NO_SHAPE = ("steps", "chunk_steps", "eval_every", "checkpoint_every", "seed", "deterministic")


def build(config):
    """Trace a whole training step and its schedule; nothing is computed."""
    rates = [float(schedule(config)(step)) for step in (0, config.steps - 1)]
    assert np.isfinite(rates).all() and min(rates) >= 0
    key = tuple(sorted((k, v) for k, v in configs.flatten(config).items() if k not in NO_SHAPE))
    trace(key, config.copy_and_resolve_references())


SEEN = set()


def trace(key, config):
    if key in SEEN:
        return
    SEEN.add(key)
    channels = config.data.shape[-1]
    statistics = normalise.Normalisation(
        np.zeros(channels, np.float32), np.ones(channels, np.float32)
    )

    def prepare(key, batch):
        image = normalise.apply(statistics, batch.image)
        return augment.pad_crop_flip(key, image, batch.row, config.data.pad, config.data.flip)

    state, batch = memory._inputs(config)
    batch = batch.replace(image=jax.ShapeDtypeStruct(batch.image.shape, np.uint8))
    step = functools.partial(
        steps.train_step,
        axis=None,
        apply=families.build(config).apply,
        prepare=prepare,
        optimizer=optimizer(config),
    )
    after, sums = jax.eval_shape(step, state, batch)
    shapes = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype), tree)
    assert shapes(after) == shapes(state)
    assert sums["loss"].shape == ()


# --- what it is given

WHOLE = (0, -1, 1, 2, 3, 5, 7, 8, 10, 16, 50, 64, 300, 1203, 65_536, 2**24, 2**24 + 1)
WHOLE += (2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 10**30)
REAL = (0.0, -0.0, 1.0, -1.0, 0.5, 0.1, 1e-5, 1 - 1e-12, 1e-45, 1e-300, 1e30, 1e38, 1e39, 1e300)
REAL += (float("nan"), float("inf"), -float("inf"))
GARBAGE = (
    "",
    "None",
    "[]",
    "{}",
    "nan",
    "()",
    "(",
    "1e",
    "x" * 3000,
    "9" * 5000,
    "ü½\u2028٣",
    "\n",
)
GARBAGE += ("True", "(1,", "'a'", "1 2", "-", "--", "{'a': 1}", "(" * 300, "\udcff", "1,2", "0x10")

# The depths of each family that builds quickly, and others.
ARGUMENTS = {
    "resnet": (8, 14, 11, 18, 34, 50, 110),
    "ladder": (18, 20),
    "wide": (10, 16, 50),
    "resnext": (11, 29, 50),
    "vgg": (11, 13),
    "vgg_bn": (11,),
    "lenet": (5,),
    "alexnet": (8,),
    "highway": (4, 10),
    "densenet": (7, 10, 16),
    "vit": (1, 2, 12),
}
ODD_DEPTHS = (0, 1, 9, 111, 1202, 10**5 + 4, 10**6 + 1, 2**31, 6 * 10**9 + 2, "²", "-8", "9" * 5000)


@st.composite
def arguments(draw):
    """A config file's argument: a family and a depth of it, then more."""
    family = draw(st.sampled_from(sorted(ARGUMENTS)))
    depth = draw(st.one_of(*[st.sampled_from(ARGUMENTS[family])] * 5, st.sampled_from(ODD_DEPTHS)))
    parts = [f"family={family}", f"depth={depth}"]
    block = (*families.FAMILIES[family].blocks, *families.FAMILIES[family].blocks, "dense", "x")
    if draw(st.integers(0, 2)) == 0:
        parts.append(f"block={draw(st.sampled_from(block))}")
    if draw(st.integers(0, 3)) == 0:
        parts.append(f"skip={draw(st.sampled_from((*families.SKIPS, 'D', '')))}")
    if draw(st.integers(0, 15)) == 0:
        parts.append(draw(st.sampled_from(("depht=8", "family", "=", "depth=", "family=resnets"))))
    return ",".join(parts)


def texts(key):
    """What may be written for a key: of its type, in range or not, or of none."""
    default = BASE[key]
    if key == "model.depth":
        return st.integers(-3, 130).map(str)
    if key in configs.CHOICES:
        fair = st.sampled_from(configs.CHOICES[key])
    elif isinstance(default, bool):
        fair = st.sampled_from(("true", "false"))
    elif isinstance(default, int):
        fair = st.one_of(st.integers(1, 16), st.sampled_from(WHOLE)).map(str)
    elif isinstance(default, float):
        fair = st.one_of(st.floats(0, 1), st.sampled_from(REAL), st.sampled_from(WHOLE)).map(str)
    elif isinstance(default, tuple):
        number = st.sampled_from((*WHOLE, *REAL[:8], "a", True, None))
        some = st.one_of(st.lists(st.integers(1, 32), max_size=4), st.lists(number, max_size=4))
        fair = st.one_of(some, st.just([1] * 40), st.just([1] * 5000)).map(lambda v: repr(tuple(v)))
    else:
        fair = st.sampled_from(("digits", "cifar10"))
    return st.one_of(*[fair] * 9, st.sampled_from(GARBAGE))


KEYS = sorted(set(BASE) - set(FREE))
ODD_KEYS = (
    "model",
    "data",
    "modle.depth",
    "model.dept",
    "data.shape[0]",
    "seed.x",
    "",
    "lock",
    "ü",
)


@st.composite
def overrides(draw):
    """One override of the config on the command line."""
    if draw(st.integers(0, 24)) == 0:
        return f"--config.{draw(st.sampled_from(ODD_KEYS))}={draw(st.sampled_from(GARBAGE))}"
    key = draw(st.sampled_from(KEYS))
    text = draw(texts(key))
    if isinstance(BASE[key], bool) and text == "false":
        return f"--noconfig.{key}"
    return f"--config.{key}={text}"


RECIPES = ("digits", "digits", "digits", "mnist", "cifar10", "imagenet", "cifar10_akamaster")


@st.composite
def command_lines(draw):
    name, argument = draw(st.sampled_from(RECIPES)), draw(arguments())
    words = draw(st.lists(overrides(), max_size=4))
    return [f"--config={ROOT}/configs/{name}.py:{argument}", *words]


EXAMPLES = int(os.environ.get("RESNET_JAX_EXAMPLES", "0"))
COUNT = {"accepted": 0, "refused": 0}


# How ml_collections loads a config file.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@settings(
    max_examples=EXAMPLES or 200,
    derandomize=not EXAMPLES,  # the same in every run of the suite
    database=None,
    deadline=None,
    # The work directory is never made, so that one for all examples does.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(words=command_lines())
def test_a_config_is_refused_in_one_line_or_builds(tmp_path, words):
    line = refused_or_built(words, tmp_path / "run")
    COUNT["accepted" if line is None else "refused"] += 1
