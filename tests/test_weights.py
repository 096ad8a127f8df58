"""Another library's weights give that library's logits, and come back as they were."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

from resnet_jax import config as configs
from resnet_jax import families, layouts, tensors, weights
from resnet_jax.tasks import classification, image_data, image_inputs
from tests.recipes import recipe
from tests.smallest import altered, shapes, smallest

FOLDER = Path(__file__).parent / "fixtures"
FIXTURES = sorted(FOLDER.glob("*.safetensors"))
VIT = FOLDER / "torchvision_vit.safetensors"
BASIC, BOTTLENECK = (FOLDER / f"torchvision_{kind}.safetensors" for kind in ("basic", "bottleneck"))


def fixture(path):
    """Return the layout, config, weights, input (NHWC) and logits that make_fixtures.py wrote.

    The metadata hold a config file's argument and the values that differ from it. The depth may be
    among these values; the preset is still that of the argument's depth.
    """
    with safetensors.safe_open(path, "numpy") as file:
        about = file.metadata()
    name, _, argument = about["config"].partition(":")
    changes = configs.flatten(json.loads(about["changes"]))
    config = altered(recipe(name, argument), **changes)
    arrays = tensors.read(path)
    kept = {k.removeprefix("weights."): v for k, v in arrays.items() if k.startswith("weights.")}
    return about["layout"], config, kept, arrays["input"].transpose(0, 2, 3, 1), arrays["logits"]


def numbers(variables):
    """Return random numbers in the shapes of a network's variables."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), variables)


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], strict=True)


@pytest.mark.parametrize("path", FIXTURES, ids=[p.stem for p in FIXTURES])
def test_imported_weights_give_the_logits_of_pytorch_and_are_exported_bit_for_bit(path):
    layout, config, kept, image, logits = fixture(path)
    configs.check(config)
    variables = weights.from_tensors(kept, layout, config)
    ours = jax.jit(families.build(config).apply)(variables, jnp.asarray(image))
    assert np.abs(ours - logits).max() <= 1e-4 * np.abs(logits).max()
    same(weights.to_tensors(variables, layout, config), kept)


@pytest.mark.parametrize("path", [FIXTURES[0], VIT], ids=["akamaster", "vit"])
def test_an_import_does_not_depend_on_how_the_network_is_compiled(path):
    layout, config, kept, *_ = fixture(path)
    plain = weights.from_tensors(kept, layout, config)
    for unroll, remat in ((1, "none"), (3, "block"), (1, "sqrt")):
        other = altered(config, unroll=unroll, remat=remat)
        imported = weights.from_tensors(kept, layout, other)
        jax.tree.map(np.testing.assert_array_equal, imported, plain)


LAYOUTS = [
    (family, block, layout)
    for family, part in families.FAMILIES.items()
    for layout in part.layouts
    for block in layout.blocks
    if block in part.switches["block"].parts
]


@pytest.mark.parametrize(
    "family,block,layout", LAYOUTS, ids=[f"{f}-{b}-{row.library}" for f, b, row in LAYOUTS]
)
def test_an_import_of_an_export_is_the_same_in_every_layout_of_every_family(family, block, layout):
    large = {"side": 64, "channels": 3}
    values = layout.values(smallest(family, f"block={block}", **large))
    config = smallest(family, f"block={block}", **large, **values)
    variables = numbers(shapes(config)[1])
    exported = weights.to_tensors(variables, layout.library, config)
    leaves = jax.tree.leaves_with_path(variables)
    layers = lambda path, leaf: leaf.shape[0] if "layers" in jax.tree_util.keystr(path) else 1
    assert len(exported) == sum(layers(path, leaf) for path, leaf in leaves)
    assert sum(a.size for a in exported.values()) == sum(leaf.size for _, leaf in leaves)
    imported = weights.from_tensors(exported, layout.library, config)
    jax.tree.map(np.testing.assert_array_equal, imported, variables)


