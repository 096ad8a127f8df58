"""Every recipe builds; every mistake is one line that names the key and what would work."""

import importlib
from pathlib import Path

import pytest

from resnet_jax import config as configs

RECIPES = sorted(
    p.stem for p in (Path(__file__).parent.parent / "configs").glob("*.py") if p.stem != "__init__"
)


def recipe(name="cifar10", argument="", **changes):
    config = importlib.import_module(f"configs.{name}").get_config(argument)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_complete_locked_and_passes_its_own_check(name):
    config = recipe(name)
    assert config.is_locked
    assert configs.flatten(config).keys() == configs.flatten(configs.base()).keys()
    configs.check(config)


@pytest.mark.parametrize(
    "argument,block,skip",
    [
        ("depth=110", "basic", "A"),
        ("depth=110,skip=none", "basic", "none"),
        ("depth=1001", "bottleneck", "B"),
        ("depth=164,block=preact_bottleneck", "preact_bottleneck", "B"),
        ("family=ladder,depth=66", "basic", "A"),
    ],
)
def test_an_argument_chooses_the_network_and_its_defaults(argument, block, skip):
    config = recipe("cifar10", argument)
    assert (config.model.block, config.model.skip) == (block, skip)
    configs.check(config)


def test_warm_up_is_for_110_layers_and_more():
    assert recipe("cifar10", "depth=56").schedule.warmup_steps == 0
    assert recipe("cifar10", "depth=110").schedule.warmup_steps == 400


MISTAKES = [
    ({"model__depth": 111}, "depth 111 is not 6n+2 (basic blocks); nearest 110 and 116"),
    ({"model__skip": "D"}, "model.skip='D' is not one of none, A, B, C, A_split; nearest: "),
    ({"model__block": "bottelneck"}, "nearest: bottleneck"),
    ({"steps": 0}, "steps=0 must be positive"),
    ({"schedule__warmup_steps": 64_000}, "is not shorter than the run of steps=64000"),
    ({"schedule__boundaries": (48_000, 32_000)}, "must rise"),
    ({"schedule__boundaries": (0.5, 0.75)}, "must hold positive whole numbers"),
    ({"schedule__boundaries": (-5,)}, "must hold positive whole numbers"),
    ({"model__stages": ("a", "b")}, "must hold positive whole numbers"),
    ({"model__stages": (2.0, 2, 2)}, "must hold positive whole numbers"),
    ({"data__shape": (8.5, 8, 1)}, "must hold positive whole numbers"),
    ({"data__mean": ("x",)}, "data.mean=('x',) must hold numbers"),
    ({"data__shape": (8,)}, "data.shape=(8,) must be (height, width, channels)"),
    ({"optimizer__learning_rate": float("nan")}, "optimizer.learning_rate=nan must be finite"),
    ({"model__gate_bias": float("inf")}, "model.gate_bias=inf must be finite"),
    ({"model__gains": (1.0, float("nan"))}, "model.gains=(1.0, nan) must be finite"),
    ({"seed": 2**32}, "seed=4294967296 must be below 4294967296"),
    ({"schedule__kind": "cosine"}, "a cosine has one, the step of its end; try (64000,)"),
    ({"norm__group_size": 60}, "norm.group_size=60 does not divide batch_size=128; nearest 64"),
    ({"eval_every": 1050}, "eval_every=1050 is not a multiple of chunk_steps=100; nearest 1000"),
    ({"optimizer__momentum": 1.0}, "optimizer.momentum=1.0 must lie in [0, 1)"),
    ({"data__normalisation": "constants"}, "data.mean=() needs one number for each of the 3"),
    ({"data__shape": (2, 2, 3)}, "images of 2x2 are too small for 3 stages behind a 3x3 stem"),
    ({"model__stem": "7x7", "data__shape": (8, 8, 3)}, "need 16 pixels a side; use model.stem=3x3"),
    ({"model__stages": (2, 2, 2)}, "has 14 layers, not model.depth=110; set model.depth=14"),
    (
        {"model__family": "ladder", "model__block": "bottleneck"},
        "model.block='bottleneck' is not of the family ladder, which has basic, ",
    ),
    ({"model__block": "dense"}, "model.block='dense' is not of the family resnet"),
    ({"model__merge": "concat"}, "model.merge='concat' is not of the family resnet"),
    ({"model__merge": "exclusive"}, "; nearest: exclusive_gate"),
    ({"model__merge": "rezero", "model__gains": (0.5, 0.5)}, "those of merge=add, not of rezero"),
    ({"model__gains": (0.5,)}, "model.gains=(0.5,) must be two numbers, of skip and body"),
    ({"model__gains": ("a", 1.0)}, "must hold numbers"),
    ({"model__survival": 0.0}, "model.survival=0.0 must lie in (0, 1]"),
    ({"model__survival": 1.5}, "model.survival=1.5 must lie in (0, 1]"),
    ({"model__survival_rule": "quadratic"}, "is not one of linear, uniform; nearest: "),
    ({"model__skip_dropout": 1.0}, "model.skip_dropout=1.0 must lie in [0, 1)"),
    ({"model__dropout": -0.1}, "model.dropout=-0.1 must lie in [0, 1)"),
    ({"norm__kind": "group", "norm__groups": 5}, "norm.groups=5 does not divide 16 channels"),
    (
        {"norm__kind": "group", "norm__groups": 32},
        "16 channels; nearest that does: 16",
    ),
    ({"norm__kind": "instance"}, "norm.kind='instance' is not one of batch, group, layer, none"),
    ({"norm__kind": "none", "model__zero_init": True}, "norm.kind=none has none; use model.merge="),
    ({"model__widen": 0}, "model.widen=0 must be positive"),
    ({"model__growth": 0}, "model.growth=0 must be positive"),
    (
        {"model__family": "vgg"},
        "is not of the family vgg, which has single; families",
    ),
]


