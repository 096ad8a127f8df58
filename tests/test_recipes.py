"""Recipes: the page says what the files say, and a recipe takes the networks of its paper alone."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from resnet_jax import config as configs
from resnet_jax import config_file, families
from resnet_jax.choices import ArgumentError
from resnet_jax.models import measure
from resnet_jax.training.optimizer import optimizer
from resnet_jax.training.schedule import schedule
from scripts import recipes

ROOT = Path(__file__).parent.parent
FOUND = {name: (config, source) for name, config, source in recipes.recipes()}


def load(name, argument="", **overrides):
    flat = {key.replace("__", "."): str(value) for key, value in overrides.items()}
    return config_file.load(f"{ROOT}/configs/{name}:{argument}", flat)


STALE = "run python scripts/recipes.py"
# Recipes whose default networks are quick to trace.
QUICK = ("cifar10.py", "imagenet_torchvision.py", "imagenet_vit.py", "mnist_highway_dense.py")
DURATION = r"less than a minute|[\d.]+ (minutes|hours|days)"


def test_the_page_is_made_from_the_files(monkeypatch):
    """Its estimates have tests of their own, because every network is traced for them."""
    monkeypatch.setattr(recipes, "expected", lambda config: "1 minutes")
    masked = lambda text: re.sub(DURATION, "DURATION", text)
    assert masked(recipes.PAGE.read_text("utf-8")) == masked(recipes.page()), STALE


def test_the_page_says_what_default_networks_are_expected_to_cost():
    sections = recipes.PAGE.read_text("utf-8").split("\n## ")
    for name in QUICK:
        section = next(text for text in sections if text.startswith(f"`{name}`"))
        expected = recipes.expected(FOUND[name][0])
        assert re.fullmatch(DURATION, expected)
        says = f"The default network is expected to take {expected} on an H200."
        assert says in section, STALE


@pytest.mark.slow
def test_the_page_is_made_from_the_files_with_all_estimates():
    assert recipes.PAGE.read_text("utf-8") == recipes.page(), STALE


def measured_steps():
    """Yield the network, batch and milliseconds of each of our steps that an H200 measured."""
    for row in json.loads(recipes.STEPS.read_text("utf-8"))["rows"]:
        if row["program"] == "ours" and row["step_ms"]:
            yield row["net"], row["batch"], row["step_ms"]
    sweep = recipes.STEPS.with_name("depth_sweep_H200.json")
    for row in json.loads(sweep.read_text("utf-8"))["rows"]:
        if row["program"] == "scan" and row["depth"] == 1202:
            yield "resnet1202", 128, row["step_ms"]


def test_the_estimate_of_every_measured_step_is_within_the_factor_that_the_page_gives():
    over_estimate = {}
    for net, batch, milliseconds in measured_steps():
        file = "imagenet_torchvision.py" if net == "resnet50" else "cifar10.py"
        config = load(file, f"depth={net.removeprefix('resnet')}", batch_size=batch)
        over_estimate[net, batch] = milliseconds / 1e3 / recipes.step_seconds(config)
    assert {("resnet20", 128), ("resnet110", 1024), ("resnet1202", 128)} <= over_estimate.keys()
    for step, factor in over_estimate.items():
        assert 1 / recipes.FACTOR < factor < recipes.FACTOR, step
    for step in recipes.MEASURED:
        assert over_estimate[step] == pytest.approx(1, rel=1e-6)


def test_an_estimate_counts_as_measure_does():
    for name in ("cifar10.py", "imagenet_vit.py", "mnist_highway_dense.py"):
        config = FOUND[name][0]
        image = jax.ShapeDtypeStruct((1, *config.data.shape), np.float32)
        counts, _ = measure.count(families.build(config), image)
        assert recipes.count(config) == (counts.layers, counts.macs)


def test_every_recipe_of_a_paper_says_where_it_comes_from():
    assert set(recipes.without_source()) == {
        "adding.py", "cifar10_any.py", "digits.py", "mnist.py", "reconstruction.py",
    }  # fmt: skip
    for name, (_, source) in FOUND.items():
        assert source.published and source.paper and source.networks, name


@pytest.mark.parametrize(
    "name,argument,says",
    [
        (
            "cifar10.py",
            "family=vgg",
            "does not train model.family=vgg: it is the recipe of He et al. ",
        ),
        ("cifar10.py", "family=wide", "recipes for it: {configs}/cifar10_wide.py; for any network"),
        ("cifar10.py", "block=fixup_basic", "recipes for it: {configs}/cifar10_fixup.py; for any"),
        (
            "cifar10.py",
            "merge=rezero",
            "for any network: {configs}/cifar10_any.py, a config file of",
        ),
        (
            "cifar10_preact.py",
            "norm=group",
            "does not train norm.kind=group: it is the recipe of He",
        ),
        (
            "cifar10_fixup.py",
            "block=basic",
            "which is for model.family=resnet, model.block=fixup_b",
        ),
        (
            "cifar10_highway.py",
            "depth=10",
            "does not train model.depth=10: it is the recipe of Sriv",
        ),
        ("cifar10_stochastic_depth.py", "merge=rezero", "does not train model.merge=rezero: it is"),
        (
            "imagenet.py",
            "depth=34",
            "it: {configs}/imagenet_18_34.py, {configs}/imagenet_torchvision",
        ),
    ],
)
def test_another_papers_network_is_refused_with_the_recipes_that_take_it(name, argument, says):
    other = load(name, argument)  # it may be described, and its weights may be imported
    with pytest.raises(ArgumentError) as error:
        config_file.refuse_other_networks(f"{ROOT}/configs/{name}", other)
    assert says.format(configs=ROOT / "configs") in str(error.value)
    assert "\n" not in str(error.value)
    assert config_file.load(f"{ROOT}/configs/cifar10_any.py:family=vgg").model.family == "vgg"


@pytest.mark.parametrize("name", FOUND)
def test_every_published_error_is_of_a_network_that_the_command_line_names(name):
    source = FOUND[name][1]
    rows = [(row.argument, *row.words()) for row in source.published]
    assert len(set(rows)) == len(rows), "two errors of one network"
    for row in source.published:
        config = load(name, row.argument, **row.changes)
        assert not list(source.misfits(config)), row
        flat = configs.flatten(config)
        assert {key: flat[key] for key in row.changes} == dict(row.changes)


# Steps of an epoch, and the rate in an epoch, as the papers say (docs/recipes.md has the sources).
CIFAR = 50_000 / 128
RATES = [
    ("cifar10.py", "depth=20", 1, {31_999: 0.1, 32_000: 0.01, 47_999: 0.01, 48_000: 0.001}),
    ("cifar10.py", "", 1, {0: 0.01, 399: 0.01, 400: 0.1, 63_999: 0.001}),
    ("cifar10_preact.py", "depth=110,block=basic", 1, {0: 0.01, 400: 0.1, 32_000: 0.01}),
    ("cifar10_preact_batch64.py", "", 50_000 / 64, {80.9: 0.1, 81: 0.01, 122: 0.001}),
    ("cifar10_wide.py", "", CIFAR, {59.9: 0.1, 60: 0.02, 120: 0.004, 160: 0.0008}),
    ("cifar10_densenet.py", "", 50_000 / 64, {149.9: 0.1, 150: 0.01, 225: 0.001}),
    ("cifar10_resnext.py", "", CIFAR, {149.9: 0.1, 150: 0.01, 225: 0.001, 299: 0.001}),
    ("cifar10_fixup.py", "", CIFAR, {99.9: 0.1, 100: 0.01, 150: 0.001, 199: 0.001}),
    ("cifar10_stochastic_depth.py", "", 45_000 / 128, {0: 0.1, 249.9: 0.1, 250: 0.01, 375: 1e-3}),
    (
        "cifar10_stochastic_depth.py",
        "depth=1202",
        45_000 / 128,
        {9.9: 0.01, 10: 0.1, 149.9: 0.1, 150: 0.01, 225: 0.001, 299: 0.001},
    ),
    (
        "cifar10_highway.py",
        "",
        1,
        {99_999: 0.025, 100_000: 0.0025, 150_000: 2.5e-4, 175_000: 2.5e-5},
    ),
    ("mnist_highway.py", "", 1, {59_999: 0.01, 60_000: 1e-3, 120_000: 1e-4, 179_999: 1e-4}),
    ("imagenet.py", "", 1, {149_999: 0.1, 150_000: 0.01, 300_000: 0.001}),
    ("imagenet_densenet.py", "", 1_281_167 / 256, {29.9: 0.1, 30: 0.01, 60: 0.001}),
    ("imagenet_vit.py", "", 1, {0: 0.0, 5_000: 0.0015, 10_000: 0.003, 93_835: 0.0}),
    ("imagenet_18_34.py", "", 1, {149_999: 0.1, 150_000: 0.01, 300_000: 0.001}),
    ("imagenet_alexnet.py", "", 1_281_167 / 128, {44.9: 0.01, 45: 1e-3, 67.5: 1e-4, 78.75: 1e-5}),
    ("imagenet_vgg.py", "", 1, {184_999: 0.01, 185_000: 1e-3, 277_500: 1e-4, 323_750: 1e-5}),
    ("imagenet_torchvision.py", "", 1_281_167 / 256, {29.9: 0.1, 30: 0.01, 60: 0.001}),
    ("cifar100.py", "", 1, {0: 0.01, 400: 0.1, 32_000: 0.01, 48_000: 0.001}),
    ("cifar10_akamaster.py", "depth=110", CIFAR, {0: 0.01, 1: 0.1, 100: 0.01, 150: 0.001}),
    ("svhn_stochastic_depth.py", "", 598_388 / 128, {29.9: 0.1, 30: 0.01, 35: 0.001}),
    ("svhn_wide.py", "", 604_388 / 128, {79.9: 0.01, 80: 0.001, 120: 0.0001}),
    ("mnist_highway_dense.py", "", 600, {0: 0.01, 1: 0.0098, 2: 0.009604}),
]


def test_every_recipe_of_a_paper_has_its_rates_tested():
    assert {name for name, *_ in RATES} == set(FOUND)


@pytest.mark.parametrize("name,argument,epoch,rates", RATES)
def test_the_rate_is_the_papers_on_both_sides_of_every_boundary(name, argument, epoch, rates):
    rate = schedule(load(name, argument))
    for at, expected in rates.items():
        # A boundary is the whole step nearest to its epoch.
        assert float(rate(round(at * epoch))) == pytest.approx(expected, rel=1e-5), at
    boundaries = configs.flatten(load(name, argument)).get("schedule.boundaries", ())
    for step in boundaries:
        drop = float(rate(step)) / float(rate(step - 1))
        assert drop == pytest.approx(load(name, argument).schedule.factor, rel=1e-5)


def kinds(config):
    """Return a parameter of each kind of the recipe's network, of 2 x 3 random numbers."""
    paths = flatten_dict(families.shapes(config)["params"])
    each = {re.sub(r"\d+", "#", "/".join(path)): path for path in paths}
    random = np.random.default_rng(0)
    return {path: random.normal(size=(2, 3)) for path in each.values()}


