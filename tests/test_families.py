"""Every family from its config: the papers' counts, the variants, a training step, its program."""

import functools
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import config as configs
from resnet_jax import families
from resnet_jax.models import measure
from resnet_jax.models.resnet import BLOCKS, SHAPES, form_and_shape
from resnet_jax.training import state, step
from resnet_jax.training.optimizer import optimizer


def recipe(name, argument="", **changes):
    config = importlib.import_module(f"configs.{name}").get_config(argument)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    configs.check(config)
    return config


def shapes(config):
    """The network, its variables' shapes and its logits'."""
    net = families.build(config)
    x = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.float32)
    logits, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), x)
    return net, variables, logits


def parameters(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


# He et al.'s and Huang et al.'s tables where they have the digits, else torchvision's and timm's
# networks counted. The papers give others to a tenth of a million.
PUBLISHED = [
    ("imagenet", "depth=18", {}, 11_689_512),
    ("imagenet", "depth=34", {}, 21_797_672),
    ("imagenet", "depth=50", {}, 25_557_032),
    ("imagenet", "depth=101", {}, 44_549_160),
    ("imagenet", "depth=152", {}, 60_192_808),
    ("imagenet", "depth=50,block=preact_bottleneck", {}, 25_549_352),
    ("imagenet", "family=wide,depth=50", {}, 68_883_240),
    ("imagenet", "family=resnext,depth=50", {}, 25_028_904),
    ("imagenet", "family=alexnet", {}, 61_100_840),
    ("imagenet", "family=vgg,depth=11", {}, 132_863_336),
    ("imagenet", "family=vgg,depth=13", {}, 133_047_848),
    ("imagenet", "family=vgg,depth=16", {}, 138_357_544),
    ("imagenet", "family=vgg,depth=19", {}, 143_667_240),
    ("imagenet", "family=vgg_bn,depth=11", {}, 132_868_840),
    ("imagenet", "family=vgg_bn,depth=13", {}, 133_053_736),
    ("imagenet", "family=vgg_bn,depth=16", {}, 138_365_992),
    ("imagenet", "family=vgg_bn,depth=19", {}, 143_678_248),
    ("imagenet", "family=densenet,depth=121", {}, 7_978_856),
    slow("imagenet", "family=densenet,depth=161", {}, 28_681_000),
    slow("imagenet", "family=densenet,depth=169", {}, 14_149_480),
    slow("imagenet", "family=densenet,depth=201", {}, 20_013_928),
    ("cifar10", "depth=20", {}, 269_722),
    ("cifar10", "depth=32", {}, 464_154),
    ("cifar10", "depth=44", {}, 658_586),
    ("cifar10", "depth=56", {}, 853_018),
    ("cifar10", "depth=110", {}, 1_727_962),
    ("cifar10", "depth=1202", {}, 19_421_274),
    ("cifar10", "depth=164,block=preact_bottleneck", {}, 1_703_258),
    ("cifar10", "depth=1001,block=preact_bottleneck", {}, 10_327_706),
    ("cifar10", "depth=164,block=preact_bottleneck,skip=A", {}, 1_661_274),
    ("cifar10", "depth=1001,block=preact_bottleneck,skip=A", {}, 10_285_722),
    ("cifar10", "family=wide", {}, 36_479_194),
    ("cifar10", "family=resnext", {}, 34_426_698),
    ("cifar10", "family=densenet,depth=40", {}, 1_019_722),
    slow("cifar10", "family=densenet,depth=100,block=basic", {}, 6_979_642),
    slow("cifar10", "family=densenet,depth=100,block=basic", {"model__growth": 24}, 27_249_082),
    ("cifar10", "family=densenet,depth=100", {}, 769_162),
    slow("cifar10", "family=densenet,depth=250", {"model__growth": 24}, 15_324_406),
    slow("cifar10", "family=densenet,depth=190", {"model__growth": 40}, 25_624_430),
    ("imagenet", "family=vit,depth=12", {}, 86_567_656),
    ("imagenet", "family=vit,depth=12", {"model__patch": 32}, 88_224_232),
    ("imagenet", "family=vit,depth=24", {}, 304_326_632),
    ("imagenet", "family=vit,depth=24", {"model__patch": 32}, 306_535_400),
    ("imagenet", "family=vit,depth=32", {}, 632_045_800),
    ("mnist", "family=lenet", {}, 61_706),
]


@pytest.mark.parametrize("name,argument,changes,count", PUBLISHED)
def test_parameters_and_depth_are_the_published_networks(name, argument, changes, count):
    config = recipe(name, argument, **changes)
    net, variables, logits = shapes(config)
    assert parameters(variables) == count
    assert logits.shape == (1, config.model.num_classes)
    # The name of a small Wide ResNet counts two projections, a Vision Transformer's its layers of
    # four matrices each, without those of the patches and the classifier.
    depth, family = config.model.depth, config.model.family
    layers = {"family=wide": depth - 2}.get(argument, 4 * depth + 2 if family == "vit" else depth)
    assert measure.layers(net, variables["params"]) == layers


@pytest.mark.parametrize(
    "name,argument,blocks,identities",
    [
        ("cifar10", "depth=110", 54, 52),
        ("cifar10", "depth=110,skip=none", 54, 0),
        ("cifar10", "depth=110,skip=C", 54, 0),
        ("cifar10", "depth=110,block=single", 108, 106),
        ("cifar10", "depth=1001,block=preact_bottleneck", 333, 330),
        ("cifar10", "family=wide", 12, 9),
        ("cifar10", "family=resnext", 9, 6),
        ("cifar10", "family=highway", 18, 15),
        ("cifar10", "family=highway,skip=none", 18, 0),
        ("cifar10", "family=vgg,depth=19", 16, 0),
        ("cifar10", "family=densenet,depth=22", 9, 9),
        ("mnist", "family=highway,block=dense,depth=50", 50, 49),
        ("cifar10", "family=vit,depth=12", 24, 24),
        ("cifar10", "family=vit,depth=12,skip=none", 24, 0),
        ("imagenet", "depth=50", 16, 12),
    ],
)
def test_blocks_and_identity_skips_are_those_of_the_figure(name, argument, blocks, identities):
    config = recipe(name, argument)
    image = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.float32)
    counts = measure.count(families.build(config), image)[0]
    assert (counts.blocks, counts.identity_skips) == (blocks, identities)


