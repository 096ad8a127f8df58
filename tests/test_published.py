"""The networks of the papers, from their configs: parameters, depth, blocks, variants."""

import pytest

from resnet_jax import families
from resnet_jax.models import measure
from resnet_jax.models.family import SKIPS
from resnet_jax.models.merges import RESIDUAL_MERGES, Gated, plain
from resnet_jax.models.residual import Residual
from resnet_jax.models.skips import identity
from resnet_jax.models.stages import BLOCKS, SHAPES, form_and_shape, resnet_stages
from tests.recipes import recipe
from tests.smallest import parameters, shapes, weighted_layers


def slow(*case):
    return pytest.param(*case, marks=pytest.mark.slow)


# The highways' are the paper's 2.3M, 151K and 39K (arXiv:1507.06228, Tables 1 and 2).
# Counts of He et al.'s and Huang et al.'s tables if they have all digits, else counts of
# torchvision's and timm's networks. The papers give the others in tenths of a million.
PUBLISHED = [
    ("imagenet", "depth=18", {}, 11_689_512),
    slow("imagenet", "depth=34", {}, 21_797_672),
    ("imagenet", "depth=50", {}, 25_557_032),
    slow("imagenet", "depth=101", {}, 44_549_160),
    ("imagenet", "depth=152", {}, 60_192_808),
    ("imagenet", "depth=50,block=preact_bottleneck", {}, 25_549_352),
    ("imagenet", "family=wide,depth=50", {}, 68_883_240),
    ("imagenet", "family=resnext,depth=50", {}, 25_028_904),
    ("imagenet", "family=alexnet", {}, 61_100_840),
    ("imagenet", "family=vgg,depth=11", {}, 132_863_336),
    slow("imagenet", "family=vgg,depth=13", {}, 133_047_848),
    slow("imagenet", "family=vgg,depth=16", {}, 138_357_544),
    ("imagenet", "family=vgg,depth=19", {}, 143_667_240),
    slow("imagenet", "family=vgg_bn,depth=11", {}, 132_868_840),
    slow("imagenet", "family=vgg_bn,depth=13", {}, 133_053_736),
    ("imagenet", "family=vgg_bn,depth=16", {}, 138_365_992),
    ("imagenet", "family=vgg_bn,depth=19", {}, 143_678_248),
    ("imagenet", "family=densenet,depth=121", {}, 7_978_856),
    slow("imagenet", "family=densenet,depth=161", {}, 28_681_000),
    slow("imagenet", "family=densenet,depth=169", {}, 14_149_480),
    slow("imagenet", "family=densenet,depth=201", {}, 20_013_928),
    ("cifar10", "depth=20", {}, 269_722),
    slow("cifar10", "depth=32", {}, 464_154),
    slow("cifar10", "depth=44", {}, 658_586),
    ("cifar10", "depth=56", {}, 853_018),
    ("cifar10", "depth=110", {}, 1_727_962),
    ("cifar10", "depth=1202", {}, 19_421_274),
    slow("cifar10", "depth=164,block=preact_bottleneck", {}, 1_703_258),
    ("cifar10", "depth=1001,block=preact_bottleneck", {}, 10_327_706),
    ("cifar10", "depth=164,block=preact_bottleneck,skip=A", {}, 1_661_274),
    slow("cifar10", "depth=1001,block=preact_bottleneck,skip=A", {}, 10_285_722),
    ("cifar10", "family=wide", {}, 36_479_194),
    # github.com/xternalz/WideResNet-pytorch and others count these networks, too.
    ("cifar10", "family=wide,depth=16", {"model__widen": 8}, 10_961_370),
    slow("cifar10", "family=wide,depth=40", {"model__widen": 4}, 8_949_210),
    ("cifar10", "family=highway,block=pooled,depth=19", {}, 2_256_838),
    ("mnist", "family=highway,block=pooled,depth=10", {}, 151_690),
    ("mnist", "family=highway,block=pooled,depth=10", {"model__width": 16}, 38_986),
    ("cifar10", "family=resnext", {}, 34_426_698),
    ("cifar10", "family=densenet,depth=40", {}, 1_019_722),
    slow("cifar10", "family=densenet,depth=100,block=basic", {}, 6_979_642),
    slow("cifar10", "family=densenet,depth=100,block=basic", {"model__growth": 24}, 27_249_082),
    slow("cifar10", "family=densenet,depth=100", {}, 769_162),
    slow("cifar10", "family=densenet,depth=250", {"model__growth": 24}, 15_324_406),
    slow("cifar10", "family=densenet,depth=190", {"model__growth": 40}, 25_624_430),
    ("imagenet", "family=vit,depth=12", {}, 86_567_656),
    ("imagenet", "family=vit,depth=12", {"model__patch": 32}, 88_224_232),
    slow("imagenet", "family=vit,depth=24", {}, 304_326_632),
    slow("imagenet", "family=vit,depth=24", {"model__patch": 32}, 306_535_400),
    ("imagenet", "family=vit,depth=32", {}, 632_045_800),
    ("mnist", "family=lenet", {}, 61_706),
]


@pytest.mark.parametrize("name,argument,changes,count", PUBLISHED)
def test_parameters_and_depth_are_the_published_networks(name, argument, changes, count):
    config = recipe(name, argument, **changes)
    net, variables, logits = shapes(config)
    assert parameters(variables) == count
    assert logits.shape == (1, config.model.num_classes)
    assert measure.layers(net, variables["params"]) == weighted_layers(config)


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
    net = families.build(recipe(name, argument, check=True))
    counted = [(m, times) for m, times in measure.modules(net) if isinstance(m, Residual)]
    assert sum(times for _, times in counted) == blocks
    kept = lambda block: block.skip is identity and block.merge is not plain
    assert sum(times for block, times in counted if kept(block)) == identities