@pytest.mark.parametrize("changes,message", MISTAKES)
def test_a_mistake_is_refused_in_one_line_that_says_what_works(changes, message):
    with pytest.raises(ValueError) as error:
        configs.check(recipe(**changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_any_stage_sizes_make_a_network():
    configs.check(recipe(model__stages=(1, 2, 3, 1), model__depth=16))


def test_groups_that_do_not_divide_a_bottleneck_are_refused():
    changes = {"model__cardinality": 7, "model__depth": 29}
    with pytest.raises(ValueError, match="7 groups do not divide .* 512 to 512 .*: 8") as error:
        configs.check(recipe("cifar10", "family=resnext", **changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "family,near", [("resnets", "resnet"), ("highways", "highway"), ("dense", "densenet")]
)
def test_an_unknown_family_is_refused_with_the_nearest(family, near):
    with pytest.raises(ValueError, match=f"family={family} is not one of .*; nearest: {near}$"):
        recipe("cifar10", f"family={family}")


@pytest.mark.parametrize("argument", ["dept=20", "depth", "depth=deep", "depth=²"])
def test_a_misspelt_argument_is_refused(argument):
    with pytest.raises(ValueError, match="depth"):
        recipe("cifar10", argument)


def test_a_config_must_fit_its_data():
    config = recipe()
    configs.check_data(config, (32, 32, 3), 10, 50_000)
    for shape, classes, train, message in [
        ((28, 28, 1), 10, 50_000, 'use --config.data.shape="(28, 28, 1)"'),
        ((32, 32, 3), 100, 50_000, "use --config.model.num_classes=100"),
        ((32, 32, 3), 10, 100, "batch_size=128 is larger than the training split of cifar10, 100"),
        ((32, 32, 3), 10, 1000, "chunk_steps=100 is more than an epoch of cifar10"),
    ]:
        with pytest.raises(ValueError) as error:
            configs.check_data(config, shape, classes, train)
        assert message in str(error.value)


def test_identity_names_what_differs_and_forgives_what_may_change():
    import json

    saved = json.loads(configs.to_json(recipe()))
    assert not configs.differences(recipe(), saved)
    assert not configs.differences(recipe(data__dir="/elsewhere", checkpoint_every=100), saved)
    assert not configs.differences(recipe(steps=70_000), saved)
    assert configs.differences(recipe(steps=60_000), saved) == ["steps: 64000 there, 60000 now"]
    assert configs.differences(recipe(model__skip="none"), saved) == [
        "model.skip: A there, none now"
    ]
