"""The benchmarks count and compare what they say; no test here looks at a time."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from benchmarks import (
    checkpoints,
    common,
    compile_vs_depth,
    loop_convolutions,
    memory_vs_depth,
    peers,
    probe_cost,
    soak,
    streaming,
)
from resnet_jax.families import build
from resnet_jax.models import conv
from resnet_jax.models.resnet import resnet
from resnet_jax.models.stages import resnet_stages
from resnet_jax.training.compile import ONCE, program

BLOCKS = ("basic", "preact_basic")
SAME = ((1, 1), (1, 1))
STAGES = (2, 2)


def hlo_of_scanned(convolution, size: int) -> str:
    """Return the program of both gradients of two scanned 3x3 convolutions of 4 channels."""

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


def test_counter_leaves_out_convolutions_that_run_once():
    gradient = jax.grad(lambda k: conv.lax_conv(jnp.ones((2, 8, 8, 4)), k, 1, SAME).sum())
    hlo = common.plain_program(gradient, jnp.ones((3, 3, 4, 4))).as_text()
    assert "convolution(" in hlo
    assert loop_convolutions.loop_convolutions(hlo) == []


@pytest.mark.parametrize("block", BLOCKS)
def test_peers_have_as_many_parameters_as_ours(block):
    stages, pre = resnet_stages(20, block, image=32), block.startswith("pre")
    nets = [build(common.cifar(20, 2, block, "A"))]
    nets += [peers.Plain(stages, pre, scan) for scan in (False, True)]
    x = jnp.zeros((1, 32, 32, 3))
    trees = [jax.eval_shape(net.init, jax.random.key(0), x)["params"] for net in nets]
    assert len({peers.count(tree) for tree in trees}) == 1


@pytest.fixture(scope="module")
def ours_of():
    """A function from a block to a small network's parameters, an image and the logits."""
    made = {}

    def make(block):
        if block not in made:
            net = resnet(STAGES, block=block, skip="A", num_outputs=10, width=4)
            key, x = jax.random.key(0), jax.random.normal(jax.random.key(1), (4, 8, 8, 3))

            def begin(key):
                variables = net.init(key, x)
                return variables["params"], net.apply(variables, x, mutable=["batch_stats"])[0]

            params, logits = program(begin, key, level=ONCE)(key)
            made[block] = params, x, logits
        return made[block]

    return make


def logits_of(net, params, x):
    """Return the logits in training mode, with these weights."""

    def forward(params):
        stats = jax.eval_shape(net.init, jax.random.key(2), x)["batch_stats"]
        stats = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), stats)
        return net.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])[0]

    return program(forward, params, level=ONCE)(params)