TINY = {"model__width": 4, "model__num_classes": 3}


@pytest.mark.parametrize(
    "family,block",
    # Fixup has no plain twin: bodies that start at zero would pass nothing on.
    [("resnet", block) for block in BLOCKS if form_and_shape(block)[0] != "fixup"]
    + [("wide", "preact_basic"), ("wide", "bottleneck"), ("resnext", "bottleneck")],
)
def test_a_plain_twin_has_the_parameters_of_option_a_in_every_form_and_shape(family, block):
    layers = 3 * SHAPES[form_and_shape(block)[1]]
    argument = f"family={family},block={block},depth={layers + (4 if family == 'wide' else 2)}"
    changes = TINY | {"model__width": 8, "model__stages": (2, 1)}
    twin, option_a = (
        shapes(recipe("digits", f"{argument},skip={skip}", **changes)) for skip in ("none", "A")
    )
    assert twin[1]["params"] == option_a[1]["params"]
    assert measure.layers(option_a[0], option_a[1]["params"]) == layers + 2


def test_blocks_of_one_to_four_convolutions_have_the_same_depths_and_parameters():
    rows = ("single", "basic", "triple", "quadruple")
    for depth in (38, 74, 110):
        blocks = [sum(resnet_stages(depth, block, 32)) for block in rows]
        assert blocks == [depth - 2, (depth - 2) // 2, (depth - 2) // 3, (depth - 2) // 4]
    networks = [shapes(recipe("digits", f"depth=38,block={block}", **TINY))[1] for block in rows]
    assert len({parameters(network) for network in networks}) == 1


# He et al. 2016, Tables 1 and 2; each is one value beside the depth.
VARIANTS = [
    *({"model__gains": gains} for gains in ((0.0, 1.0), (0.5, 1.0), (0.5, 0.5))),
    *({"model__merge": merge} for merge in RESIDUAL_MERGES if merge != "add"),
    *({"model__skip": skip} for skip in SKIPS),
    {"model__skip_dropout": 0.5},
    {"norm__kind": "none"},
    {"norm__kind": "layer"},
    {"norm__kind": "group", "norm__groups": 2},
    *({"model__block": block} for block in BLOCKS if form_and_shape(block)[1] == "basic"),
]


@pytest.mark.parametrize(
    "changes", VARIANTS, ids=lambda changes: "-".join(map(str, changes.values()))
)
def test_every_variant_is_one_value_at_any_depth(changes):
    for argument in ("depth=56", "depth=110", "family=ladder,depth=66"):
        families.build(recipe("cifar10", argument, **changes))
    config = recipe("digits", "depth=8", check=True, **TINY, **changes)
    net, variables, logits = shapes(config)
    assert measure.layers(net, variables["params"]) == 8 and logits.shape == (1, 3)


def test_the_bias_of_a_gate_reaches_every_block():
    config = recipe("digits", "depth=8,merge=exclusive_gate", model__gate_bias=-3.5)
    modules = measure.modules(families.build(config))
    assert [m.transform_bias for m, _ in modules if isinstance(m, Gated)] == [-3.5] * 3


GATE = 64 * 64 + 64


@pytest.mark.parametrize(
    "merge,own",
    [
        *(("add", 0), ("rezero", 1), ("drop_path", 0), ("stochastic_depth", 0)),
        *(("exclusive_gate", GATE), ("shortcut_gate", GATE), ("two_gate", 2 * GATE)),
    ],
)
def test_a_vision_transformer_has_the_parameters_of_its_merges_and_its_plain_twin_none(merge, own):
    """Each layer of width 64 has two norms, four matrices with biases, and two merges."""
    layer = 2 * 2 * 64 + 12 * 64 * 64 + 9 * 64
    rest = (4 * 4 * 3 + 1) * 64 + (1 + 1 + 64) * 64 + 2 * 64 + 65 * 10
    residual, twin = (
        parameters(shapes(recipe("cifar10", f"family=vit,depth=3,skip={skip},merge={merge}"))[1])
        for skip in ("A", "none")
    )
    assert twin == 3 * layer + rest
    assert residual == twin + 3 * 2 * own


def test_a_vision_transformer_without_norms_has_none():
    normed, bare = (
        parameters(shapes(recipe("cifar10", f"family=vit,norm={norm}"))[1])
        for norm in ("layer", "none")
    )
    assert normed - bare == (2 * 12 + 1) * 2 * 64


@pytest.mark.parametrize("merge", ["exclusive_gate", "rezero", "drop_path"])
def test_a_plain_twin_keeps_the_other_values_of_its_residual_network(merge):
    changes = {"model__skip_dropout": 0.5}
    changes |= {"model__gate_bias": -1.0} if merge == "exclusive_gate" else {}
    twin = recipe("cifar10", f"depth=8,skip=none,merge={merge}", check=True, **changes)
    assert parameters(shapes(twin)[1]) == parameters(shapes(recipe("cifar10", "depth=8"))[1])


@pytest.mark.parametrize("size", [8, 28, 32, 224])
def test_vgg_takes_images_of_every_data_set(size):
    shape = (size, size, 3)
    config = recipe("cifar10", "family=vgg", check=True, data__shape=shape, model__width=4)
    assert shapes(config)[2].shape == (1, 10)