@pytest.mark.parametrize(
    "argument,changes",
    [
        ("depth=34", {}),
        ("depth=50", {"model__stride_at": "3x3"}),
        pytest.param("depth=152", {"model__stride_at": "3x3"}, marks=pytest.mark.slow),
    ],
)
def test_timm_gives_a_resnet_the_names_of_torchvision(argument, changes):
    config = recipe("imagenet", argument, data__shape=(64, 64, 3), **changes)
    zeros = jax.tree.map(lambda a: np.broadcast_to(np.float32(0), a.shape), shapes(config)[1])
    torchvision = weights.to_tensors(zeros, "torchvision", config)
    assert torchvision.keys() == weights.to_tensors(zeros, "timm", config).keys()


def small(**changes):
    return recipe("cifar10_akamaster", "depth=14", model__width=4, **changes)


@pytest.fixture(scope="module")
def kept():
    config = small()
    return weights.to_tensors(numbers(shapes(config)[1]), "akamaster", config)


def refused(kept, config, layout="akamaster"):
    with pytest.raises(ValueError) as error:
        weights.from_tensors(kept, layout, config)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700
    return str(error.value)


def test_another_number_of_transformer_layers_is_refused_with_the_depth_that_fits():
    layout, config, kept, *_ = fixture(VIT)
    for depth in (2, 12):
        message = refused(kept, altered(config, **{"model.depth": depth}), layout)
        assert message.endswith("the file's network has 3 layers: choose depth=3")


def test_positions_of_an_image_of_another_size_are_named():
    layout, config, kept, *_ = fixture(VIT)
    message = refused(kept, altered(config, **{"data.shape": (64, 64, 3)}), layout)
    assert "encoder.pos_embedding (1, 17, 12), not (1, 65, 12)" in message


def test_another_depth_is_refused_with_the_depth_that_fits(kept):
    shorter, longer = small(model__depth=8), small(model__depth=110)
    assert "30 left over: layer1.1." in refused(kept, shorter)
    message = refused(kept, longer)
    assert "480 missing: layer1.2." in message and "and 476 more" in message
    for message in (refused(kept, shorter), refused(kept, longer)):
        assert message.endswith("the file's stages have (2, 2, 2) blocks: choose depth=14")


def test_stages_of_no_published_network_are_named_with_the_depth():
    layout, config, kept, *_ = fixture(BASIC)
    assert layout == "torchvision"
    stages = tuple(config.model.stages)
    values = {"model.stages": (), "model.depth": 18, "data.shape": (64, 64, 3)}
    message = refused(kept, altered(config, **values), layout)
    depth = 2 * sum(stages) + 2
    assert message.endswith(f'choose depth={depth} and --config.model.stages="{stages}"')


def test_other_blocks_are_not_mistaken_for_another_depth():
    layout, config, *_ = fixture(BASIC)
    _, _, bottlenecks, *_ = fixture(BOTTLENECK)
    assert "--config" not in refused(bottlenecks, config, layout)


def test_another_number_of_classes_is_refused_with_the_number_that_fits(kept):
    message = refused(kept, small(model__num_classes=100))
    assert "linear.weight (10, 16), not (100, 16)" in message
    assert message.endswith("; use --new_head, or --config.model.num_classes=10")


def test_a_task_without_classes_is_advised_no_number_of_classes(kept):
    arguments = "depth=14,skip=A_split,task=reconstruction"
    config = recipe("cifar10", arguments, model__width=4, data__shape=(8, 8, 3))
    message = refused(kept, config)
    assert "linear.weight (10, 16), not (192, 16)" in message and "--config" not in message


