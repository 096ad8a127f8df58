"""Other libraries' weights compute what they compute there, and come back as they were."""

import importlib
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
from resnet_jax.data import normalise, sources

FOLDER = Path(__file__).parent / "fixtures"
FIXTURES = sorted(FOLDER.glob("*.safetensors"))
VIT = FOLDER / "torchvision_vit.safetensors"
BASIC, BOTTLENECK = (FOLDER / f"torchvision_{kind}.safetensors" for kind in ("basic", "bottleneck"))


def recipe(name, **changes):
    file, _, argument = name.partition(":")
    config = importlib.import_module(f"configs.{file}").get_config(argument)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def fixture(path):
    """Layout, config, weights, input (NHWC) and logits; scripts/make_fixtures.py wrote them."""
    with safetensors.safe_open(path, "numpy") as file:
        about = file.metadata()
    config = recipe(about["config"], **configs.flatten(json.loads(about["changes"])))
    found = tensors.read(path)
    kept = {k.removeprefix("weights."): v for k, v in found.items() if k.startswith("weights.")}
    return about["layout"], config, kept, found["input"].transpose(0, 2, 3, 1), found["logits"]


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], strict=True)


@pytest.mark.parametrize("path", FIXTURES, ids=[p.stem for p in FIXTURES])
def test_imported_weights_give_the_logits_that_pytorch_gives(path):
    layout, config, kept, image, logits = fixture(path)
    configs.check(config)
    variables = weights.from_tensors(kept, layout, config)
    ours = jax.jit(families.build(config).apply)(variables, jnp.asarray(image))
    assert np.abs(ours - logits).max() <= 1e-4 * np.abs(logits).max()


@pytest.mark.parametrize("path", FIXTURES, ids=[p.stem for p in FIXTURES])
def test_an_export_of_an_import_is_the_same_bit_for_bit(path):
    layout, config, kept, *_ = fixture(path)
    variables = weights.from_tensors(kept, layout, config)
    same(weights.to_tensors(variables, layout, config), kept)


@pytest.mark.parametrize("path", [FIXTURES[0], VIT], ids=["akamaster", "vit"])
def test_how_a_network_is_compiled_does_not_change_its_import(path):
    layout, config, kept, *_ = fixture(path)
    plain = weights.from_tensors(kept, layout, config)
    for unroll, remat in ((1, "none"), (3, "block"), (1, "sqrt")):
        config.unroll, config.remat = unroll, remat
        jax.tree.map(
            np.testing.assert_array_equal, weights.from_tensors(kept, layout, config), plain
        )


@pytest.mark.parametrize(
    "name,changes",
    [
        ("imagenet:depth=18", {}),
        ("imagenet:depth=34", {}),
        ("imagenet:depth=50", {"model__stride_at": "3x3"}),
        ("imagenet:depth=152", {"model__stride_at": "3x3"}),
    ],
)
def test_timm_calls_a_resnet_what_torchvision_calls_it(name, changes):
    config = recipe(name, **changes)
    shapes = jax.eval_shape(
        families.build(config).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
    )
    zeros = jax.tree.map(lambda a: np.broadcast_to(np.float32(0), a.shape), shapes)
    found = weights.to_tensors(zeros, "torchvision", config)
    assert found.keys() == weights.to_tensors(zeros, "timm", config).keys()
    assert len(found) == sum(
        leaf.shape[0] if "layers" in jax.tree_util.keystr(path) else 1
        for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]
    )
    assert sum(a.size for a in found.values()) == sum(a.size for a in jax.tree.leaves(shapes))


def small(**changes):
    return recipe("cifar10_akamaster:depth=14", model__width=4, **changes)


