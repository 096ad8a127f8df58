"""The benchmarks count and compare what they say; no test here looks at a time."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks import (
    checkpoints,
    common,
    compile_vs_depth,
    loop_convolutions,
    memory_vs_depth,
    peers,
    soak,
    streaming,
)
from resnet_jax.families import build
from resnet_jax.models import conv
from resnet_jax.models.resnet import resnet, resnet_stages
from resnet_jax.training.compile import ONCE, program

ROOT = Path(__file__).parents[1]
BLOCKS = ("basic", "preact_basic")
SAME = ((1, 1), (1, 1))
STAGES = (2, 2)


def hlo_of_scanned(convolution, size: int) -> str:
    """Both gradients of two scanned 3x3 convolutions of 4 channels, compiled."""

    def loss(x, kernels):
        layer = lambda x, kernel: (jax.nn.relu(convolution(x, kernel, 1, SAME)), None)
        return lax.scan(layer, x, kernels)[0].sum()

    x, kernels = jnp.ones((2, size, size, 4)), jnp.ones((2, 3, 3, 4, 4))
    return common.plain_program(jax.grad(loss, (0, 1)), x, kernels).as_text()


def test_counter_finds_the_gradients_of_a_scanned_lax_convolution():
    labels = loop_convolutions.loop_convolutions(hlo_of_scanned(conv.lax_conv, 8))
    assert loop_convolutions.FAST in labels  # the forward pass
    assert any(label != loop_convolutions.FAST for label in labels)


@pytest.mark.parametrize("size", [8, 2])
def test_our_scanned_convolution_stays_in_its_fast_form(size):
    labels = loop_convolutions.loop_convolutions(hlo_of_scanned(conv.canonical_conv, size))
    assert labels
    assert set(labels) == {loop_convolutions.FAST}


def test_counter_leaves_out_what_runs_once():
    gradient = jax.grad(lambda k: conv.lax_conv(jnp.ones((2, 8, 8, 4)), k, 1, SAME).sum())
    hlo = common.plain_program(gradient, jnp.ones((3, 3, 4, 4))).as_text()
    assert "convolution(" in hlo
    assert loop_convolutions.loop_convolutions(hlo) == []


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("depth", [20, 56])
def test_peers_have_as_many_parameters_as_ours(block, depth):
    stages, pre = resnet_stages(depth, block, image=32), block.startswith("pre")
    nets = [build(common.cifar(depth, 2, block, "A"))]
    nets += [peers.Plain(stages, pre, scan) for scan in (False, True)]
    x = jnp.zeros((1, 32, 32, 3))
    trees = [jax.eval_shape(net.init, jax.random.key(0), x)["params"] for net in nets]
    assert len({peers.count(tree) for tree in trees}) == 1


def ours_of(block):
    """A small net, an image and the logits of a training step."""
    net = resnet(STAGES, block=block, skip="A", num_classes=10, width=4)
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    params = net.init(jax.random.key(0), x)["params"]
    return params, x, logits_of(net, params, x)


def logits_of(net, params, x):
    """Logits in training mode, from these weights."""

    def forward(params):
        stats = net.init(jax.random.key(2), x)["batch_stats"]
        return net.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])[0]

    return program(forward, params, level=ONCE)(params)


@pytest.mark.parametrize("block", BLOCKS)
def test_peers_compute_what_ours_do_from_the_same_weights(block):
    params, x, logits = ours_of(block)
    theirs, pre = peers.from_ours(params), block.startswith("pre")
    for scan, weights in ((False, theirs), (True, peers.stack(theirs, STAGES))):
        found = logits_of(peers.Plain(STAGES, pre, scan, width=4), weights, x)
        assert jnp.allclose(found, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", BLOCKS)
def test_torch_computes_what_ours_does_from_the_same_weights(block):
    torch = pytest.importorskip("torch", reason="PyTorch is optional")
    from benchmarks import torch_peer

    params, x, logits = ours_of(block)
    net = torch_peer.Plain(STAGES, block.startswith("pre"), width=4)
    torch_peer.load(net, peers.from_ours(params))
    found = net(torch.tensor(jax.device_get(x)).permute(0, 3, 1, 2)).detach().numpy()
    assert jnp.allclose(found, logits, rtol=1e-4, atol=1e-4)


def test_alternate_runs_every_program_once_a_round_in_turn():
    calls = []
    programs = {name: lambda name=name: calls.append(name) for name in "ab"}
    seconds = common.alternate(programs, rounds=3)
    assert calls == ["a", "b"] * 3
    assert {name: len(samples) for name, samples in seconds.items()} == {"a": 3, "b": 3}


def test_ratio_is_the_median_of_the_pairs():
    assert common.ratio([1.0, 9.0, 4.0], [2.0, 3.0, 4.0]) == 1.0


def test_table_says_what_is_absent():
    assert common.table([{"net": "ours", "ms": 1.5}, {"net": "torch", "ms": None}]) == (
        "  net      ms\n ours     1.5\ntorch  absent"
    )


def test_a_report_is_complete_and_a_ratio_that_was_not_measured_is_null(tmp_path):
    path = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.compile_vs_depth", f"--json={path}"]
    options = ["--depths=8", "--peer_depths=", "--rounds=1"]
    run = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    report = json.loads(path.read_text())
    assert set(report) == {"benchmark", "device", "versions", "load_average", "rows", "ratios"}
    assert report["benchmark"] == "compile_vs_depth"
    assert report["ratios"] == {"compile_1202_over_20": None}
    (row,) = report["rows"]
    assert row["depth"] == 8
    assert row["lines"] > 0
    assert "compile_1202_over_20 = absent" in run.stdout


def test_a_depth_that_does_not_exist_is_one_line(capsys):
    with pytest.raises(SystemExit):
        compile_vs_depth.measure((21,), (), (), rounds=1)
    assert capsys.readouterr().err.startswith("error: depth 21 is not 6n+2")


def test_streaming_measures_made_up_images_and_names_its_ratios(monkeypatch):
    monkeypatch.setattr(streaming, "MADE", 300)
    rows, ratios = streaming.main("", "", 1, 5, 2)
    assert [row["program"] for row in rows] == ["decode", "stream", "stream_first"]
    assert all(row["images"] == 2 * streaming.BATCH for row in rows)  # within an epoch
    assert {"stream_over_decode", "stream_first_over_decode", "seconds_to_step_10000000"} <= set(
        ratios
    )


def test_streaming_refuses_a_folder_that_is_not_there(capsys):
    with pytest.raises(SystemExit):
        streaming.main("cifar10_jpeg", "/not/there", 1, 1, 1)
    assert capsys.readouterr().err.startswith("error: data.dir='/not/there' is not a folder")


@pytest.mark.slow
def test_memory_by_policy_is_of_one_network_and_falls():
    rows, ratios = memory_vs_depth.measure((14,), rounds=1)
    used = {row["remat"]: row["temp_mb"] for row in rows}
    assert list(used) == ["plain", "none", "block", "sqrt"]
    assert used["plain"] > used["none"] > used["block"]
    assert ratios["temp_mb_14_none"] == used["none"]
    assert ratios["step_block_over_none_14"]


def test_checkpoints_are_saved_sealed_and_trained_beside():
    rows, ratios = checkpoints.measure(8, 1, 1, (1,))
    assert [row["program"] for row in rows] == ["save_1_mb", "train_8"]
    names = {"seal_over_save_1_mb", "verify_over_save_1_mb", "save_of_10_minutes_8"}
    assert set(ratios) == names


def test_a_soak_refuses_a_scenario_that_there_is_not(capsys):
    with pytest.raises(SystemExit):
        soak.measure(["flood"], 1, 0)
    assert "'flood' is not one of resident, streamed, two, asked" in capsys.readouterr().err
