"""Networks count what the papers say, and the command says it."""

import functools
import json
from pathlib import Path
from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from resnet_jax import describe, families, memory
from resnet_jax.models import measure
from resnet_jax.models.merges import Scaled, plain
from resnet_jax.models.residual import Chain, Remat, Residual, Stack
from tests.in_process import command
from tests.recipes import recipe

CONFIGS = Path(__file__).parent.parent / "configs"


def counts(name, argument, **changes):
    config = recipe(name, argument, **changes)
    x = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.float32)
    return measure.count(families.build(config), x)[0]


def slow(*values):
    """Return a row of the tables below that only `make test-slow` counts."""
    return pytest.param(*values, marks=pytest.mark.slow)


# He et al. 2015, Table 6 and sec. 4.2 (0.27, 0.46, 0.66, 0.85, 1.7, 19.4 M parameters); macs as
# counted by others for the same nets. Of the identity skips two (A, B) or three are lost to the
# stages' first blocks.
CIFAR = [
    ("depth=20", 20, 9, 7, 269_722, 40_551_040),
    slow("depth=20,skip=A_split", 20, 9, 7, 269_722, 40_551_040),
    slow("depth=20,skip=B", 20, 9, 7, None, None),
    ("depth=20,skip=C", 20, 9, 0, None, None),
    ("depth=20,skip=none", 20, 9, 0, 269_722, 40_551_040),
    slow("depth=56", 56, 27, 25, 853_018, 125_485_696),
    ("depth=110", 110, 54, 52, 1_727_962, 252_887_680),
    ("depth=1202", 1202, 600, 598, 19_421_274, 2_829_238_912),
    ("depth=20,block=preact_basic", 20, 9, 7, None, 40_551_040),
    ("depth=29,block=bottleneck", 29, 9, 6, None, None),
    ("depth=164,block=preact_bottleneck", 164, 54, 51, None, None),
    slow("depth=164,block=preact_bottleneck,skip=none", 164, 54, 0, None, None),
    ("family=ladder,depth=18", 18, 8, 6, None, None),
    slow("family=ladder,depth=1026", 1026, 512, 510, None, None),
]


@pytest.mark.parametrize("argument,layers,blocks,identity,parameters,macs", CIFAR)
def test_cifar_networks_count_as_published(argument, layers, blocks, identity, parameters, macs):
    counted = counts("cifar10", argument)
    assert counted[:3] == (layers, blocks, identity)
    assert parameters is None or counted.parameters == parameters
    assert macs is None or counted.macs == macs


# Multiply-adds with the stride on the 3x3, as torchvision's `_ops`: 1.814, 3.664, 4.089 G; on the
# 1x1 He et al. 2015, Table 1: 3.8e9.
IMAGENET = [
    ("depth=18", None, 18, 8, 5, 11_689_512, 1.814),
    slow("depth=34", None, 34, 16, 13, 21_797_672, 3.664),
    ("depth=50", "3x3", 50, 16, 12, 25_557_032, 4.089),
    ("depth=50", "1x1", 50, 16, 12, 25_557_032, 3.858),
]


@pytest.mark.parametrize("argument,stride,layers,blocks,identity,parameters,giga", IMAGENET)
def test_imagenet_networks_count_as_published(
    argument, stride, layers, blocks, identity, parameters, giga
):
    changes = {"model__stride_at": stride} if stride else {}
    counted = counts("imagenet", argument, **changes)
    assert counted[:4] == (layers, blocks, identity, parameters)
    assert round(counted.macs / 1e9, 3) == giga


def test_a_vision_transformer_counts_its_products_as_worked_out_by_hand():
    """ViT-B/16, 17.564 G as torchvision's `_ops`: matrices and the two products of attention."""
    patches, width, tokens = 14 * 14, 768, 14 * 14 + 1
    matrices = width * 3 * width + width * width + 2 * width * 4 * width
    scores, mixed = tokens * tokens * width, tokens * tokens * width  # all heads together
    layer = tokens * matrices + scores + mixed
    expected = patches * (16 * 16 * 3) * width + 12 * layer + width * 1000
    counted = counts("imagenet", "family=vit,depth=12")
    assert counted.macs == expected == 17_563_828_224
    assert counted[:3] == (1 + 12 * 4 + 1, 24, 24)


class Gated(nn.Module):
    """A merge and a skip that own weights, which are no layers."""

    @nn.compact
    def __call__(self, s, f=0.0, z=None):
        return nn.Dense(3)(s) + f


@pytest.mark.parametrize("tied", [False, True])
def test_layers_lie_on_the_longest_path_of_any_fold(tied):
    two = nn.Sequential([nn.Dense(3), nn.relu, nn.Dense(3)])
    inner = Chain({"a": Residual(two), "b": Residual(nn.Dense(3), Gated(), Gated())})
    net = Chain({"first": nn.Dense(3), "rest": Stack(Residual(Stack(inner, 5)), 4, tied=tied)})
    counted, y = measure.count(net, jax.ShapeDtypeStruct((7, 2), jnp.float32))
    assert y.shape == (7, 3)
    assert counted.layers == 1 + 4 * 5 * 3
    assert counted.blocks == 4 * (1 + 5 * 2)
    assert counted.identity_skips == 4 * (1 + 5)
    assert counted.macs == 7 * (2 * 3 + 4 * 5 * 5 * 9)
    assert counted.parameters == 9 + (1 if tied else 4) * 5 * 5 * 12