def multiples(config, path):
    """Return the multiples of the rate and of the decay, as docs/recipes.md says them."""
    for pattern, rate, decay in config.optimizer.groups:
        if re.fullmatch(pattern, path):
            return rate, decay
    every = config.optimizer.decay == "all" and not path.endswith("gate/bias")
    return 1.0, 1.0 if every or path.endswith("/kernel") else 0.0


@pytest.mark.parametrize("name", FOUND)
def test_ten_updates_of_every_recipe_are_those_of_its_optimizer_written_out(name):
    config, keys = FOUND[name][0], FOUND[name][0].optimizer
    p, optim, rate = kinds(config), optimizer(config), schedule(config)
    random = np.random.default_rng(1)
    grads = [{path: random.normal(size=(2, 3)) for path in p} for _ in range(10)]
    with jax.enable_x64(True):
        found, state = unflatten_dict(p), optim.init(unflatten_dict(p))
        update = jax.jit(lambda g, state, p: optim.update(g, state, p))
        for g in grads:
            steps, state = update(unflatten_dict(g), state, found)
            found = jax.device_get(optax.apply_updates(found, steps))

    m, v = ({path: 0.0 for path in p} for _ in range(2))
    for t, g in enumerate(grads):
        norm = np.sqrt(sum((a**2).sum() for a in g.values()))
        scale = min(1.0, keys.clip_norm / norm) if keys.clip_norm else 1.0
        for path in p:
            of_rate, of_decay = multiples(config, "/".join(path))
            a, decay = scale * g[path], keys.weight_decay * of_decay * p[path]
            if keys.name == "sgd":
                m[path] = keys.momentum * m[path] + a + decay
                step = a + decay + keys.momentum * m[path] if keys.nesterov else m[path]
            else:
                assert keys.name == "adamw"
                m[path] = keys.beta1 * m[path] + (1 - keys.beta1) * a
                v[path] = keys.beta2 * v[path] + (1 - keys.beta2) * a**2
                root = np.sqrt(v[path] / (1 - keys.beta2 ** (t + 1)))
                step = m[path] / (1 - keys.beta1 ** (t + 1)) / (root + keys.epsilon) + decay
            p[path] = p[path] - of_rate * float(rate(t)) * step
    for path, value in flatten_dict(found).items():
        np.testing.assert_allclose(value, p[path], rtol=1e-6, atol=1e-7, err_msg=str(path))


def test_what_a_recipe_is_about():
    """The values without which a recipe would not be its paper's."""
    wide, depth = load("cifar10_wide.py"), load("cifar10_stochastic_depth.py")
    assert (wide.optimizer.weight_decay, wide.optimizer.nesterov, wide.model.widen) == (
        5e-4,
        True,
        10,
    )
    assert (depth.data.validation, depth.model.skip, depth.model.survival) == (5_000, "A_pool", 0.5)
    assert load("cifar10_densenet.py").batch_size == 64
    assert load("svhn_wide.py").model.widen == 8 and depth.model.fan == "in"
    of_code = load("cifar10_preact_batch64.py")
    assert of_code.optimizer.nesterov and of_code.optimizer.decay == "all"
    assert load("cifar10.py").optimizer.decay == "kernels"
    assert load("cifar10_akamaster.py").data.padding == "black"
    assert load("imagenet_18_34.py", "skip=none").model.skip == "none"
    assert load("mnist_highway_dense.py", "depth=50").model.gate_start == "he"
    assert load("cifar10_fixup.py").data.mixup == 1.0
