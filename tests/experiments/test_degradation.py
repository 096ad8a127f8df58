"""The verdict's rule, and a whole small sweep from a command to a report."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import sweep as sweeps
from experiments.degradation import judge
from resnet_jax.training import directory

ROOT = Path(__file__).parent.parent.parent
CHANCE = 0.9


def row(family, depth, error, std=None):
    row = {"model": f"{family}-{depth}", "family": family, "depth": depth}
    return row | {"n": 1 if std is None else 3, "train_error_mean": error, "train_error_std": std}


def rows(plain, residual, std=None):
    """Errors by depth, 20 and 56 layers."""
    pairs = (("plain", plain), ("resnet", residual))
    return [
        row(family, depth, error, std)
        for family, errors in pairs
        for depth, error in zip((20, 56), errors, strict=True)
    ]


@pytest.mark.parametrize(
    "plain,residual,std,holds",
    [
        ((0.10, 0.30), (0.08, 0.05), None, True),
        ((0.10, 0.16), (0.08, 0.09), None, True),
        ((0.10, 0.14), (0.08, 0.05), None, False),  # less than 5 points
        ((0.10, 0.30), (0.08, 0.10), None, False),  # residual more than 1 point worse
        ((0.10, 0.30), (0.08, 0.10), 0.02, True),  # within two standard deviations
        ((0.10, 0.16), (0.08, 0.05), 0.04, False),  # within two standard deviations
        ((0.10, 0.90), (0.08, 0.05), None, True),  # a deep plain net at chance counts
        ((0.90, 0.90), (0.08, 0.05), None, None),
        ((0.10, 0.30), (0.08, 0.89), None, None),
        ((0.10, 0.30), (0.90, 0.08), None, None),
    ],
)
def test_the_verdict_follows_its_rule(plain, residual, std, holds):
    verdict = judge(rows(plain, residual, std), CHANCE)
    assert verdict["holds"] is holds
    assert ("n = 1" if std is None else "n = 3") in verdict["says"] or holds is None


def test_one_depth_shows_nothing():
    assert judge([row("plain", 20, 0.1), row("resnet", 20, 0.1)], CHANCE)["holds"] is None


def sweep(workdir, *words):
    command = (sys.executable, "-m", "experiments.degradation", f"--workdir={workdir}")
    small = ("--depths=8,14", "--steps=4", "--config.model.width=2")
    return subprocess.run(
        (*command, *small, *words),
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_sweep_lists_runs_reports_and_does_nothing_twice(tmp_path):
    listed = sweep(tmp_path, "--list")
    assert listed.returncode == 0, listed.stderr
    assert [line.split()[1] for line in listed.stdout.splitlines()] == [
        "plain-8", "resnet-8", "plain-14", "resnet-14",
    ]  # fmt: skip
    assert not list(tmp_path.iterdir())

    one = sweep(tmp_path, "--run=1")
    assert one.returncode == 0, one.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["resnet-8-seed0"]
    trained = (tmp_path / "resnet-8-seed0" / "run.json").read_text()

    done = sweep(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "resnet-8-seed0" / "run.json").read_text() == trained
    assert {"results.json", "table.md", "figure.png", "report.html"} <= {
        p.name for p in tmp_path.iterdir()
    }
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {"claim", "source", "dataset", "verdict", "runs", "summary"}
    assert set(results["verdict"]) == {"holds", "rule", "says"}
    names = {"model", "family", "depth", "skip", "merge", "seed", "parameters", "steps"}
    names |= {"train_loss", "train_error", "test_error", "seconds", "workdir"}
    assert all(names <= set(r) for r in results["runs"])
    assert [r["model"] for r in results["summary"]] == [
        "plain-8", "plain-14", "resnet-8", "resnet-14",
    ]  # fmt: skip
    assert all(r["n"] == 1 and r["train_error_std"] is None for r in results["summary"])

    refused = sweep(tmp_path, "--config.norm.momentum=0.5")
    assert refused.returncode == 2
    assert "norm.momentum: 0.9 there, 0.5 now" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words,message",
    [
        (("--run=4",), "--run=4 is not one of --list's 0 to 3"),
        (("--models=lenet:5",), "lenet has no twin"),
        (("--config.data.name=mnist",), "--config.data.name is set by --dataset"),
        (("--models=resnet",), ":resnet is not FAMILY:DEPTH"),
        (("--steps=0",), "--steps=0"),
        # One family has one block, the deepest network's.
        (("--depths=14,29",), "depth 14 is not 9n+2 (bottleneck blocks)"),
    ],
)
def test_flags_that_contradict_the_sweep_are_refused(tmp_path, words, message):
    done = sweep(tmp_path, *words)
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_config_of_ones_own_keeps_its_data_set_and_each_network_is_planned_once(tmp_path):
    done = sweep(tmp_path, "--config=configs/cifar10.py", "--list")
    assert done.returncode == 2 and "'cifar10' needs data.dir" in done.stderr
    done = sweep(tmp_path, "--config=configs/digits.py", "--depths=8,8", "--list")
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["plain-8", "resnet-8"]


def test_runs_that_diverge_do_not_stop_the_others(tmp_path):
    done = sweep(tmp_path, "--depths=8", "--config.optimizer.learning_rate=1e30")
    assert done.returncode == 1
    assert "[1/2] plain-8" in done.stdout and "[2/2] resnet-8" in done.stdout
    assert "2 of 2 runs diverged. plain-8, seed 0: " in done.stderr


def test_several_families_are_planned_each_with_its_twin(tmp_path):
    done = sweep(tmp_path, "--models=vgg:11,resnet:8,highway:19", "--list")
    assert [line.split()[1] for line in done.stdout.splitlines()] == [
        "plain-vgg-11", "residual-vgg-11", "plain-8", "resnet-8", "plain-highway-19", "highway-19",
    ]  # fmt: skip


def test_of_several_families_the_claim_holds_where_it_holds_of_each():
    good = [row("plain", 20, 0.1), row("plain", 56, 0.4)]
    good += [row("resnet", 20, 0.1), row("resnet", 56, 0.05)]
    other = lambda deep: [
        row("plain-ladder", 20, 0.1), row("plain-ladder", 56, 0.4),
        row("ladder", 20, 0.1), row("ladder", 56, deep),
    ]  # fmt: skip
    assert judge(good + other(0.05), CHANCE)["holds"] is True
    assert judge(good + other(0.3), CHANCE)["holds"] is False
    assert judge(good + other(CHANCE), CHANCE)["holds"] is None


def test_a_report_names_what_the_runs_were_trained_on(tmp_path):
    config = importlib.import_module("configs.digits").get_config("depth=8")
    plan = [sweeps.Planned(name, "resnet", config, tmp_path / name) for name in ("a", "b")]
    assert sweeps.hardware(plan).startswith("cpu, ")
    for planned, devices in zip(plan, (["cpu:cpu"], 4 * ["gpu:NVIDIA H100"]), strict=True):
        planned.workdir.mkdir()
        directory.add_start(planned.workdir, {"devices": devices})
    assert sweeps.hardware(plan[:1]).startswith("cpu, ")
    assert sweeps.hardware(plan) == "1 x cpu:cpu; 4 x gpu:NVIDIA H100"
