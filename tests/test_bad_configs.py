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
# Not drawn: other data than digits is not there, and a family is the argument's.
FREE = ("data.dir", "data.name", "model.family")

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
            assert "Traceback" not in line
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
NO_SHAPE = ("steps", "chunk_steps", "eval_every", "checkpoint_every", "seed", "replicas")
NO_SHAPE += ("deterministic", "parallel", "data.name", "data.dir", "data.stream", "norm.precise")


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
    "resnet": (8, 14),
    "ladder": (18, 20),
    "wide": (10, 16),
    "resnext": (11, 50),
    "vgg": (11, 13),
    "vgg_bn": (11,),
    "lenet": (5,),
    "alexnet": (8,),
    "highway": (4, 10),
    "densenet": (7, 10, 16),
    "vit": (1, 2, 12),
}
ODD_DEPTHS = (0, 1, 9, 111, 1202, 10**5 + 4, 10**6 + 1, 2**31, 6 * 10**9 + 2, "²", "-8", "9" * 5000)


def mostly(fair, odd, times):
    """Of `fair`, and once in `times` + 1 of `odd`. (`st.one_of` takes equal ones once.)"""
    return st.sampled_from([fair] * times + [odd]).flatmap(lambda strategy: strategy)


@st.composite
def arguments(draw, fits):
    """A config file's argument: a family and a depth of it, and perhaps a block and a skip."""
    fair, odd = st.sampled_from(fits), st.sampled_from(sorted(ARGUMENTS))
    family = draw(mostly(fair, odd, 14))
    has = families.FAMILIES[family]
    of = lambda fair, odd: draw(mostly(st.sampled_from(fair), st.sampled_from(odd), 14))
    parts = [f"family={family}", f"depth={of(ARGUMENTS[family], ODD_DEPTHS)}"]
    if of((False,) * 5 + (True,), (False,)):
        parts.append(f"block={of(has.blocks, ('dense', 'single', 'x', ''))}")
    if of((False,) * 5 + (True,), (False,)):
        parts.append(f"skip={of(has.skips, ('C', 'D', ''))}")
    return ",".join([*parts, *of(((),), (("depht=8",), ("=",), ("depth=",), ("family=resnets",)))])


def texts(key):
    """What may be written for a key: of its type, in range or not, or of none."""
    default, garbage = BASE[key], st.sampled_from(GARBAGE)
    whole, real = (st.sampled_from(numbers) for numbers in (WHOLE, REAL))
    if key == "model.depth":
        fair = st.integers(-3, 130).map(str)
    elif key in configs.CHOICES:
        fair = st.sampled_from(configs.CHOICES[key])
    elif isinstance(default, bool):
        fair = st.sampled_from(("true", "false"))
    elif isinstance(default, int):
        fair = mostly(st.integers(1, 16), whole, 1).map(str)
    elif isinstance(default, float):
        fair = mostly(st.floats(0, 1), st.one_of(real, whole), 1).map(str)
    elif isinstance(default, tuple):
        item = mostly(st.integers(1, 32), st.one_of(whole, real, st.sampled_from(("a", None))), 9)
        many = st.sampled_from(([1] * 40, [1] * 5000))
        fair = mostly(st.lists(item, max_size=4), many, 9).map(lambda items: repr(tuple(items)))
    else:
        fair = st.sampled_from(("digits", "cifar10"))
    return mostly(fair, garbage, 14)


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
    odd = st.tuples(st.sampled_from(ODD_KEYS), st.sampled_from(GARBAGE))
    known = st.sampled_from(KEYS).flatmap(lambda key: st.tuples(st.just(key), texts(key)))
    key, text = draw(mostly(known, odd, 24))
    if isinstance(BASE.get(key), bool) and text == "false":
        return f"--noconfig.{key}"
    return f"--config.{key}={text}"


RECIPES = ("digits", "digits", "digits", "mnist", "cifar10", "cifar10_akamaster", "imagenet")


@st.composite
def command_lines(draw):
    name = draw(st.sampled_from(RECIPES))
    small = {"digits": ("lenet", "alexnet")}.get(name, ())
    argument = draw(arguments([family for family in ARGUMENTS if family not in small]))
    words = draw(st.lists(overrides(), min_size=1, max_size=draw(st.sampled_from((1, 1, 2, 4)))))
    return [f"--config={ROOT}/configs/{name}.py:{argument}", *words]


EXAMPLES = int(os.environ.get("RESNET_JAX_EXAMPLES", "0"))


# How ml_collections loads a config file.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_config_is_refused_in_one_line_or_builds(tmp_path):
    ends = []

    @settings(
        max_examples=EXAMPLES or 200,
        derandomize=not EXAMPLES,  # the same in every run of the suite
        database=None,
        deadline=None,
        # A network is traced in seconds, and most of an example is that.
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(words=command_lines())
    def one(words):
        ends.append(refused_or_built(words, tmp_path / "run"))

    one()
    # Neither refuses all nor takes all.
    assert 0.1 < ends.count(None) / len(ends) < 0.9


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(
    "words,says",
    [
        ([":depth=8"], None),
        ([":depth=8", "--config.model.merge=drop_path", "--config.model.depth=6002"], None),
        ([":depth=8", "--config.batch_size=1500", "--config.chunk_steps=1"], None),
        ([":depth=8", "--config.norm.kind=group", "--config.norm.groups=4"], None),
        ([":family=vit,depth=2", "--config.dtype=bfloat16", "--config.data.pad=2"], None),
        (
            [":depth=600002", "--config.model.merge=drop_path"],
            "model.depth=600002 is more than 20000, the most layers of a network with a survival",
        ),
        ([":depth=-8"], "depth=-8 is not a number of layers"),
        ([":depth=8", "--config.optimizer.learning_rate=nan"], "learning_rate=nan must be finite"),
        ([":depth=8", "--config.data.pad=9223372036854775807"], "must be at most 2147483647"),
        ([":depth=8", "--config.schedule.boundaries=(1, 10000000000)"], "must be at most 16777216"),
        ([":depth=8", "--config.model={}"], "unknown config key --config.model; nearest: "),
        ([":depth=8", "--config.data.std=(0.0,)"], "data.std=(0.0,) must hold positive numbers"),
        ([":depth=8", "--config.data.std=(0.5,)"], "data.std=(0.5,) changes nothing: "),
        ([":depth=8", "--config.norm.kind=layer", "--config.norm.group_size=5"], "changes nothing"),
    ],
)
def test_these_are_refused_or_build(tmp_path, words, says):
    argument, *rest = words
    line = refused_or_built(
        [f"--config={ROOT}/configs/digits.py{argument}", *rest], tmp_path / "run"
    )
    assert line == says if says is None else says in line
