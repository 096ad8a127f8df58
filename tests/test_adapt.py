"""Weights as people have them: old names, prefixes, other classes and other image sizes."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from resnet_jax import convert, tensors, trained, weights
from resnet_jax.adapt import adapt, interpolated
from tests.in_process import command
from tests.recipes import recipe
from tests.smallest import altered, shapes
from tests.test_weights import FOLDER, VIT, fixture, numbers, same


@pytest.fixture(scope="module")
def config():
    return recipe("cifar10_akamaster", "depth=8", model__width=4)


@pytest.fixture(scope="module")
def kept(config):
    return weights.to_tensors(numbers(shapes(config)[1]), "akamaster", config)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "backbone.net."]
)
def test_a_prefix_of_all_names_is_taken_off_and_told(config, kept, prefix):
    wrapped = {prefix + name: tensor for name, tensor in kept.items()}
    adapted, notes = adapt(wrapped, "akamaster", config)
    same(adapted, kept)
    assert notes == [f"the prefix {prefix} of all names was taken off"]


def test_tensors_that_fit_stay_as_they_are(config, kept):
    adapted, notes = adapt(kept, "akamaster", config)
    same(adapted, kept)
    assert notes == []


def test_tensors_beside_a_wrapped_network_are_left_out_and_told(config, kept):
    wrapped = {f"model.{name}": tensor for name, tensor in kept.items()}
    beside = wrapped | {"criterion.weight": np.ones(3, np.float32)}
    adapted, notes = adapt(beside, "akamaster", config)
    same(adapted, kept)
    assert notes == ["the prefix model. was taken off; left out: criterion.weight"]
    # A detector's backbone has no classifier, or a head of another name.
    backbone = {
        f"backbone.{name}": tensor for name, tensor in kept.items() if not name.startswith("linear")
    }
    adapted, notes = adapt(backbone | {"head.weight": np.ones((3, 4))}, "akamaster", config, "new")
    assert notes[0] == "the prefix backbone. was taken off; left out: head.weight"
    same(
        {
            n: t
            for n, t in adapted.items()
            if n in kept and n not in ("linear.weight", "linear.bias")
        },
        {n: t for n, t in kept.items() if not n.startswith("linear")},
    )
    with pytest.raises(ValueError, match="use --new_head to start the classifier anew"):
        weights.from_tensors(adapt(backbone, "akamaster", config)[0], "akamaster", config)


def test_a_file_with_two_networks_is_refused(config, kept):
    both = {f"{p}.{n}": t for p in ("encoder_q", "encoder_k") for n, t in kept.items()}
    with pytest.raises(ValueError, match="network under each of encoder_q. and encoder_k.; keep o"):
        adapt(both, "akamaster", config)


def test_an_old_head_of_another_form_gives_way_to_a_new_head_and_a_deeper_network_does_not(
    config, kept
):
    other = {n: t for n, t in kept.items() if not n.startswith("linear.")}
    other |= {"linear.1.weight": kept["linear.weight"], "pre_logits.fc.bias": kept["linear.bias"]}
    adapted, notes = adapt(other, "akamaster", config, "new")
    assert notes[0] == "left out, as the old head's: linear.1.weight, pre_logits.fc.bias"
    weights.from_tensors(adapted, "akamaster", config)
    deeper = kept | {
        n.replace("layer3.0", "layer3.9"): t for n, t in kept.items() if "layer3.0" in n
    }
    adapted, _ = adapt(deeper, "akamaster", config, "new")
    with pytest.raises(ValueError, match="left over: layer3.9"):
        weights.from_tensors(adapted, "akamaster", config)


def test_a_prefix_that_is_not_the_networks_leaves_tensors_that_do_not_fit(config, kept):
    some = {f"module.{name}" if "conv" in name else f"other.{name}": a for name, a in kept.items()}
    adapted, notes = adapt(some, "akamaster", config)
    assert notes == []
    with pytest.raises(ValueError, match="7 missing: .*7 left over: module"):
        weights.from_tensors(adapted, "akamaster", config)


def test_torchvisions_first_names_of_a_densenet_are_todays():
    layout, config, today, *_ = fixture(FOLDER / "torchvision_densenet.safetensors")
    pattern = r"(denselayer\d+\.(?:norm|conv))([12]\.)"
    first = {re.sub(pattern, r"\1.\2", name): tensor for name, tensor in today.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in first
    same(adapt(first, layout, config)[0], today)


def test_torchvisions_first_names_of_a_transformer_are_todays():
    layout, config, today, *_ = fixture(VIT)
    first = {
        re.sub(r"mlp\.([03])\.", lambda m: f"mlp.linear_{1 + (m[1] == '3')}.", name): tensor
        for name, tensor in today.items()
    }
    assert "encoder.layers.encoder_layer_0.mlp.linear_2.bias" in first
    same(adapt(first, layout, config)[0], today)


@pytest.mark.parametrize("head", ["fit", "new"])
def test_a_head_for_other_classes_starts_as_a_run_of_the_seed_does(config, kept, head):
    other = altered(config, **{"model.num_classes": 3, "seed": 5})
    adapted, notes = adapt(kept, "akamaster", other, head)
    assert notes == ["linear.bias and linear.weight are drawn anew, for 3 outputs"]
    fresh = trained.init(other, seed=5)["params"]["head"]["dense"]
    imported = weights.from_tensors(adapted, "akamaster", other)
    jax.tree.map(np.testing.assert_array_equal, imported["params"]["head"]["dense"], fresh)
    body = lambda named: {name: a for name, a in named.items() if not name.startswith("linear.")}
    same(body(adapted), body(kept))


def test_a_head_that_fits_is_replaced_only_if_a_new_head_is_asked_for(config, kept):
    assert adapt(kept, "akamaster", config, "fit") == (kept, [])
    assert (
        adapt(kept, "akamaster", config, "new")[0]["linear.weight"] != kept["linear.weight"]
    ).all()


def test_the_last_layer_alone_of_a_head_of_three_starts_anew():
    layout, config, kept, *_ = fixture(FOLDER / "torchvision_vgg.safetensors")
    other = altered(config, **{"model.num_classes": 9})
    adapted, notes = adapt(kept, layout, other, "fit")
    assert notes == ["classifier.6.bias and classifier.6.weight are drawn anew, for 9 outputs"]
    weights.from_tensors(adapted, layout, other)


def test_positions_are_interpolated_to_the_images_grid():
    layout, config, kept, *_ = fixture(VIT)
    name, patch = "encoder.pos_embedding", config.model.patch
    for height, width in ((64, 64), (48, 32)):
        larger = altered(config, **{"data.shape": (height, width, 3)})
        adapted, (note,) = adapt(kept, layout, larger)
        tokens = 1 + height * width // patch**2
        assert adapted[name].shape == (1, tokens, kept[name].shape[2])
        assert note == f"{name} {kept[name].shape} was interpolated to {adapted[name].shape}"
        np.testing.assert_array_equal(adapted[name][:, 0], kept[name][:, 0])
        weights.from_tensors(adapted, layout, larger)


def test_as_many_positions_of_another_grid_stay_as_they_are():
    """What an export of a network for 2 x 8 patches wrote does not tell them from 4 x 4."""
    layout, config, kept, *_ = fixture(VIT)
    name, patch = "encoder.pos_embedding", config.model.patch
    tokens = kept[name].shape[1] - 1
    wide = altered(config, **{"data.shape": (patch, tokens * patch, 3)})
    adapted, notes = adapt(kept, layout, wide)
    np.testing.assert_array_equal(adapted[name], kept[name])
    assert notes == []


def test_interpolated_positions_keep_a_ramp():
    """Between the edges, a bicubic curve through points of a line is that line."""
    config = altered(recipe("imagenet", "family=vit,depth=1"), **{"data.shape": (384, 384, 3)})
    at = lambda n: (np.arange(n) + 0.5) / n
    ramp = np.repeat(at(14), 14)[None, :, None].astype(np.float32)
    moved = interpolated(np.concatenate([np.zeros((1, 1, 1), np.float32), ramp], 1), config)
    rows = moved[0, 1:, 0].reshape(24, 24)
    np.testing.assert_allclose(rows[3:-3], np.repeat(at(24), 24).reshape(24, 24)[3:-3], atol=1e-5)


def test_the_command_starts_a_head_anew_and_says_so(imported, tmp_path):
    _, _, file = imported
    recipe_file = Path(__file__).parent.parent / "configs" / "digits.py"
    words = ["--layout=akamaster", f"--import={file}", "--config.model.width=4"]
    words += [f"--config={recipe_file}:depth=14,skip=A_split"]
    done = command("convert", *words, "--new_head", f"--workdir={tmp_path}/new")
    assert "linear.bias and linear.weight are drawn anew, for 10 outputs" in done.out, done.err
    done = command("convert", *words, "--config.model.num_classes=3", f"--workdir={tmp_path}/fit")
    assert "drawn anew, for 3 outputs" in done.out, done.err
    done = command("convert", *words, "--config.model.num_classes=10", f"--workdir={tmp_path}/own")
    assert done.status == 0 and "drawn anew" not in done.out
    export = "--layout=akamaster", f"--export={tmp_path}/w.safetensors"
    done = command("convert", *export, "--new_head", f"--workdir={tmp_path}/own")
    assert done.refusal == "--new_head is for --import"
    done = command("convert", "--layout=torchvision", export[1], f"--workdir={tmp_path}/own")
    assert f"{tmp_path}/own is no network of that layout: " in done.refusal


def test_an_import_tells_what_it_changed_and_train_goes_on(imported, tmp_path):
    _, config, file = imported
    wrapped = {f"module.{name}": tensor for name, tensor in tensors.read(file).items()}
    tensors.write(tmp_path / "w.safetensors", wrapped)
    other = altered(config, **{"model.num_classes": 3})
    arguments = "akamaster", tmp_path / "w.safetensors", other, tmp_path / "run"
    notes = convert.import_weights(*arguments, head="fit")
    assert [note.split()[0] for note in notes] == ["the", "linear.bias"]
    run = trained.load(tmp_path / "run")
    assert run.step == 0 and run.config.model.num_classes == 3