FEW = {"model__num_classes": 3, "remat": "none"}
TINY = {"model__width": 4, **FEW}


@pytest.mark.parametrize(
    "family,block",
    # Fixup has no plain twin: bodies that start at zero would pass nothing on.
    [("resnet", block) for block in BLOCKS if form_and_shape(block)[0] != "fixup"]
    + [("wide", "preact_basic"), ("wide", "bottleneck"), ("resnext", "bottleneck")],
)
def test_a_plain_twin_has_option_as_parameters_in_every_form_and_shape(family, block):
    layers = 3 * SHAPES[form_and_shape(block)[1]]
    argument = f"family={family},block={block},depth={layers + (4 if family == 'wide' else 2)}"
    twin, option_a = (
        shapes(recipe("digits", f"{argument},skip={skip}", model__stages=(2, 1), **changes))
        for skip in ("none", "A")
        for changes in [TINY | {"model__width": 8}]
    )
    assert twin[1]["params"] == option_a[1]["params"]
    assert measure.layers(option_a[0], option_a[1]["params"]) == layers + 2


# He et al. 2016, Tables 1 and 2; each one value beside the depth. (Some name the block.)
VARIANTS = [
    *({"model__gains": gains} for gains in ((0.0, 1.0), (0.5, 1.0), (0.5, 0.5))),
    {"model__merge": "exclusive_gate"},
    {"model__merge": "shortcut_gate"},
    {"model__skip": "C"},
    {"model__skip_dropout": 0.5},
    {"model__merge": "two_gate"},
    {"model__merge": "rezero"},
    *({"model__merge": form} for form in families.drop.FORMS),
    {"norm__kind": "none"},
    {"norm__kind": "layer"},
    {"norm__kind": "group", "norm__groups": 2},
    *({"model__block": f"{form}_basic"} for form in ("norm_after", "relu_before", "relu_preact")),
    *({"model__block": f"{form}_basic"} for form in ("preact", "fixup")),
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_every_variant_is_one_value_at_any_depth(changes):
    for argument in ("depth=56", "depth=110", "family=ladder,depth=66"):
        families.build(recipe("cifar10", argument, **changes))
    config = recipe("digits", "depth=8", **TINY, **changes)
    net, variables, logits = shapes(config)
    assert measure.layers(net, variables["params"]) == 8 and logits.shape == (1, 3)


def test_a_gates_bias_reaches_the_network():
    bias = -3.5
    config = recipe(
        "digits", "depth=8", model__merge="exclusive_gate", model__gate_bias=bias, **TINY
    )
    net, x = families.build(config), jnp.ones((1, 8, 8, 1))
    biases = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            jax.jit(net.init)(jax.random.key(0), x)["params"]
        )
        if "gate" in jax.tree_util.keystr(path) and path[-1].key == "bias"
    ]
    assert len(biases) == 3 and all((b == bias).all() for b in biases)