@pytest.mark.parametrize("block", BLOCKS)
def test_peers_compute_what_ours_do_from_the_same_weights(block, ours_of):
    params, x, logits = ours_of(block)
    plain, pre = peers.from_ours(params), block.startswith("pre")
    for scan, weights in ((False, plain), (True, peers.stack(plain, STAGES))):
        peer = peers.Plain(STAGES, pre, scan, width=4)
        assert jnp.allclose(logits_of(peer, weights, x), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", BLOCKS)
def test_torch_computes_what_ours_does_from_the_same_weights(block, ours_of):
    torch = pytest.importorskip("torch", reason="PyTorch is optional")
    from benchmarks import torch_peer

    params, x, logits = ours_of(block)
    net = torch_peer.Plain(STAGES, block.startswith("pre"), width=4)
    torch_peer.load(net, peers.from_ours(params))
    theirs = net(torch.tensor(jax.device_get(x)).permute(0, 3, 1, 2)).detach().numpy()
    assert jnp.allclose(theirs, logits, rtol=1e-4, atol=1e-4)


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


COMMANDS = (
    *("checkpoints", "collectives", "compile_vs_depth", "depth_sweep", "loop_convolutions"),
    *("memory_vs_depth", "soak", "step_time", "probe_cost", "streaming", "throughput"),
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_refuses_an_unknown_flag_in_a_line(name, capsys):
    main = importlib.import_module(f"benchmarks.{name}").main
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and f"python -m benchmarks.{name}" in text and "--json" in text
    with pytest.raises(SystemExit) as end:
        main(["--jsom=FILE"])
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert error == "error: unknown flag --jsom; nearest: --json\n"


def test_a_list_of_numbers_that_holds_another_word_is_one_line(capsys):
    with pytest.raises(SystemExit):
        compile_vs_depth.main(["--depths=20,twenty"])
    error = capsys.readouterr().err
    assert "--depths" in error and "'twenty' is no whole number" in error
    assert error.count("\n") == 1


def test_a_report_is_complete_and_a_ratio_that_was_not_measured_is_null(
    tmp_path, capsys, monkeypatch
):
    phases = {"trace_s": 1.0, "lower_s": 1.0, "compile_s": 2.0, "total_s": 4.0, "lines": 10}
    monkeypatch.setattr(compile_vs_depth, "once", lambda *_: phases)
    path = tmp_path / "report.json"
    flags = ["--depths=8", "--peer_depths=8,29", "--family=vgg", "--rounds=1"]
    compile_vs_depth.main([f"--json={path}", *flags])
    report = json.loads(path.read_text("utf-8"))
    assert set(report) == {"benchmark", "device", "versions", "load_average", "rows", "ratios"}
    assert report["benchmark"] == "compile_vs_depth"
    assert report["ratios"] == {"compile_1202_over_20": None, "compile_vgg_319_over_16": 1.0}
    nets = [(row["net"], row["depth"]) for row in report["rows"]]
    vgg = [("vgg", 16), ("vgg", 319)]
    assert nets == [("ours", 8), ("unrolled", 8), ("unrolled, not tried", 29), *vgg]
    assert report["rows"][0] == {"net": "ours", "depth": 8, "block": "basic", "samples": 1} | phases
    assert "compile_1202_over_20 = absent" in capsys.readouterr().out


def test_phases_of_a_compilation_add_up():
    config = common.recipe("family=lenet", 2)
    lower = lambda step, *inputs: jax.jit(step).lower(*inputs)
    row = compile_vs_depth.once(config, build(config), lower)
    phases = [row[f"{phase}_s"] for phase in ("trace", "lower", "compile")]
    assert row["total_s"] == pytest.approx(sum(phases)) and min(phases[:2]) > 0
    assert row["lines"] > 100


def test_a_depth_that_does_not_exist_is_one_line(capsys):
    with pytest.raises(SystemExit):
        compile_vs_depth.measure((21,), (), (), rounds=1)
    assert capsys.readouterr().err.startswith("error: depth 21 is not 6n+2")


def test_streaming_measures_made_up_images_and_names_its_ratios(monkeypatch):
    monkeypatch.setattr(streaming, "MADE", 300)
    rows, ratios = streaming.measure_in("", "", 1, 5, 2)
    assert [row["program"] for row in rows] == ["decode", "stream", "stream_first"]
    assert all(row["images"] == 2 * streaming.BATCH for row in rows)  # within an epoch
    assert {"stream_over_decode", "stream_first_over_decode", "seconds_to_step_10000000"} <= set(
        ratios
    )


def test_streaming_refuses_a_folder_that_is_absent(capsys):
    with pytest.raises(SystemExit):
        streaming.main(["--data_dir=/not/there", "--rounds=1"])
    assert capsys.readouterr().err.startswith("error: data.dir='/not/there' is not a folder")


# 40 s: pytest -m slow tests/test_benchmarks.py
@pytest.mark.slow
def test_memory_by_policy_is_of_one_network_and_falls():
    rows, ratios = memory_vs_depth.measure((14,), rounds=1)
    used = {row["remat"]: row["temp_mb"] for row in rows}
    assert list(used) == ["plain", "none", "block", "sqrt"]
    assert used["plain"] > used["none"] > used["block"]
    assert ratios["temp_mb_14_none"] == used["none"]
    assert ratios["step_block_over_none_14"]


def test_checkpoints_are_saved_sealed_and_trained_beside(monkeypatch):
    monkeypatch.setattr(common, "cifar", lambda *_: common.recipe("family=lenet", 2))
    rows, ratios = checkpoints.measure(8, 1, 1, (1,))
    assert [row["program"] for row in rows] == ["save_1_mb", "train_8"]
    names = {"seal_over_save_1_mb", "verify_over_save_1_mb", "save_of_10_minutes_8"}
    assert set(ratios) == names


def test_a_step_under_the_probe_is_the_step_and_measures_every_block():
    config = common.recipe("depth=8", 4, width=2)
    state = common.create_state(config, build(config))
    batch = common.make_batch(config)
    steps = [probe_cost.training_step(config, state, batch, probe) for probe in (False, True)]
    (plain, nothing), (probed, measured) = (jax.jit(step)(state, batch) for step in steps)
    assert nothing is None
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        plain.params,
        probed.params,
    )
    assert [values.shape for values in measured] == [(3,), (3,)]
    assert all((values > 0).all() for values in measured)


def test_a_soak_refuses_an_unknown_scenario(capsys):
    with pytest.raises(SystemExit):
        soak.main(["--scenarios=flood"])
    assert "'flood' is not one of resident, streamed, two, asked" in capsys.readouterr().err
