"""Any command line is either refused in one line or builds: no traceback, and nothing is written.

`RESNET_JAX_EXAMPLES=5000 pytest -n0 tests/test_bad_configs.py` tries more of them than `make test`
does, and others in every run.
"""

import contextlib
import functools
import io
import itertools
import json
import os
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resnet_jax import choices, families, memory, train
from resnet_jax import config as configs
from resnet_jax.data.normalise import Normalisation
from resnet_jax.tasks import TASKS
from resnet_jax.training import shard
from resnet_jax.training import step as steps
from resnet_jax.training.optimizer import optimizer, schedule
from tests.recipes import recipe

ROOT = Path(__file__).parent.parent
EXAMPLES = int(os.environ.get("RESNET_JAX_EXAMPLES", "0"))

# --- what a command does with its words


def refused_or_built(words, workdir):
    """Return the line that refuses these words of a command line, or None if their network builds.

    The command is `train`, which stops when it would begin to write.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(train, "prepare", prepare),
        mock.patch.object(train, "train", lambda config: build(config)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            train.main([*words, f"--workdir={workdir}"])
        except SystemExit as end:
            line = err.getvalue()
            assert end.code == 2, line
            assert line.startswith("error: ") and len(line) > len("error: \n")
            assert len(line.splitlines()) == 1 and line.endswith("\n"), line
            assert "Traceback" not in line
            assert not out.getvalue() and not workdir.exists()
            return line
    assert not out.getvalue() + err.getvalue() and not workdir.exists()
    return None


# Data sets that the recipes name and that this machine need not have.
ABSENT = ("cifar10", "mnist", "imagenet2012")
real_prepare = train.prepare


def prepare(config, workdir):
    """Check all that `train` checks before it writes, except data that is not there."""
    if config.task != "classification" or config.data.name not in ABSENT:
        run = real_prepare(config, workdir)
        assert run is not None, "the directory is new"
        return run.config
    configs.check(config)
    shard.check(config, shard.mesh(config.replicas))
    return config


# What shapes and types do not depend on.
NO_SHAPE = ("steps", "chunk_steps", "eval_every", "checkpoint_every", "seed", "replicas")
NO_SHAPE += ("deterministic", "parallel", "data.name", "data.dir", "data.stream", "norm.precise")


def build(config):
    """Trace a whole training step and its schedule; nothing is computed."""
    rates = [float(schedule(config)(step)) for step in (0, config.steps - 1)]
    assert np.isfinite(rates).all() and min(rates) >= 0
    # What a run saves of its config is read again as the same config.
    flat, saved = configs.flatten(config), configs.flatten(json.loads(configs.to_json(config)))
    assert configs.flatten(configs.from_saved(saved)) == flat
    key = tuple(sorted((name, value) for name, value in flat.items() if name not in NO_SHAPE))
    trace(key, config.copy_and_resolve_references())


SEEN = set()


def trace(key, config):
    if key in SEEN:
        return
    SEEN.add(key)
    task, statistics = TASKS[config.task], {}
    state, batch = memory.step_inputs(config)
    if config.task == "classification":
        channels = config.data.shape[-1]
        ones = np.ones(channels, np.float32)
        statistics = Normalisation(0 * ones, ones).to_json()
        batch = batch.replace(input=jax.ShapeDtypeStruct(batch.input.shape, np.uint8))
    step = functools.partial(
        steps.train_step,
        axis=None,
        apply=families.build(config).apply,
        prepare=task.prepare(config, statistics),
        measure=task.measure,
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
GARBAGE = ("", "None", "[]", "{}", "nan", "()", "(", "1e", "x" * 3000, "9" * 5000, "ü½\u2028٣")
GARBAGE += ("True", "(1,", "'a'", "1 2", "-", "--", "{'a': 1}", "(" * 300, "\udcff", "1,2", "0x10")
GARBAGE += ("\n",)

# The depths of each family that builds quickly, and others.
DEPTHS = {
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
ODD_PARTS = ("depht=8", "=", "depth=", "family=resnets", "norm=batch,norm=none", "task", "x=" * 900)


def mostly(fair, odd, times):
    """Draw from `fair`, and once in `times` + 1 from `odd`. (`st.one_of` takes equal ones once.)"""
    return st.sampled_from([fair] * times + [odd]).flatmap(lambda strategy: strategy)


@st.composite
def arguments(draw, family):
    """Draw a config file's argument: the family, a depth of it, and perhaps other switches."""
    of = lambda fair, odd: draw(mostly(st.sampled_from(fair), st.sampled_from(odd), 29))
    parts = [f"family={family}", f"depth={of(DEPTHS[family], ODD_DEPTHS)}"]
    own = choices.SWITCHES | families.FAMILIES[family].switches | TASKS["classification"].switches
    for name, switch in own.items():
        if name != "family" and draw(st.sampled_from((False,) * 5 + (True,))):
            parts.append(f"{name}={of(tuple(switch.parts), ('dense', 'none', 'C', 'x', ''))}")
    return ",".join(parts + of(([],), [[part] for part in ODD_PARTS]))


# Every key of every part; a key that several parts bring has the rule of the last.
KEYS = choices.COMMON | {"model.depth": choices.DEPTH}
for _, a_switch in choices.every_switch():
    for a_part in a_switch.parts.values():
        KEYS |= a_part.keys
SWITCH_KEYS = sorted({switch.key for _, switch in choices.every_switch()})
NAMES = ("digits", "digits", "cifar10", "npz:", "npz:/none.npz", "folder:/none", "x:y", "none")


