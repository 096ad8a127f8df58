"""The GPU's benchmarks, small and on the CPU: what they count, plan, compare and leave out."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import depth_sweep, roofs, speed, throughput, timed
from configs import cifar10, imagenet_torchvision
from resnet_jax import families
from resnet_jax.models.conv import Conv

ROOT = Path(__file__).parents[1]
QUICK = {"xla_backend_optimization_level": "0"}
LIMITS = roofs.Roofs(1e9, 1e12)


def small(depth=8, dtype="float32", **changes):
    """A network of 4 channels on 8x8 images, batch 4."""
    config = speed.recipe(cifar10.get_config(f"depth={depth}"), 4, dtype)
    changes = {"data.shape": (8, 8, 3), "data.pad": 1, "model.width": 4} | changes
    config.update_from_flattened_dict(changes)
    return config


def tiny():
    """The same with a single block and in bfloat16, which is compiled in a second."""
    return small(4, "bfloat16", **{"model.stages": (1,)})


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
    monkeypatch.setattr(speed, "worker", lambda: None)
    monkeypatch.setattr(speed.Contest, "_image", (1_000, 1_000))
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
    megabytes = roofs.elements(families.build(config), tuple(config.data.shape)) * 2 / 1e6
    assert abs(megabytes / TABLE[name] - 1) < 0.01


def test_elements_of_one_convolution_are_counted_by_hand():
    # 4x4x3 in, 2x2x5 out: 8 * 20 of norm and ReLU, three times 48 + 20 of the convolution.
    assert roofs.elements(Conv(5, 3, 2), (4, 4, 3)) == 8 * 20 + 3 * (48 + 20)


def test_roofs_are_measured():
    limits = roofs.roofs("float32", megabytes=4, size=64, calls=2, rounds=2)
    assert 1e8 < limits.bandwidth < 1e12
    assert 1e7 < limits.products < 1e13


# --- time


def test_a_program_that_will_not_fit_is_not_begun_and_one_that_fails_says_why():
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


def test_a_command_ends_in_time_and_reports_what_it_has(tmp_path):
    file = tmp_path / "report.json"
    words = ("--case=resnet1202:8", "--seconds=1", f"--json={file}")
    command = [sys.executable, "-m", "benchmarks.throughput", *words]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    report = json.loads(file.read_text("utf-8"))
    assert report["benchmark"] == "throughput" and set(report["ratios"].values()) == {None}
    (row,) = (row for row in report["rows"] if row["program"] == "ours")
    assert row["step_ms"] is None and row["why"].startswith(timed.OUT_OF_TIME)
    assert "out of time" in run.stdout


@pytest.fixture
def breaks():
    """The `main` of a command that breaks after its first measurement."""

    def fill(sheet, clock):
        sheet.rows[0]["step_ms"] = 3.0
        raise KeyError("an unexpected error")

    def main(words):
        arguments = timed.parser("breaks", "A command that breaks.").read(words)
        sheet = timed.Sheet([{"program": "ours", "step_ms": None}], {"ratio": None})
        plan = timed.Plan(sheet, fill, lambda: print("closed"))
        timed.run("breaks", arguments, lambda: plan)

    return main


def test_a_command_that_breaks_reports_what_it_has_and_fails(breaks, tmp_path, capsys):
    file = tmp_path / "report.json"
    with pytest.raises(KeyError, match="an unexpected error"):
        breaks([f"--json={file}", "--seconds=99"])
    assert json.loads(file.read_text("utf-8"))["rows"] == [{"program": "ours", "step_ms": 3.0}]
    assert capsys.readouterr().out.endswith("closed\n")


@pytest.mark.parametrize(
    "flag,message",
    [
        ("--json=/not/there/report.json", "error: --json=/not/there/report.json: "),
        ("--seconds=0.5", "error: argument --seconds: '0.5' is not a number of at least 1"),
        ("--seconds=soon", "error: argument --seconds: 'soon' is not a number of at least 1"),
        ("--dtype=int8", "error: argument --dtype: "),
    ],
)
def test_a_wrong_flag_is_one_line_before_anything_is_measured(breaks, flag, message, capsys):
    with pytest.raises(SystemExit) as end:
        breaks([flag])
    output = capsys.readouterr()
    assert end.value.code == 2 and output.out == ""
    assert output.err.startswith(message) and output.err.count("\n") == 1


# --- ours


def test_ours_trains_by_turns_of_whole_steps():
    ours = speed.Ours(tiny(), examples=8, turn=2, options=QUICK)
    assert int(ours.state.step) == 2
    ours.run(2)
    assert int(ours.state.step) == 6
    assert np.isfinite(ours.loss) and ours.compile_s > 0
    assert ours.peak_bytes > ours.source[0].nbytes


def test_a_row_has_the_error_or_the_measurements(monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    sheet = timed.Sheet([speed.row(net="small", program="ours")], {})
    (row,) = sheet.rows
    names, clock = {"net": "small"}, timed.Clock(100)
    contest = speed.Contest(sheet, clock, LIMITS, tiny(), names, 8, 2, 2, "roof_share")
    contest.begin("ours", {"xla_gpu_no_such_flag": True})
    assert "No such compile option" in row["why"] and row["step_ms"] is None
    contest.begin("ours", QUICK)
    assert row["why"] == "" and row["samples"] == 2
    assert row["images_per_s"] == pytest.approx(4e3 / row["step_ms"])
    moved = 2 * roofs.elements(families.build(tiny()), (8, 8, 3))
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
    options = timed.options
    words = ["--xla_gpu_autotune_level=0", "xla_gpu_enable_triton_gemm=false", "a=b=c", "d="]
    values = {"xla_gpu_autotune_level": "0", "xla_gpu_enable_triton_gemm": False, "a": "b=c"}
    assert options(words) == {**values, "d": ""}
    with pytest.raises(SystemExit):
        options(["xla_gpu_autotune_level"])
    error = capsys.readouterr().err
    assert error.startswith("error: --xla_option=xla_gpu_autotune_level is not NAME=VALUE")


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


def test_a_sweep_whose_shallowest_unrolled_net_fails_tries_no_deeper_one(stubs):
    configs = {depth: small(depth, remat="none") for depth in (8, 14, 20)}
    sheet, clock = depth_sweep.plan(configs), timed.Clock(100)
    make, fails = clock.make, lambda: (_ for _ in ()).throw(RuntimeError("no memory"))

    def unrolled_fails(row, kind, what, expected=None):
        return make(row, kind, fails if row["program"] == "unrolled" else what, expected)

    clock.make = unrolled_fails
    depth_sweep.measure(sheet, clock, configs, {}, None, rounds=2)
    whys = [sheet.row(depth=depth, program="unrolled")["why"] for depth in configs]
    assert whys[0] == "no memory"
    assert all(why.startswith("out of time") for why in whys[1:])
    assert sheet.ratios["scan_over_block_20"] is not None


def test_a_sweep_reports_its_depths_with_the_batch_and_options_of_its_flags(stubs, tmp_path):
    file = tmp_path / "report.json"
    flags = ("--depths=8,14", "--batch=2", "--dtype=float32", "--xla_option=a=1", "--rounds=1")
    depth_sweep.main([*flags, f"--json={file}"])
    report = json.loads(file.read_text("utf-8"))
    assert report["rows"][0]["options"] == "a=1"
    (scan,) = (r for r in report["rows"] if (r.get("depth"), r["program"]) == (8, "scan"))
    assert scan["images_per_s"] == pytest.approx(2 / 16e-3)  # the stub's steps with options
    assert report["ratios"]["step_14_over_8"] == pytest.approx(14 / 8)


def test_a_sweep_takes_a_depth_of_bottlenecks_and_refuses_another(capsys):
    config = depth_sweep.recipe(1001, 128, "bfloat16")
    assert config.model.block == "preact_bottleneck" and config.remat == "none"
    with pytest.raises(SystemExit):
        depth_sweep.recipe(111, 128, "bfloat16")
    assert capsys.readouterr().err.startswith("error: depth 111 is not 6n+2")