# Of every family one network of few layers and channels.
NARROW = [
    # Its first kernels move in the third step, from bodies and a classifier that start at zero.
    (
        "family=resnet,depth=6,block=fixup_basic",
        {"model__stages": (1, 1), "optimizer__learning_rate": 0.5, **TINY},
        (8, 8, 1),
    ),
    slow(
        "family=resnet,depth=5,block=relu_preact_single", {"norm__kind": "layer", **TINY}, (8, 8, 1)
    ),
    (
        "family=ladder,depth=8,block=preact_basic",
        {"model__stages": (2, 1), "model__merge": "drop_path", "model__skip_dropout": 0.1, **TINY},
        (8, 8, 1),
    ),
    ("family=wide,depth=8", {"model__stages": (1, 1), "model__widen": 2, **TINY}, (8, 8, 1)),
    (
        "family=resnext,depth=5",
        {"model__stages": (1,), "model__widen": 2, "model__cardinality": 4, **TINY},
        (8, 8, 1),
    ),
    ("family=vgg,depth=6", {"model__stages": (2, 1), **TINY}, (8, 8, 1)),
    ("family=vgg_bn,depth=5,skip=B", {"model__stages": (1, 1), **TINY}, (8, 8, 1)),
    ("family=lenet", {}, (12, 12, 1)),
    ("family=alexnet", TINY, (15, 15, 1)),
    ("family=highway,depth=5", {"norm__kind": "batch", **TINY}, (8, 8, 1)),
    ("family=highway,depth=4,block=dense", TINY, (8, 8, 1)),
    (
        "family=densenet,depth=5,block=basic",
        {"model__stages": (1, 1), "model__growth": 4, **FEW},
        (8, 8, 1),
    ),
    (
        "family=densenet,depth=6,block=bottleneck",
        {"model__stages": (2,), "model__growth": 4, "model__dropout": 0.2, **FEW},
        (8, 8, 1),
    ),
    (
        "family=vit,depth=2",
        {"model__width": 8, "model__dropout": 0.1, "model__merge": "drop_path", **FEW},
        (8, 8, 1),
    ),
]