def texts(key):
    """Draw what may be written for a key: of its type, in range or not, or of no type."""
    default, rule, _ = KEYS[key]
    whole, real = (st.sampled_from(numbers) for numbers in (WHOLE, REAL))
    if rule.choices:
        fair = st.sampled_from(rule.choices)
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
        fair = st.sampled_from(NAMES)
    return mostly(fair, st.sampled_from(GARBAGE), 14)


ODD_KEYS = ("model", "data", "modle.depth", "model.dept", "data.shape[0]", "seed.x", "", "lock")
ODD_KEYS += ("ü", *SWITCH_KEYS)
ODD_WORDS = ("--lr=0.1", "--depth=8", "leftover", "--xyzzy", "-", "--", "--config.", "--wrokdir=x")
ODD_WORDS += ("--config.steps", "--noconfig.seed", "--process_id=1", "--num_processes=0", "\udcff")


@st.composite
def overrides(draw, known):
    """Draw the words of one override of the config, or something odd."""
    odd = st.tuples(st.sampled_from(ODD_KEYS), st.sampled_from(GARBAGE))
    any_key = mostly(st.sampled_from(known), st.sampled_from(sorted(KEYS)), 9)
    fair = any_key.flatmap(lambda key: st.tuples(st.just(key), texts(key)))
    key, text = draw(mostly(fair, odd, 24))
    flag = f"--config.{key}" if text == "true" else f"--noconfig.{key}"
    alone = [flag] if text in ("true", "false") else [f"--config.{key}", text]
    written = mostly(st.just([f"--config.{key}={text}"]), st.just(alone), 4)
    return draw(mostly(written, st.sampled_from(ODD_WORDS).map(lambda word: [word]), 39))


RECIPES = ("digits",) * 4 + ("mnist", "cifar10", "cifar10_akamaster", "imagenet", "reconstruction")


def keys_by_recipe():
    """Return the keys of every recipe with every family; any key if they do not go together."""
    keys = {pair: sorted(KEYS) for pair in itertools.product(RECIPES, DEPTHS)}
    for name, family in keys:
        block = families.FAMILIES[family].switches["block"].default
        with contextlib.suppress(ValueError):
            config = recipe(name, f"family={family},block={block}")
            own = sorted({*configs.keys_of(config)} - {"model.depth", "data.dir"})
            # The data's shape goes together with every other key or does not.
            keys[name, family] = own + 3 * ["data.shape"]
    return keys


@st.composite
def command_lines(draw, keys):
    name = draw(st.sampled_from(RECIPES))
    small = ("lenet", "alexnet") if name in ("digits", "reconstruction") else ()
    fair = st.sampled_from([family for family in DEPTHS if family not in small])
    family = draw(mostly(fair, st.sampled_from(sorted(DEPTHS)), 14))
    argument = draw(arguments(family))
    many = draw(st.sampled_from((1, 1, 2, 4)))
    words = draw(st.lists(overrides(keys[name, family]), min_size=1, max_size=many))
    spec = f"--config={ROOT}/configs/{name}.py:{argument}"
    return [spec, *(word for override in words for word in override)]


def test_a_command_line_is_refused_in_one_line_or_builds(tmp_path):
    ends = []

    @settings(
        max_examples=EXAMPLES or 60,
        derandomize=not EXAMPLES,  # the same in every run of the suite
        database=None,
        deadline=None,
        # A network is traced in seconds, and most of an example is that.
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(words=command_lines(keys_by_recipe()))
    def check(words):
        ends.append(refused_or_built(words, tmp_path / "run"))

    check()
    # Neither are all refused nor do all build.
    assert 0.1 < ends.count(None) / len(ends) < 0.9


CHUNKS = ("--config.chunk_steps=1",)


@pytest.mark.parametrize(
    "argument,words,says",
    [
        ("depth=8", [], None),
        ("depth=6002,merge=drop_path", [], None),
        ("family=highway,block=dense,depth=3", ["--config.batch_size=1500", *CHUNKS], None),
        ("depth=8,norm=group", ["--config.norm.groups=4"], None),
        ("family=vit,depth=2", ["--config.dtype=bfloat16", "--config.data.pad=2"], None),
        ("depth=8,task=reconstruction", [], None),
        (
            "depth=8,task=reconstruction",
            ["--config.data.shape=(64,)"],
            "data.shape=(64,) must be (height, width, channels) for family=resnet,block=basic",
        ),
        ("depth=600002,merge=drop_path", [], "depth=600002 is more than 20000, the most layers of"),
        ("depth=-8", [], "depth=-8 is not a number of layers"),
        ("depth=8", ["--config.optimizer.learning_rate=nan"], "learning_rate=nan must be finite"),
        ("depth=8", ["--config.data.pad=9223372036854775807"], "must be at most 2147483647"),
        (
            "depth=8",
            ["--config.schedule.boundaries=(1, 10000000000)"],
            "must be at most 16777216",
        ),
        ("depth=8", ["--config.model={}"], "unknown config key --config.model; nearest: "),
        (
            "depth=8,normalisation=constants",
            ["--config.data.mean=(0.5,)", "--config.data.std=(0.0,)"],
            "data.std=(0.0,) must hold positive numbers",
        ),
        (
            "depth=8",
            ["--config.data.std=(0.5,)"],
            "data.std is a key of normalisation=constants; this config has normalisation=per_pixel",
        ),
        ("depth=8,norm=layer", ["--config.norm.group_size=5"], "a key of norm=batch; this config"),
        ("family=vgg,norm=group", ["--config.norm.groups=7"], "does not divide 64 channels"),
    ],
)
def test_these_are_refused_or_build(tmp_path, argument, words, says):
    words = [f"--config={ROOT}/configs/digits.py:{argument}", *words]
    line = refused_or_built(words, tmp_path / "run")
    assert line is None if says is None else says in line