def test_tensors_that_are_left_over_missing_or_of_another_shape_are_named(kept):
    other = dict(kept) | {"extra.weight": np.zeros((2, 3), np.float32)}
    other["bn1.bias"] = np.zeros(7, np.float32)
    del other["layer2.0.conv1.weight"]
    message = refused(other, small())
    assert "1 missing: layer2.0.conv1.weight (8, 4, 3, 3)" in message
    assert "1 left over: extra.weight (2, 3)" in message
    assert "1 of another shape: bn1.bias (7,), not (4,)" in message
    assert "use --config" not in message


@pytest.mark.parametrize(
    "layout,name,changes,says",
    [
        ("keras", "imagenet:depth=50", {}, "'keras' is not one of torchvision, timm, akamaster"),
        (
            "torchvision",
            "imagenet:depth=50",
            {},
            "have model.stride_at=3x3, not 1x1; use --config.model.stride_at=3x3",
        ),
        ("torchvision", "cifar10:depth=20", {}, "use skip=B --config.model.stem=7x7"),
        ("akamaster", "cifar10:depth=20", {}, "have model.skip=A_split, not A; use skip=A_split"),
        ("akamaster", "cifar10:depth=20,skip=A_split,merge=rezero", {}, "use merge=add"),
        (
            "akamaster",
            "cifar10:depth=164,block=bottleneck",
            {},
            "has no resnet of bottleneck blocks, but resnet of basic",
        ),
        ("torchvision", "mnist:family=lenet", {}, "has no lenet of single blocks, but resnet of b"),
        ("torchvision", "imagenet:family=vit,skip=none", {}, "not none; use skip=A"),
        ("torchvision", "cifar10:family=vgg", {}, 'use --config.data.shape="(224, 224, 3)"'),
        ("timm", "imagenet:family=vit", {"model__width": 384}, "heads=6, not 12; use --config."),
        ("timm", "imagenet:family=vit", {"norm__epsilon": 1e-5}, "--config.norm.epsilon=1e-06"),
        ("timm", "imagenet:depth=18", {"norm__epsilon": 1e-3}, "use --config.norm.epsilon=1e-05"),
    ],
)
def test_a_network_that_a_library_lacks_is_refused_with_those_it_has(layout, name, changes, says):
    name, _, argument = name.partition(":")
    with pytest.raises(ValueError) as error:
        layouts.rows(layout, recipe(name, argument, **changes))
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.skipif("RESNET_JAX_DATA" not in os.environ, reason="RESNET_JAX_DATA is not set")
@pytest.mark.parametrize("depth,wrong", [(20, 1897), (32, 1744)])
def test_trained_weights_give_pytorchs_logits_and_errors(tmp_path, depth, wrong):
    from resnet_jax import convert, evaluate, trained
    from resnet_jax.data import sources

    data = Path(os.environ["RESNET_JAX_DATA"])
    file = data.parent / "weights" / f"akamaster_resnet{depth}.safetensors"
    if not file.exists():
        pytest.skip(f"there is no {file}")
    changes = {"data__name": "cifar10_jpeg", "data__dir": str(data)}
    config = recipe("cifar10_akamaster", f"depth={depth}", **changes)
    try:
        sources.info(config.data.name, config.data.dir)
    except ValueError as error:
        pytest.skip(str(error))
    convert.import_weights("akamaster", file, config, tmp_path / "run")
    run = trained.load(tmp_path / "run")
    statistics, dataset = trained.statistics(run), image_data.dataset(run.config)
    batch = classification.unlabelled(jnp.asarray(dataset.test.input[:64]))
    image = image_inputs.prepare(run.config, statistics)(None, batch).input
    logits = np.load(file.with_name(f"akamaster_resnet{depth}_logits.npy"))
    ours = run.net.apply(run.variables, image)
    assert np.abs(ours - logits).max() <= 1e-4 * np.abs(logits).max()
    measured = evaluate.evaluate(run, dataset, statistics)
    assert measured["examples"] == 10_000
    # Of 10,000 images; another decoder or backend may change the class of an image at the border.
    assert abs(measured["error"] - wrong / 10_000) <= 3e-4
