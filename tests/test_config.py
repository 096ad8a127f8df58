"""Every recipe builds; every mistake is one line that names the key and what would work."""

import importlib
from pathlib import Path

import pytest

from resnet_jax import config as configs

RECIPES = sorted(
    p.stem for p in (Path(__file__).parent.parent / "configs").glob("*.py") if p.stem != "__init__"
)


BASE = configs.flatten(configs.base())


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
    ({"steps": 2**24 + 1}, "must be at most 16777216: the schedule counts in float32"),
    (
        {"batch_size": 2**31},
        "batch_size=2147483648 must be at most 2147483647: jax counts in 32 bits",
    ),
    ({"norm__epsilon": 1e-45}, "is not within float32's 1.18e-38 and 3.4e+38"),
    ({"optimizer__momentum": 1 - 1e-12}, "must lie in [0, 1)"),
    (
        {"model__depth": 10**9 + 4},
        "model.depth=1000000004 is more than 1000000, the most layers of any",
    ),
    (
        {"model__depth": 6 * 10**4 + 2, "unroll": 2000},
        "is more than 1202, the most layers of a program that",
    ),
    ({"model__width": 2**30, "model__widen": 4}, "are more channels than jax counts in 32 bits"),
    ({"model__width": 2**20}, "would be an array of 18 x 3 x 3 x 1048576 x 1048576 numbers; jax"),
    (
        {"model__num_classes": 2**30},
        "head/dense/kernel would be an array of 64 x 1073741824 numbers",
    ),
    ({"data__shape": (70_000, 32, 3)}, "has more than 65535 pixels a side"),
    ({"data__pad": 2**20}, "makes images of"),
    ({"data__std": (0.0,)}, "data.std=(0.0,) must hold positive numbers"),
    ({"data__std": (1,)}, "data.std=(1,) must hold numbers with a point, such as 1.0"),
    ({"schedule__factor": 1e30}, "grows beyond float32's 3.4e+38 by schedule.factor=1e+30"),
    (
        {"schedule__warmup_steps": 0, "schedule__warmup_factor": 0.5},
        "schedule.warmup_factor=0.5 changes nothing: there is no warm-up where ",
    ),
    (
        {"schedule__kind": "constant", "schedule__factor": 0.5},
        "schedule.factor=0.5 changes nothing",
    ),
    ({"norm__groups": 4}, "norm.groups=4 changes nothing: norm.kind=batch with model.block=basic"),
    ({"norm__kind": "layer", "norm__momentum": 0.5}, "norm.momentum=0.5 changes nothing"),
    (
        {"model__block": "fixup_basic", "norm__precise": 2},
        "norm.precise=2 changes nothing: norm.kind=batch with model.block=fixup_basic keeps no",
    ),
    ({"optimizer__momentum": 0.0, "optimizer__nesterov": True}, "optimizer.nesterov=True changes"),
    (
        {"optimizer__weight_decay": 0.0, "optimizer__decay": "kernels"},
        "optimizer.decay=kernels chan",
    ),
    ({"model__gains": (0.0, 0.0)}, "model.gains=(0.0, 0.0) pass nothing on"),
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


@pytest.mark.parametrize(
    "name,argument,changes",
    [
        ("cifar10", "depth=20", {"norm__kind": "group"}),  # the file's own norm.group_size
        ("imagenet", "family=densenet,depth=121", {}),  # and its width
        ("imagenet", "depth=50", {"data__normalisation": "channel"}),
        ("digits", "depth=8", {"schedule__kind": "constant"}),
    ],
)
def test_what_a_recipe_sets_for_all_its_networks_is_refused_only_where_it_is_given(
    name, argument, changes
):
    config = recipe(name, argument, **changes)
    configs.check(config)
    idle = sorted(set(configs.idle(config)) & set(configs.FOR_ALL))
    keys = [key for key in idle if configs.flatten(config)[key] != BASE[key]]
    assert keys
    configs.check_given(config, [key.replace("__", ".") for key in changes])
    for key in keys:
        with pytest.raises(
            ValueError, match=f"{key}=.* changes nothing: .*; leave it out"
        ) as error:
            configs.check_given(config, [key])
        assert "\n" not in str(error.value)


def test_an_odd_family_of_many_layers_or_stages_is_refused_at_once():
    for argument, changes, message in (
        ("family=densenet,depth=3004", {}, "is more than 1202, the most layers of a densenet"),
        ("family=vgg,depth=40", {"model__stages": (1,) * 37}, "holds 37 stages; at most 32"),
        ("family=vit,depth=4", {"model__width": 2**28, "model__heads": 3}, "nearest that does: 2"),
        ("depth=8", {"norm__kind": "group", "norm__groups": 3, "model__width": 2**26}, "does: 2"),
    ):
        with pytest.raises(ValueError, match=message):
            configs.check(recipe("digits", argument, **changes))


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
