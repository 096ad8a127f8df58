"""The GPU's benchmarks, small and on the CPU: what they count, plan, compare and leave out."""

import contextlib
import json
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import depth_sweep, peers, roofs, speed, throughput, timed
from benchmarks.torch_worker import Worker
from configs import cifar10, imagenet_torchvision
from resnet_jax import families
from resnet_jax.models.conv import Conv
from resnet_jax.models.resnet import resnet
from resnet_jax.training.compile import ONCE, program

ROOT = Path(__file__).parents[1]
QUICK = {"xla_backend_optimization_level": "0"}
LIMITS = roofs.Roofs(1e9, 1e12)


def small(depth=8, dtype="float32", **changes):
    """A net of 4 channels on 8x8 images, batch 4."""
    config = speed.recipe(cifar10.get_config(f"depth={depth}"), 4, dtype)
    changes = {"data.shape": (8, 8, 3), "data.pad": 1, "model.width": 4} | changes
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


class Stub:
    """A program whose steps take as long as it has layers, twice that with options."""

    made, now = [], [0.0]

    def __init__(self, config, examples, turn, options=None):
        depth = config.model.depth
        self.made.append((depth, config.unroll, config.remat))
        self.compile_s, self.peak_bytes, self.parameters, self.loss = 1.0, 10 * depth, depth, 2.3
        self.turn = 1e-3 * depth * (2 if options else 1) * turn

    def run(self, turns):
        self.now[0] += turns * self.turn


@pytest.fixture
def stubs(monkeypatch):
    monkeypatch.setattr(speed, "Ours", Stub)
    monkeypatch.setattr(speed, "device_roofs", lambda dtype: LIMITS)
    monkeypatch.setattr(Stub, "made", [])
    monkeypatch.setattr(time, "perf_counter", lambda: Stub.now[0])


# --- the roof

TABLE = {
    "imagenet:depth=50": 308,
    "imagenet:depth=101": 452,
    "imagenet:depth=152": 629,
    "cifar:depth=20": 5.3,
    "cifar:depth=56": 14.9,
    "cifar:depth=110": 29.4,
    "cifar:depth=1202": 322,
    "cifar:depth=1001,block=preact_bottleneck": 538,
}


@pytest.mark.parametrize("name", TABLE)
def test_bytes_that_a_step_moves_are_those_of_the_published_networks(name):
    """MB an image in bfloat16, counted by hand from the papers' tables of layers."""
    kind, _, argument = name.partition(":")
    config = {"imagenet": imagenet_torchvision, "cifar": cifar10}[kind].get_config(argument)
    found = roofs.elements(families.build(config), tuple(config.data.shape)) * 2 / 1e6
    assert abs(found / TABLE[name] - 1) < 0.01


def test_elements_of_one_convolution_are_counted_by_hand():
    # 4x4x3 in, 2x2x5 out: 8 * 20 of norm and ReLU, three times 48 + 20 of the convolution.
    assert roofs.elements(Conv(5, 3, 2), (4, 4, 3)) == 8 * 20 + 3 * (48 + 20)


def test_roofs_are_what_they_are_measured_to_be():
    found = roofs.roofs("float32", megabytes=4, size=64, calls=2, rounds=2)
    assert 1e8 < found.bandwidth < 1e12
    assert 1e7 < found.products < 1e13


# --- time


def test_what_will_not_fit_is_not_begun_and_what_fails_says_why():
    clock, row = timed.Clock(100.0), {"why": timed.OUT_OF_TIME}
    assert clock.make(row, "a", lambda: 3) == 3
    clock.longest["a"] = 200.0
    assert clock.make(row, "a", lambda: pytest.fail("begun")) is None
    assert row["why"].startswith("out of time: ") and row["why"].endswith("about 200 needed")
    assert clock.make(row, "a", lambda: 4, expected=50.0) == 4
    assert clock.make(row, "b", lambda: pytest.fail("begun"), expected=101.0) is None

    def full():
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand a long story")

    assert clock.make(row, "b", full) is None
    assert row["why"] == "RESOURCE_EXHAUSTED: out of memory"