def test_scaled_skips_count_and_plain_ones_do_not():
    x = jax.ShapeDtypeStruct((1, 3), jnp.float32)
    skips = lambda merge: measure.count(Stack(Residual(jnp.sin, merge=merge), 4), x)[0][2]
    assert (skips(Scaled(0.5)), skips(plain)) == (4, 0)


def test_products_are_counted_in_all_that_a_function_calls():
    x = jnp.ones((2, 3))
    dot = lambda y: y @ jnp.ones((3, 3))
    both = lambda y: jax.lax.cond(y.sum() > 0, lambda y: dot(dot(y)), dot, y)
    wrapped = jax.jit(jax.checkpoint(both))
    assert measure.macs(jax.make_jaxpr(dot)(x)) == 18
    assert measure.macs(jax.make_jaxpr(wrapped)(x)) == 36


def test_held_bytes_leave_parameters_and_inputs_out():
    w, x = jnp.ones(5), jnp.ones(5)
    # The gradient of sum(w x) needs w and x alone, that of sin(w x) also cos(w x).
    assert measure.held_bytes(lambda w, x: (w * x).sum(), w, x) == 0
    assert measure.held_bytes(lambda w, x: jnp.sin(w * x).sum(), w, x) == 5 * 4


def one_stage(blocks, **values):
    """Return a network of 16 channels of 8x8, as cheap to trace and to compile as can be."""
    sizes = {"model__stages": (blocks,), "model__depth": 2 * blocks + 2, "batch_size": 8}
    return recipe("digits", **(sizes | {"remat": "block"} | values))


@functools.cache
def held(blocks, **values):
    return memory.activation_bytes(one_stage(blocks, **values))


@pytest.mark.parametrize("remat", ["none", "block"])
def test_activations_grow_by_as_much_with_every_block_and_example(remat):
    first, second, third = (held(blocks, remat=remat) for blocks in (2, 3, 4))
    assert second - first == third - second > 0
    assert abs(held(2, remat=remat, batch_size=16) / first - 2) < 0.05


def test_blocks_inputs_alone_are_kept_under_block_remat():
    image = 8 * 8 * 8 * 16 * 4
    assert held(3) - held(2) == image
    assert held(3, remat="none") - held(2, remat="none") > 4 * image


def test_activations_of_half_the_precision_are_half_as_large():
    assert 0.5 <= held(4, dtype="bfloat16") / held(4) < 0.6


# The words of a command line that describes `one_stage(2)`.
SMALL = (f"--config={CONFIGS}/digits.py:depth=6", "--config.model.stages=(2,)")
SMALL += ("--config.batch_size=8", "--config.remat=block")


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Return what the command prints of a small network, and what it writes as JSON."""
    file = tmp_path_factory.mktemp("describe") / "described.json"
    done = command("describe", *SMALL, f"--json={file}")
    assert (done.status, done.err) == (0, "")
    return done.out, json.loads(file.read_text("utf-8"))


def test_the_command_writes_raw_numbers(said):
    written = said[1]
    assert (written["layers"], written["blocks"], written["identity_skips"]) == (6, 2, 2)
    assert set(written["policies"]) == set(get_args(Remat))
    own = written["policies"]["block"]
    assert written["activation_bytes"] == own["activation_bytes"]
    assert written["peak_bytes"] == own["peak_bytes"]
    assert own["activation_bytes"] < written["policies"]["none"]["activation_bytes"]
    # Parameters and momentum, float32, and the activations are in use together.
    for used in written["policies"].values():
        assert used["peak_bytes"] > 8 * written["parameters"] + 0.5 * used["activation_bytes"]


def test_the_parts_add_up_to_the_network(said):
    written = said[1]
    for key in measure.Counts._fields:
        assert sum(part[key] for part in written["parts"]) == written[key]
    outputs = {part["name"]: part["output"] for part in written["parts"]}
    assert outputs == {"stem": [8, 8, 16], "stage1": [8, 8, 16], "head": [10]}


def test_the_command_speaks_in_units(said):
    out, written = said
    assert f"{written['parameters']:,}" in out
    assert f"{written['macs'] / 1e9:.4f} G" in out
    assert f"{written['peak_bytes'] / 1e6:.1f} MB" in out
    assert all(part["name"] in out for part in written["parts"])


def test_a_step_that_does_not_fit_has_no_peak(said, monkeypatch):
    def refuse(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: ran out of memory")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    assert memory.peak_bytes(one_stage(1)) is None
    assert "not known" in describe.text(said[1] | {"peak_bytes": None})


def test_what_cannot_be_described_is_refused_in_one_line(tmp_path):
    wrong = command("describe", f"--config={CONFIGS}/digits.py:depth=21,block=basic")
    assert "nearest 20 and 26" in wrong.refusal
    missing = tmp_path / "missing"
    assert "no folder" in command("describe", *SMALL, f"--json={missing}/a.json").refusal
    assert not missing.exists()
    assert "is a folder" in command("describe", *SMALL, f"--json={tmp_path}").refusal
    assert "--memory=big is no size" in command("describe", *SMALL, "--memory=big").refusal