def training(config, examples=6):
    """The first state, and one step on a batch, as the loop puts them together."""
    net, optim = families.build(config), optimizer(config)
    shape = tuple(config.data.shape)
    prepare = lambda key, batch: batch.image.astype(jnp.float32) / 255
    one = functools.partial(
        step.train_step, axis=None, apply=net.apply, prepare=prepare, optimizer=optim
    )
    rng = np.random.default_rng(0)
    batch = step.Batch(
        jnp.asarray(rng.integers(0, 255, (examples, *shape)), jnp.uint8),
        jnp.arange(examples, dtype=jnp.int32) % 3,
        jnp.arange(examples, dtype=jnp.int32),
        jnp.ones(examples, bool),
    )
    return functools.partial(state.create, 0, net, shape, optim), one, batch


@pytest.mark.parametrize("argument,changes,shape", NARROW)
def test_every_family_trains(argument, changes, shape):
    changes = {"optimizer__weight_decay": 0.0, "optimizer__learning_rate": 0.05} | changes
    config = recipe("digits", argument, data__shape=shape, **changes)
    create, one, batch = training(config)

    @jax.jit
    def run():
        first = create()
        last, sums = jax.lax.scan(lambda s, _: one(s, batch), first, None, length=4)
        return first.params, last, sums["loss"]

    before, last, losses = run()
    assert last.step == 4 and np.isfinite(losses).all() and losses[-1] < 2 * losses[0] + 1
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(last.params), strict=True):
        assert a.dtype == jnp.float32 and np.isfinite(b).all()
    kernels = [
        bool((a != b).any())
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(last.params), strict=True
        )
        if path[-1].key == "kernel"
    ]
    assert kernels and all(kernels)  # no kernel is left without a gradient


@pytest.mark.parametrize("argument,changes,shape", NARROW)
def test_parameters_and_logits_are_float32_where_activations_are_bfloat16(argument, changes, shape):
    config = recipe("digits", argument, data__shape=shape, dtype="bfloat16", **changes)
    create, one, batch = training(config)
    program, kept = jax.make_jaxpr(one, return_shape=True)(jax.eval_shape(create), batch)
    last, sums = kept
    kept = jax.tree.leaves((last.params, last.batch_stats, sums))
    assert {a.dtype for a in kept} == {jnp.dtype("float32")}
    assert "bf16" in str(program)


def equations(jaxpr):
    inner = (p for e in jaxpr.eqns for p in jax.tree.leaves(list(e.params.values())))
    return len(jaxpr.eqns) + sum(equations(p) for p in inner if hasattr(p, "eqns"))


@pytest.mark.parametrize(
    "argument,depths,changes",
    [
        ("family=resnet,block=preact_bottleneck", (29, 1001), {"model__merge": "drop_path"}),
        ("family=resnet,block=fixup_basic", (14, 110), {}),
        ("family=ladder", (18, 1202), {"model__merge": "exclusive_gate"}),
        ("family=wide", (16, 40), {"model__widen": 2}),
        ("family=resnext", (29, 164), {"model__width": 8}),
        ("family=vgg_bn,skip=A", (19, 34), {"model__width": 2}),
        ("family=highway", (19, 100), {}),
        ("family=highway,block=dense", (10, 900), {}),
        ("family=vit", (4, 1000), {"model__merge": "drop_path"}),
    ],
)
def test_the_program_of_a_training_step_is_as_long_at_any_depth(argument, depths, changes):
    lengths = []
    for depth in depths:
        config = recipe("digits", f"{argument},depth={depth}", remat="none", **changes)
        create, one, batch = training(config)
        lengths.append(equations(jax.make_jaxpr(one)(jax.eval_shape(create), batch)))
    assert lengths[0] == lengths[1] > 100