@pytest.mark.parametrize("name,row", [("throughput", "ours"), ("depth_sweep", "scan")])
def test_a_command_ends_in_time_and_reports_what_it_has(name, row, tmp_path):
    file = tmp_path / "report.json"
    wanted = {"throughput": ["--case=resnet1202:8"], "depth_sweep": ["--depths=110,1202"]}[name]
    command = [sys.executable, "-m", f"benchmarks.{name}", *wanted, "--seconds=1"]
    run = subprocess.run([*command, f"--json={file}"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    report = json.loads(file.read_text())
    assert set(report["ratios"].values()) == {None}
    rows = [found for found in report["rows"] if found["program"] == row]
    assert rows and all(found["step_ms"] is None for found in rows)
    assert all(found["why"].startswith(timed.OUT_OF_TIME) for found in rows)
    assert "out of time" in run.stdout


# --- ours


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ours_trains_by_turns_of_whole_steps(dtype):
    one = speed.Ours(small(dtype=dtype), examples=8, turn=3, options=QUICK)
    assert int(one.state.step) == 3
    one.run(2)
    assert int(one.state.step) == 9
    assert np.isfinite(one.loss) and one.compile_s > 0
    assert one.peak_bytes > one.source.image.nbytes


def test_a_row_says_what_is_wrong_or_what_was_measured(monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    sheet = timed.Sheet([speed.row(net="small", program="ours")], {})
    (row,) = sheet.rows
    names, clock = {"net": "small"}, timed.Clock(100)
    contest = speed.Contest(sheet, clock, LIMITS, small(), names, 8, 2, 2, "roof_share")
    contest.begin("ours", {"xla_gpu_no_such_flag": True})
    assert "No such compile option" in row["why"] and row["step_ms"] is None
    contest.begin("ours", QUICK)
    assert row["why"] == "" and row["samples"] == 2
    assert row["images_per_s"] == pytest.approx(4e3 / row["step_ms"])
    moved = 4 * roofs.elements(families.build(small()), (8, 8, 3))
    assert row["roof_share"] == pytest.approx(row["images_per_s"] * moved / 1e9)
    assert sheet.ratios == {"roof_share": row["roof_share"]}


# --- the commands


def test_a_throughput_sheet_is_whole_from_the_start():
    cases = [throughput.case(word, "bfloat16") for word in throughput.CASES]
    sheet = throughput.plan(cases, {})
    assert len(sheet.rows) == 8 * 4 and all(row["why"] == "out of time" for row in sheet.rows)
    assert set(sheet.ratios.values()) == {None}
    assert {
        "throughput_over_torch_resnet50_256",
        "throughput_over_torch_compile_resnet50_256",
        "throughput_over_torch_resnet110_128",
        "throughput_over_torch_graph_resnet20_1024",
        "roof_share_resnet50_512",
    } <= sheet.ratios.keys()
    first = cases[0].config
    assert (first.dtype, first.norm.group_size, first.model.stride_at) == ("bfloat16", 0, "3x3")


@pytest.mark.parametrize("word", ["resnet50", "vgg16:8", "resnet21:8", "resnet20:0"])
def test_a_wrong_case_is_one_line(word, capsys):
    with pytest.raises(SystemExit):
        throughput.case(word, "float32")
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_options_are_flags_of_xla_with_or_without_dashes(capsys):
    words = ["--xla_gpu_autotune_level=0", "xla_gpu_enable_triton_gemm=false", "a=b=c", "d="]
    found = {"xla_gpu_autotune_level": "0", "xla_gpu_enable_triton_gemm": False, "a": "b=c"}
    assert speed.options(words) == {**found, "d": ""}
    with pytest.raises(SystemExit):
        speed.options(["xla_gpu_autotune_level"])
    assert capsys.readouterr().err.startswith("error: --xla_option=xla_gpu_autotune_level: ")


def test_throughput_compares_an_option_and_says_that_torch_is_absent(stubs):
    case = throughput.Case("resnet8", small(), examples=8, turn=2)
    sheet, options = throughput.plan([case], {"a": 1}), {"a": 1}
    throughput.measure(sheet, timed.Clock(100), [case], "float32", options, None, rounds=3)
    assert sheet.rows[0]["options"] == "a=1"
    rows = {row["program"]: row for row in sheet.rows}
    assert rows["ours"]["samples"] == 6 and rows["ours_options"]["samples"] == 3
    assert all(rows[mode]["why"] == "PyTorch is not installed" for mode in speed.MODES)
    assert rows["ours"]["step_ms"] == pytest.approx(8)
    assert rows["ours_options"]["images_per_s"] == pytest.approx(4 / 16e-3)
    assert sheet.ratios["throughput_options_resnet8_4"] == pytest.approx(0.5)
    assert sheet.ratios["roof_share_resnet8_4"] == rows["ours"]["roof_share"] > 0
    assert sheet.ratios["throughput_over_torch_resnet8_4"] is None


def test_a_sweep_measures_the_ends_first_and_unrolls_what_it_has_time_for(stubs):
    configs = {depth: small(depth, remat="none") for depth in (14, 8, 20)}
    sheet, clock = depth_sweep.plan(configs), timed.Clock(100)
    depth_sweep.measure(sheet, clock, configs, {}, None, rounds=3)
    scans = [depth for depth, unroll, remat in Stub.made if (unroll, remat) == (1, "none")]
    assert scans == [8, 20, 14]
    unrolled = [depth for depth, unroll, _ in Stub.made if unroll > 20]
    assert unrolled == [8, 14, 20]
    assert (8, 4, "none") in Stub.made and (20, 1, "block") in Stub.made
    missing = [name for name, value in sheet.ratios.items() if value is None]
    assert all("torch" in name for name in missing) and len(missing) == 6
    assert sheet.ratios["step_20_over_8"] == pytest.approx(2.5)
    assert sheet.ratios["peak_20_over_8"] == pytest.approx(2.5)
    assert sheet.ratios["scan_over_unrolled_14"] == pytest.approx(1)


def test_a_sweep_out_of_time_leaves_the_deepest_unrolled_nets_out(stubs, monkeypatch):
    monkeypatch.setattr(depth_sweep, "_torch", lambda *_: None)
    configs = {depth: small(depth, remat="none") for depth in (8, 20)}
    sheet = depth_sweep.plan(configs)
    # The shallow one took a second, so the deep one may take 6.
    depth_sweep.measure(sheet, timed.Clock(6.0), configs, {}, None, rounds=2)
    assert sheet.ratios["scan_over_unrolled_8"] is not None
    assert sheet.ratios["scan_over_unrolled_20"] is None
    why = sheet.row(depth=20, program="unrolled")["why"]
    assert why.startswith("out of time: ") and why.endswith("about 6 needed")


def test_a_sweep_takes_a_depth_of_bottlenecks_and_refuses_another(capsys):
    config = depth_sweep.recipe(1001, 128, "bfloat16")
    assert config.model.block == "preact_bottleneck" and config.remat == "none"
    with pytest.raises(SystemExit):
        depth_sweep.recipe(111, 128, "bfloat16")
    assert capsys.readouterr().err.startswith("error: depth 111 is not 6n+2")


# --- PyTorch's side


@pytest.fixture
def torch_peer():
    pytest.importorskip("torch", reason="PyTorch is optional")
    from benchmarks import torch_peer

    return torch_peer


@pytest.mark.parametrize(
    "block,skip,stem,stride_at",
    [
        ("bottleneck", "B", "7x7", "3x3"),
        ("preact_bottleneck", "B", "3x3", "1x1"),
        ("basic", "B", "7x7", "1x1"),
    ],
)
def test_torchs_deeper_blocks_compute_what_ours_do(torch_peer, block, skip, stem, stride_at):
    import torch

    stages, options = (1, 2), {"stem": stem, "stride_at": stride_at}
    net = resnet(stages, block=block, skip=skip, num_classes=10, width=4, **options)
    x = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    variables = program(net.init, jax.random.key(0), x, level=ONCE)(jax.random.key(0), x)
    train = lambda variables: net.apply(variables, x, mutable=["batch_stats"])[0]
    logits = program(train, variables, level=ONCE)(variables)
    theirs = torch_peer.Plain(
        stages,
        block.startswith("pre"),
        width=4,
        bottleneck=block.endswith("bottleneck"),
        project=skip == "B",
        **options,
    )
    torch_peer.load(theirs, peers.from_ours(variables["params"]))
    found = theirs(torch.tensor(jax.device_get(x)).permute(0, 3, 1, 2)).detach().numpy()
    assert jnp.allclose(found, logits, rtol=1e-3, atol=1e-3)


class Listener:
    """Remembers what it is asked."""

    def ask(self, **request):
        if request["do"] == "make":
            self.request = request
        return {"device": "cpu", "ready_s": 1.0, "parameters": 0, "seconds": 1.0, "loss": 2.3}


@pytest.mark.parametrize("word", ["resnet18:2", "resnet50:2", "resnet110:2", "preact1001"])
def test_torch_is_asked_for_a_network_of_as_many_parameters(torch_peer, word):
    import torch

    if word == "preact1001":
        config = depth_sweep.recipe(1001, 2, "float32")
    else:
        config = throughput.case(word, "float32").config
    listener = Listener()
    speed.Torch(listener, config, 8, 1, "eager")
    with torch.device("meta"):
        theirs = torch_peer.Plain(**listener.request["net"])
    x = jnp.zeros((1, *config.data.shape))
    ours = jax.eval_shape(families.build(config).init, jax.random.key(0), x)["params"]
    assert sum(p.numel() for p in theirs.parameters()) == peers.count(ours)


def test_torchs_process_trains_answers_errors_and_is_started_again(torch_peer, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    worker = Worker()
    try:
        one = speed.Torch(worker, small(dtype="bfloat16"), examples=10, turn=2, mode="eager")
        assert np.isfinite(one.loss) and one.parameters > 0
        with pytest.raises(RuntimeError, match="CUDA"):
            speed.Torch(worker, small(), examples=10, turn=2, mode="graph")
        with pytest.raises(RuntimeError, match="nothing is made"):
            one.run(1)
        worker.process.kill()
        worker.process.wait()
        again = speed.Torch(worker, small(), examples=10, turn=2, mode="eager")
        again.run(2)
        assert np.isfinite(again.loss)
    finally:
        worker.close()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["compile", "reduce-overhead"])
def test_torch_compiles_the_same_step(torch_peer, mode):
    worker = Worker()
    try:
        one = speed.Torch(worker, small(dtype="bfloat16"), examples=10, turn=2, mode=mode)
        assert np.isfinite(one.loss) and one.compile_s > 0
    finally:
        worker.close()


def test_torchs_crops_and_flips_are_whole_windows_of_the_padded_image(torch_peer):
    import torch

    net = torch_peer.Plain((1,), False, width=2)
    options = {"rate": 0.1, "momentum": 0.9, "weight_decay": 0.0, "mode": "eager"}
    one = torch_peer.Training(net, (5, 6, 3), 8, 8, dtype="float32", pad=2, flip=True, **options)
    x = torch.rand(64, 5, 6, 3) + 1
    found = one._augmented(x)
    padded = torch.nn.functional.pad(x, (0, 0, 2, 2, 2, 2))
    windows = padded.unfold(1, 5, 1).unfold(2, 6, 1).permute(0, 1, 2, 4, 5, 3)
    both = torch.cat([windows, windows.flip(4)], 1)
    assert found.shape == x.shape
    same = (both == found[:, None, None]).all(-1).all(-1).all(-1)
    assert same.any(2).any(1).all()  # every image is one of its windows
    assert len({tuple(place) for place in same.nonzero()[:, 1:].tolist()}) > 20


def test_a_captured_step_is_warmed_up_recorded_once_and_replayed_on_new_indices(torch_peer):
    import torch

    seen, recorded = [], []
    stream = types.SimpleNamespace(wait_stream=lambda other: None)

    class Graph:
        def replay(self):
            recorded[0]()

    @contextlib.contextmanager
    def graph(which):
        before = len(seen)
        yield
        assert len(seen) == before + 1
        recorded.append(lambda: step(held[0]))

    cuda = types.SimpleNamespace(
        Stream=lambda: stream,
        current_stream=lambda: stream,
        stream=lambda which: contextlib.nullcontext(),
        CUDAGraph=Graph,
        graph=graph,
    )
    held, loss = [], torch.zeros(())

    def step(index):
        held[:] = [index]
        seen.append(index.tolist())
        return loss.copy_(index.sum())

    replay = torch_peer.captured(step, torch.tensor([1, 2]), cuda)
    assert seen == [[1, 2]] * 4 and len(recorded) == 1
    assert replay(torch.tensor([3, 4])) == 7 and seen[-1] == [3, 4]