@pytest.fixture(scope="module")
def kept():
    config = small()
    variables = jax.jit(families.build(config).init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    return weights.to_tensors(variables, "akamaster", config)


def refused(kept, config, layout="akamaster"):
    with pytest.raises(ValueError) as error:
        weights.from_tensors(kept, layout, config)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700
    return str(error.value)


def test_another_number_of_transformer_layers_is_refused_with_the_one_that_fits():
    layout, config, kept, *_ = fixture(VIT)
    for depth in (2, 12):
        config.model.depth = depth
        message = refused(kept, config, layout)
        assert message.endswith("the file's network has 3 layers: use --config.model.depth=3")


def test_positions_of_an_image_of_another_size_are_named():
    layout, config, kept, *_ = fixture(VIT)
    config.data.shape = (64, 64, 3)
    message = refused(kept, config, layout)
    assert "encoder.pos_embedding (1, 17, 12), not (1, 65, 12)" in message


def test_another_depth_is_refused_with_the_depth_that_fits(kept):
    shorter, longer = small(model__depth=8), small(model__depth=110)
    assert "30 left over: layer1.1." in refused(kept, shorter)
    message = refused(kept, longer)
    assert "480 missing: layer1.2." in message and "and 476 more" in message
    for message in (refused(kept, shorter), refused(kept, longer)):
        assert "the file's stages have (2, 2, 2) blocks: use" in message
        assert message.endswith("use --config.model.depth=14")


def test_stages_that_no_paper_has_are_named_with_the_depth():
    layout, config, kept, *_ = fixture(BASIC)
    assert layout == "torchvision"
    found = tuple(config.model.stages)
    config.model.stages, config.model.depth, config.data.shape = (), 18, (64, 64, 3)
    values = f'--config.model.stages="{found}" --config.model.depth={2 * sum(found) + 2}'
    assert refused(kept, config, layout).endswith(values)


def test_other_blocks_are_not_taken_for_another_depth():
    layout, config, *_ = fixture(BASIC)
    _, _, bottlenecks, *_ = fixture(BOTTLENECK)
    assert "--config" not in refused(bottlenecks, config, layout)


def test_another_number_of_classes_is_refused_with_the_one_that_fits(kept):
    message = refused(kept, small(model__num_classes=100))
    assert "linear.weight (10, 16), not (100, 16)" in message
    assert message.endswith("use --config.model.num_classes=10")


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
        ("torchvision", "cifar10:depth=20", {}, "--config.model.skip=B --config.model.stem=7x7"),
        ("akamaster", "cifar10:depth=20", {}, "use --config.model.skip=A_split"),
        (
            "akamaster",
            "cifar10:depth=164,block=bottleneck",
            {},
            "has no resnet of bottleneck blocks, but resnet of basic",
        ),
        ("torchvision", "imagenet:family=vit,skip=none", {}, "use --config.model.skip=A"),
        ("timm", "imagenet:family=vit", {"model__width": 384}, "heads=6, not 12; use --config."),
        ("timm", "imagenet:family=vit", {"norm__epsilon": 1e-5}, "--config.norm.epsilon=1e-06"),
        ("timm", "imagenet:depth=18", {"norm__epsilon": 1e-3}, "use --config.norm.epsilon=1e-05"),
    ],
)
def test_a_network_that_a_library_has_not_is_refused_with_what_it_has(layout, name, changes, says):
    with pytest.raises(ValueError) as error:
        layouts.rows(layout, recipe(name, **changes))
    assert says in str(error.value)


@pytest.mark.slow
@pytest.mark.skipif("RESNET_JAX_DATA" not in os.environ, reason="RESNET_JAX_DATA is not set")
@pytest.mark.parametrize("depth,wrong", [(20, 1897), (32, 1744)])
def test_trained_weights_give_pytorchs_logits_and_errors(tmp_path, depth, wrong):
    from resnet_jax import convert, evaluate, trained
    from resnet_jax.training import inputs

    data = Path(os.environ["RESNET_JAX_DATA"])
    file = data.parent / "weights" / f"akamaster_resnet{depth}.safetensors"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    changes = {"data__name": "cifar10_jpeg", "data__dir": str(data)}
    config = recipe(f"cifar10_akamaster:depth={depth}", **changes)
    try:
        sources.info(config.data.name, config.data.dir)
    except ValueError as error:
        pytest.skip(str(error))
    convert.import_weights("akamaster", file, config, tmp_path / "run")
    run = trained.load(tmp_path / "run")
    normalisation, dataset = trained.normalisation(run), inputs.dataset(run.config)
    image = normalise.apply(normalisation, jnp.asarray(dataset.test.images[:64]))
    variables = {"params": run.state.params, "batch_stats": run.state.batch_stats}
    logits = np.load(file.with_name(f"akamaster_resnet{depth}_logits.npy"))
    ours = run.net.apply(variables, image)
    assert np.abs(ours - logits).max() <= 1e-4 * np.abs(logits).max()
    found = evaluate.evaluate(run, dataset, normalisation)
    assert found["examples"] == 10_000
    # Of 10,000; another decoder or backend may move an image that lies on the border.
    assert abs(found["error"] - wrong / 10_000) <= 3e-4