@pytest.mark.parametrize(
    "argument,changes",
    [
        ("depth=111", {}),
        ("depth=3,block=single", {}),
        ("depth=1000,block=preact_bottleneck", {}),
        ("family=ladder,depth=19", {}),
        ("family=ladder,depth=5000", {}),
        ("family=wide,depth=29", {}),
        ("family=wide,depth=1", {}),
        ("family=resnext,depth=30", {}),
        ("family=vgg,depth=12", {}),
        ("family=vgg_bn,depth=35", {}),
        ("family=vgg,depth=1", {}),
        ("family=highway,depth=3", {}),
        ("family=highway,depth=1,block=dense", {}),
        ("family=densenet,depth=41", {}),
        ("family=vit,depth=0", {}),
        ("family=densenet,depth=99,block=bottleneck", {}),
        ("imagenet:depth=35", {}),
        ("imagenet:depth=20,block=basic", {}),
        ("imagenet:depth=50,block=basic", {}),
        ("imagenet:family=wide,depth=28", {}),
        ("imagenet:family=resnext", {}),
        ("imagenet:family=densenet,depth=122", {}),
    ],
)
def test_a_depth_that_does_not_exist_is_refused_with_two_that_do(argument, changes):
    name, _, argument = argument.rpartition(":")
    with pytest.raises(ValueError, match=r"nearest \d+ and \d+$") as error:
        recipe(name or "cifar10", argument, **changes)
    assert "\n" not in str(error.value)
    near = re.findall(r"\d+", str(error.value).split("nearest ")[1])
    rest = [part for part in argument.split(",") if not part.startswith("depth")]
    for depth in near:
        recipe(name or "cifar10", ",".join([*rest, f"depth={depth}"]), **changes)


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize("key", ["block", "skip", "merge"])
def test_what_a_family_has_not_is_refused_with_what_it_has(family, key):
    has = families.FAMILIES[family]
    known = {"block": has.blocks, "skip": has.skips, "merge": has.merges}[key]
    others = {value for value in configs.CHOICES[f"model.{key}"] if value not in known}
    for value in sorted(others):
        with pytest.raises(ValueError, match=f"model.{key}='{value}' is not of") as error:
            recipe("mnist", f"family={family}", **{f"model__{key}": value})
        message = str(error.value)
        assert "\n" not in message and family in message and ", ".join(known) in message


@pytest.mark.parametrize(
    "argument,smallest",
    [
        ("family=lenet", 12),
        ("family=alexnet", 15),
        ("depth=8", 4),
        ("family=wide,depth=10", 4),
        ("family=densenet,depth=10", 4),
        ("family=highway,depth=4", 4),
        ("family=vgg", 1),
    ],
)
def test_images_too_small_for_the_strides_are_refused_and_the_next_larger_have_logits(
    argument, smallest
):
    shape = (smallest, smallest + 3, 3)
    assert shapes(recipe("cifar10", argument, data__shape=shape))[2].shape == (1, 10)
    if smallest > 1:
        for shape in ((smallest - 1, smallest, 3), (smallest, smallest - 1, 3)):
            with pytest.raises(ValueError, match="too small for") as error:
                recipe("cifar10", argument, data__shape=shape)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [8, 28, 32, 224])
def test_vgg_takes_images_of_every_data_set(size):
    config = recipe("cifar10", "family=vgg", data__shape=(size, size, 3), model__width=4)
    _, _, logits = shapes(config)
    assert logits.shape == (1, 10)


@pytest.mark.parametrize(
    "argument,changes,says",
    [
        ("depth=20", {"model__survival": 0.3}, "model.survival=0.3 changes nothing in the family"),
        ("depth=20", {"model__cardinality": 2}, "model.cardinality=2 changes nothing"),
        ("family=highway", {"model__stages": (1, 1, 1)}, "leave it at ()"),
        ("family=vgg,skip=A", {"model__skip_dropout": 0.5}, "model.skip_dropout=0.5 changes"),
        ("family=densenet", {"model__zero_init": True}, "model.zero_init=True changes nothing"),
        ("family=lenet", {"norm__kind": "batch"}, "norm.kind='batch' is not of the family lenet"),
        ("depth=20,block=fixup_basic", {"model__zero_init": True}, "changes nothing"),
        ("depth=20,block=fixup_basic", {"norm__kind": "group"}, "norm.kind=group changes nothing"),
        ("depth=20", {"model__patch": 4}, "model.patch=4 changes nothing in the family resnet"),
        ("family=vgg", {"model__heads": 3}, "model.heads=3 changes nothing in the family vgg"),
        ("family=vit", {"model__stages": (1, 2)}, "model.stages=(1, 2) changes nothing in the"),
        ("family=vit", {"model__skip_dropout": 0.1}, "model.skip_dropout=0.1 changes nothing"),
        ("family=vit", {"norm__kind": "batch"}, "norm.kind='batch' is not of the family vit"),
    ],
)
def test_a_value_that_would_change_nothing_is_refused(argument, changes, says):
    with pytest.raises(ValueError) as error:
        recipe("cifar10", argument, **changes)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("merge", ["exclusive_gate", "rezero", "drop_path"])
