"""Every recipe builds; every mistake is one line that names the key and what would work."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest

import resnet_jax
from resnet_jax import config as configs
from resnet_jax import config_file, families, train
from resnet_jax.data import sources
from resnet_jax.tasks import image_data
from resnet_jax.tasks.task import check_batches
from tests.recipes import recipe

ROOT = Path(__file__).parent.parent
RECIPES = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_locked_and_passes_its_own_check(name):
    config = recipe(name, check=True)
    assert config.is_locked
    switches = {choice.switch.key for choice in configs.choices_of(config)}
    assert configs.flatten(config).keys() == configs.keys_of(config).keys() | switches


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_pure_and_reads_the_same_from_its_file(name):
    path = ROOT / "configs" / f"{name}.py"
    first, second = (config_file.load(str(path)) for _ in range(2))
    assert first == second == recipe(name)
    assert first is not second


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
    config = recipe("cifar10", argument, check=True)
    assert (config.model.block, config.model.skip) == (block, skip)


def test_warm_up_is_for_110_layers_and_more():
    assert recipe("cifar10", "depth=56").schedule.warmup_steps == 0
    assert recipe("cifar10", "depth=110").schedule.warmup_steps == 400


def test_a_config_holds_the_keys_of_its_parts_and_no_others():
    vit = configs.flatten(recipe("digits", "family=vit,depth=2"))
    assert {"model.patch", "model.heads"} <= vit.keys()
    assert not {"model.stem", "norm.groups", "data.mean"} & vit.keys()
    grouped = configs.flatten(recipe("digits", "depth=8,norm=group,normalisation=constants"))
    assert {"model.stem", "norm.groups", "data.mean"} <= grouped.keys()
    assert not {"model.patch", "norm.momentum"} & grouped.keys()


CONSTANTS = {"data__normalisation": "constants", "data__mean": (0.5,) * 3, "data__std": (0.2,) * 3}
DROP = {"model__merge": "drop_path"}
MISTAKES = [
    ({"model__depth": 111}, "depth 111 is not 6n+2 (basic blocks); nearest 110 and 116"),
    ({"model__skip": "D"}, "skip=D is not a skip of family=resnet, which has none, A, B, C, A_spl"),
    ({"model__block": "bottelneck"}, "nearest: bottleneck"),
    ({"steps": 0}, "steps=0 must be positive"),
    ({"steps": 2**24 + 1}, "must be at most 16777216: the schedule counts in float32"),
    (
        {"batch_size": 2**31},
        "batch_size=2147483648 must be at most 2147483647: jax counts in 32 bits",
    ),
    ({"norm__epsilon": 1e-45}, "is not within float32's 1.18e-38 and 3.4e+38"),
    ({"optimizer__momentum": 1 - 1e-12}, "must lie in [0, 1)"),
    ({"model__depth": 10**9 + 4}, "depth=1000000004 is more than 1000000, the most layers of any"),
    (
        {"model__depth": 6 * 10**4 + 2, "unroll": 2000},
        "is more than 1202, the most layers of a program that",
    ),
    (
        {"model__width": 2**30, "model__widen": 4},
        "an array of 17 x 4294967296 numbers",
    ),
    ({"model__width": 2**20}, "would be an array of 18 x 3 x 3 x 1048576 x 1048576 numbers; jax"),
    (
        {"model__num_classes": 2**30},
        "head/dense/kernel would be an array of 64 x 1073741824 numbers",
    ),
    ({"data__shape": (70_000, 32, 3)}, "has more than 65535 pixels on a side"),
    ({"data__pad": 2**20}, "makes images of"),
    (CONSTANTS | {"data__std": (0.2, 0.0, 0.2)}, "0.0, 0.2) must hold positive numbers"),
    (CONSTANTS | {"data__std": (1,)}, "data.std=(1,) must hold numbers with a point, such as 1.0"),
    ({"data__std": (1.0,)}, "data.std is a key of normalisation=constants; this config has normal"),
    ({"schedule__factor": 1e30}, "grows beyond float32's 3.4e+38 by schedule.factor or"),
    (
        {"schedule__warmup_steps": 0, "schedule__warmup_factor": 0.5},
        "schedule.warmup_factor=0.5 changes nothing, because schedule.warmup_steps=0",
    ),
    (
        {"schedule__warmup_steps": 0, "schedule__warmup": "linear"},
        "schedule.warmup=linear changes nothing, because schedule.warmup_steps=0",
    ),
    (
        {"schedule__boundaries": (), "schedule__factor": 0.5},
        "schedule.factor=0.5 changes nothing, because schedule.boundaries is empty",
    ),
    (
        {"schedule__kind": "constant", "schedule__factor": 0.5},
        "schedule.factor is a key of schedule=piecewise and schedule=exponential; this config has",
    ),
    ({"norm__groups": 4}, "norm.groups is a key of norm=group; this config has norm=batch"),
    ({"norm__kind": "layer", "norm__momentum": 0.5}, "norm.momentum is a key of norm=batch"),
    ({"norm__kind": "none", "norm__epsilon": 0.5}, "this config has norm=none"),
    ({"model__block": "fixup_basic", "norm__precise": 2}, "norm.precise is a key of norm=batch"),
    ({"optimizer__momentum": 0.0, "optimizer__nesterov": True}, "optimizer.nesterov=True changes"),
    ({"model__gains": (0.0, 0.0)}, "model.gains=(0.0, 0.0) pass nothing on"),
    ({"schedule__warmup_steps": 64_000}, "is not shorter than the run of steps=64000"),
    ({"schedule__boundaries": (48_000, 32_000)}, "must rise"),
    ({"schedule__boundaries": (0.5, 0.75)}, "must hold positive whole numbers"),
    ({"schedule__boundaries": (-5,)}, "must hold positive whole numbers"),
    ({"schedule__kind": "cosine", "schedule__boundaries": (5,)}, "this config has schedule=cosine"),
    ({"schedule__kind": "cosine", "schedule__end": 0}, "schedule.end=0 must be positive"),
    ({"model__stages": ("a", "b")}, "must hold positive whole numbers"),
    ({"model__stages": (2.0, 2, 2)}, "must hold positive whole numbers"),
    ({"data__shape": (8.5, 8, 1)}, "must hold positive whole numbers"),
    (CONSTANTS | {"data__mean": ("x",)}, "data.mean=('x',) must hold numbers"),
    ({"data__shape": (8,)}, "data.shape=(8,) must be (height, width, channels)"),
    ({"optimizer__learning_rate": float("nan")}, "optimizer.learning_rate=nan must be finite"),
    (
        {"model__merge": "two_gate", "model__gate_bias": float("inf")},
        "model.gate_bias=inf must be finite",
    ),
    ({"model__gate_bias": 0.0}, "model.gate_bias is a key of merge=exclusive_gate"),
    ({"model__gains": (1.0, float("nan"))}, "model.gains=(1.0, nan) must be finite"),
    ({"seed": 2**32}, "must be below 4294967296"),
    ({"seed": -1}, "seed=-1 must not be negative"),
    ({"seed": 2**32 - 2, "replicas": 4}, "seed=4294967294 with replicas=4 must be below 4294967"),
    ({"replicas": 2, "parallel": "pmap"}, "replicas=2 need parallel=shard_map"),
    ({"dtype": "float64"}, "dtype=float64 needs JAX_ENABLE_X64=1"),
    ({"dtype": "float16"}, "dtype='float16' is not one of float32, bfloat16, float64"),
    ({"norm__group_size": 60}, "norm.group_size=60 does not divide batch_size=128; nearest 64"),
    ({"norm__group_size": -2}, "norm.group_size=-2 must be a number of examples, 0"),
    ({"norm__precise": 101}, "norm.precise=101 is more than chunk_steps=100"),
    ({"eval_every": 1050}, "eval_every=1050 is not a multiple of chunk_steps=100; nearest 1000"),
    ({"optimizer__momentum": 1.0}, "optimizer.momentum=1.0 must lie in [0, 1)"),
    ({"data__normalisation": "constants"}, "each needs a number for each of the 3 channels"),
    ({"data__shape": (2, 2, 3)}, "images of 2x2 are too small for 3 stages behind a 3x3 stem"),
    ({"model__stem": "7x7", "data__shape": (8, 8, 3)}, "16 pixels on each side; use model.stem="),
    ({"model__stages": (2, 2, 2)}, "has 14 layers, not depth=110; choose depth=14"),
    (
        {"model__family": "ladder", "model__block": "bottleneck"},
        "block=bottleneck is not a block of family=ladder, which has basic, ",
    ),
    ({"model__block": "dense"}, "block=dense is not a block of family=resnet"),
    ({"model__merge": "concat"}, "merge=concat is not a merge of family=resnet"),
    ({"model__merge": "exclusive"}, "; nearest: exclusive_gate"),
    ({"model__merge": "rezero", "model__gains": (0.5, 0.5)}, "model.gains is a key of merge=add"),
    ({"model__gains": (0.5,)}, "model.gains=(0.5,) must be two numbers, of the skip and of the"),
    ({"model__gains": ("a", 1.0)}, "must hold numbers"),
    (DROP | {"model__survival": 0.0}, "model.survival=0.0 must lie in (0, 1]"),
    (DROP | {"model__survival": 1.5}, "model.survival=1.5 must lie in (0, 1]"),
    (
        DROP | {"model__survival_rule": "quadratic"},
        "is not one of linear, uniform, linspace; nearest: ",
    ),
    ({"model__skip_dropout": 1.0}, "model.skip_dropout=1.0 must lie in [0, 1)"),
    ({"model__family": "vgg", "model__dropout": -0.1}, "model.dropout=-0.1 must lie in [0, 1)"),
    ({"model__dropout": 0.1}, "model.dropout is a key of family=vgg"),
    ({"norm__kind": "group", "norm__groups": 5}, "norm.groups=5 does not divide 16 channels"),
    (
        {"norm__kind": "group", "norm__groups": 32},
        "16 channels; nearest that does: 16",
    ),
    ({"norm__kind": "instance"}, "norm=instance is not a norm of family=resnet, which has batch"),
    ({"norm__kind": "none", "model__zero_init": True}, "norm=none has none; choose merge=rezero"),
    ({"model__skip": "none", "model__zero_init": True}, "pass nothing on and learn nothing"),
    ({"model__skip": "none", "model__block": "fixup_basic"}, "pass nothing on and learn nothing"),
    ({"norm__kind": "layer", "model__block": "fixup_basic"}, "which has no norms; choose norm="),
    ({"model__widen": 0}, "model.widen=0 must be positive"),
    ({"model__cardinality": 2}, "model.cardinality is a key of block=bottleneck"),
    (
        {"model__family": "highway", "model__zero_init": True},
        "and 20 more; this config has family=highway and block=single",
    ),
    ({"model__family": "densenet", "model__growth": 0}, "model.growth=0 must be positive"),
    ({"model__growth": 4}, "model.growth is a key of family=densenet; this config has family=resn"),
    ({"model__family": "vgg", "model__block": "basic"}, "block=basic is not a block of family=vgg"),
    ({"task": "reconstruction", "data__normalisation": "channel"}, "is no choice of task=recon"),
]


@pytest.mark.parametrize("changes,message", MISTAKES)
def test_a_mistake_is_refused_in_one_line_that_says_what_works(changes, message):
    with pytest.raises(ValueError) as error:
        recipe(check=True, **changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name,argument,keys",
    [
        ("cifar10", "depth=20,norm=group", ["norm.group_size"]),
        ("imagenet", "family=densenet,depth=121", ["model.width"]),
        ("imagenet", "depth=50,normalisation=channel", ["data.mean", "data.std"]),
        ("digits", "depth=8,schedule=constant", ["schedule.boundaries", "schedule.end"]),
    ],
)
def test_a_recipe_may_set_keys_that_the_command_line_may_not(name, argument, keys):
    """A recipe sets a key for all configs that have it; an override must change something."""
    config = recipe(name, argument, check=True)
    assert not set(keys) & configs.flatten(config).keys()
    for key in keys:
        with pytest.raises(ValueError, match=f"{key} is a key of .*; this config has ") as error:
            config_file.override(config, {key: "2"})
        assert "\n" not in str(error.value)


def test_a_network_is_traced_once_and_another_one_anew():
    shapes = families.shapes(recipe("digits", "depth=8"))
    assert families.shapes(recipe("digits", "depth=8")) is shapes
    wider = families.shapes(recipe("digits", "depth=8", model__width=32))
    kernel = lambda tree: tree["params"]["stem"]["conv"]["kernel"].shape
    assert (kernel(shapes), kernel(wider)) == ((3, 3, 1, 16), (3, 3, 1, 32))


def test_an_odd_family_of_many_layers_or_stages_is_refused_at_once():
    for argument, changes, message in (
        ("family=densenet,depth=3004", {}, "is more than 1202, the most layers of a densenet"),
        ("family=vgg,depth=40", {"model__stages": (1,) * 37}, "holds 37 stages; at most 32"),
        ("family=vit,depth=4", {"model__width": 2**28, "model__heads": 3}, "nearest that does: 2"),
        ("depth=8", {"norm__kind": "group", "norm__groups": 3, "model__width": 2**26}, "does: 2"),
    ):
        with pytest.raises(ValueError, match=message):
            recipe("digits", argument, check=True, **changes)


def test_any_stage_sizes_make_a_network():
    recipe(check=True, model__stages=(1, 2, 3, 1), model__depth=16)


def test_groups_that_do_not_divide_a_bottleneck_are_refused():
    changes = {"model__cardinality": 7, "model__depth": 29}
    with pytest.raises(ValueError, match="7 groups do not divide .* 512 to 512 .*: 8") as error:
        recipe("cifar10", "family=resnext", check=True, **changes)
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
    info = sources.DatasetInfo("cifar10", "", (32, 32, 3), 10, {"train": 50_000, "test": 10_000})
    config = recipe()
    image_data.check_fits(config, info)
    check_batches(config, "cifar10", 50_000)
    for changes, message in [
        ({"shape": (28, 28, 1)}, 'use --config.data.shape="(28, 28, 1)"'),
        ({"num_classes": 100}, "use --config.model.num_classes=100"),
    ]:
        with pytest.raises(ValueError) as error:
            image_data.check_fits(config, dataclasses.replace(info, **changes))
        assert message in str(error.value)
    for examples, message in [
        (100, "batch_size=128 is larger than the training split of cifar10, 100"),
        (1000, "chunk_steps=100 is more than an epoch of cifar10, 7 steps"),
    ]:
        with pytest.raises(ValueError) as error:
            check_batches(config, "cifar10", examples)
        assert message in str(error.value)


@pytest.mark.parametrize("changes", [{"batch_size": 64}, {"batch_size": 400}, {"batch_size": 1500}])
def test_another_batch_size_is_refused_once_with_a_chunk_that_works(changes, tmp_path):
    config = recipe("digits", "depth=8", **changes)
    with pytest.raises(ValueError, match="is more than an epoch of digits") as error:
        train.prepare(config, tmp_path / "run")
    advice = str(error.value).partition("--config.chunk_steps=")[2].partition(",")[0]
    config = config_file.override(config, {"chunk_steps": advice})
    assert train.prepare(config, tmp_path / "run") is not None


def test_two_spellings_cannot_make_two_networks():
    """The block is chosen in the argument alone, so that its skip always follows."""
    config = recipe("digits", "depth=56,block=preact_bottleneck", check=True)
    image = jax.ShapeDtypeStruct((1, 8, 8, 1), "float32")
    variables = jax.eval_shape(families.build(config).init, jax.random.key(0), image)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 590_138
    for key, value in (("model.block", "preact_bottleneck"), ("model.depth", "56")):
        with pytest.raises(ValueError, match=f"{key} is chosen in the config's argument, configs/"):
            config_file.override(recipe("digits", "depth=56"), {key: value})


def test_identity_names_what_differs_and_forgives_what_may_change():
    saved = configs.from_saved(json.loads(configs.to_json(recipe())))
    assert not configs.differences(recipe(), saved)
    assert not configs.differences(recipe(data__dir="/elsewhere", checkpoint_every=100), saved)
    assert not configs.differences(recipe(steps=70_000), saved)
    assert configs.differences(recipe(steps=60_000), saved) == [
        "steps is 64000 in that run and 60000 now (to keep it, set --config.steps=64000)"
    ]
    assert configs.differences(recipe(model__skip="none"), saved) == [
        "model.skip is A in that run and none now"
    ]


def test_a_schedule_that_ends_with_the_run_still_does_if_the_steps_are_overridden():
    load = lambda **overrides: config_file.load(
        f"{ROOT}/configs/cifar10.py:schedule=cosine", overrides
    )
    assert load().schedule.end == load().steps == 64_000
    assert load(steps="1000").schedule.end == 1000
    assert load(steps="1000", **{"schedule.end": "64000"}).schedule.end == 64_000


def test_the_gates_of_a_fixup_network_start_as_those_of_a_network_with_norms():
    """The network has no norms, but its kernels do not start by the rule for missing norms."""

    def deviations(block):
        config = recipe("digits", f"depth=8,block={block},merge=exclusive_gate", model__width=64)
        leaves = jax.tree_util.tree_leaves_with_path(resnet_jax.init(config)["params"])
        gates = {
            jax.tree_util.keystr(p): float(a.std())
            for p, a in leaves
            if "gate" in jax.tree_util.keystr(p)
        }
        return {path: std for path, std in gates.items() if "kernel" in path}

    fixup, normed = deviations("fixup_basic"), deviations("basic")
    assert fixup.keys() == normed.keys() and len(fixup) == 3
    for path, std in fixup.items():
        assert std == pytest.approx(normed[path], rel=0.1), path