def test_a_plain_twin_keeps_its_residual_nets_other_values(merge):
    changes = {"model__merge": merge, "model__gate_bias": -1.0, "model__skip_dropout": 0.5}
    twin = recipe("cifar10", "depth=8,skip=none", **changes)
    assert parameters(shapes(twin)[1]) == parameters(shapes(recipe("cifar10", "depth=8"))[1])


@pytest.mark.parametrize(
    "argument,changes",
    [
        ("depth=8,skip=none", {"model__zero_init": True}),
        ("depth=8,block=fixup_basic,skip=none", {}),
    ],
)
def test_a_network_that_passes_nothing_on_is_refused(argument, changes):
    with pytest.raises(ValueError, match="pass nothing on and learn nothing"):
        recipe("cifar10", argument, **changes)


@pytest.mark.parametrize(
    "changes,says",
    [
        ({"model__patch": 5}, "model.patch=5 does not divide images of 32x32 pixels; .*: 4"),
        ({"model__patch": 64}, "model.patch=64 does not divide images of 32x32 .*: 32"),
        ({"data__shape": (32, 24, 3), "model__patch": 16}, "images of 32x24 pixels; .*: 8"),
        ({"model__heads": 5}, "model.heads=5 does not divide model.width=64; .*: 4"),
        ({"model__width": 66}, "model.heads=4 does not divide model.width=66; .*: 3"),
    ],
)
def test_patches_and_heads_that_do_not_divide_are_refused_with_what_does(changes, says):
    with pytest.raises(ValueError, match=says) as error:
        recipe("cifar10", "family=vit", **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("merge", families.MERGES)
def test_a_vision_transformer_takes_every_merge_and_its_plain_twin_none(merge):
    """Of width 64: two norms, four matrices with biases, a gate or a gain at each of two blocks."""
    gate = 64 * 64 + 64
    own = {"rezero": 2, "exclusive_gate": 2 * gate, "shortcut_gate": 2 * gate, "two_gate": 4 * gate}
    layer = 2 * 2 * 64 + 12 * 64 * 64 + 9 * 64
    rest = (4 * 4 * 3 + 1) * 64 + (1 + 1 + 64) * 64 + 2 * 64 + 65 * 10
    residual, twin = (
        parameters(shapes(recipe("cifar10", f"family=vit,depth=3,{skip}", model__merge=merge))[1])
        for skip in ("skip=A", "skip=none")
    )
    assert twin == 3 * layer + rest
    assert residual == twin + 3 * own.get(merge, 0)


def test_a_vision_transformer_without_norms_has_none():
    normed, bare = (
        parameters(shapes(recipe("cifar10", "family=vit", norm__kind=kind))[1])
        for kind in ("layer", "none")
    )
    assert normed - bare == (2 * 12 + 1) * 2 * 64


def test_fixup_is_one_network_with_or_without_a_norm_to_leave_out():
    start = lambda kind: families.build(
        recipe("cifar10", "depth=8,block=fixup_basic", norm__kind=kind, model__width=4)
    ).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    jax.tree.map(np.testing.assert_array_equal, start("batch"), start("none"))
