"""What a report says of finished runs: rows, versions, and what differs from the source."""

import json
import math

import pytest

from experiments import claim, report, results, sweep
from experiments.claim import Claim, Verdict
from experiments.flags import CONFIGS

CLAIM = Claim(
    "depth",
    "Depth helps.",
    "A paper 2015, Table 6",
    "the deepest has the lowest error",
    plan=lambda options: [
        options.run(f"resnet-{network[1]}", network, seed)
        for seed in options.seeds(1)
        for network in options.networks
    ],
    judge=lambda rows: Verdict(True, "It does."),
    recipe="cifar10",
    published={"resnet-8": 0.0875},
)


@pytest.fixture
def reported(finish, monkeypatch, undrawn):
    """reported(options) -> the content of results.json, of finished runs of 8 and 14 layers."""
    monkeypatch.setattr(results, "examples", lambda config: 1500)

    def reported(options, **fields):
        runs = list(CLAIM.plan(options))
        for run in runs:
            finish(run, 0.5 if run.config.model.depth == 8 else 0.25, **fields)
        return claim.conclude(CLAIM, options, runs)

    return reported


def test_a_row_has_the_names_that_others_rely_on(reported, options):
    content = reported(options(8, 14, overrides={"replicas": "2"}))
    names = {"name", "kind", "claim", "source", "dataset", "verdict", "statements", "chosen"}
    assert set(content) == names | {"runs", "summary"}
    names = {"holds", "rule", "says", "effect", "interval", "p", "n", "p_opposite"}
    assert set(content["verdict"]) == names
    names = {"name", "claim", "source", "verdict", "control", "rule_changed"}
    assert [set(statement) for statement in content["statements"]] == [names]
    assert content["statements"][0]["verdict"] == content["verdict"]
    names = {"model", "arm", "depth", "skip", "merge", "seed", "parameters", "steps"}
    names |= {"train_loss", "train_error", "test_error", "seconds", "workdir"}
    assert all(names <= set(row) for row in content["runs"])
    assert [(row["model"], row["seed"]) for row in content["runs"]] == [
        ("resnet-8", 0), ("resnet-8", 1), ("resnet-14", 0), ("resnet-14", 1),
    ]  # fmt: skip
    first = content["runs"][0]
    assert (first["train_error"], first["test_error"], first["chance_error"]) == (0.5, 0.5, 0.9)
    assert (first["parameters"], first["seconds"], first["revision"]) == (75_002, 2.0, "abc")
    summary = content["summary"]
    names = {"model", "depth", "n", "paper"}
    names |= {f"{split}_error_{of}" for split in ("train", "test") for of in ("mean", "std")}
    assert all(names <= set(row) for row in summary)
    assert [row["test_error_mean"] for row in summary] == [0.5, 0.25]
    saved = json.loads((options(8).workdir / "results.json").read_text("utf-8"))
    assert saved.pop("versions")["jax"] == "1" and saved == content


def test_runs_by_the_papers_recipe_stand_beside_its_numbers(reported, options, capsys):
    content = reported(options(8, 14, recipe=CONFIGS / "cifar10.py"))
    assert [row["paper"] for row in content["summary"]] == [0.0875, None]
    said = capsys.readouterr().out
    assert "Recipe: configs/cifar10.py, unchanged." in said
    assert "The claim is from A paper 2015, Table 6, and the networks are trained by its" in said


def test_other_runs_are_a_variant_and_name_what_differs(reported, options, capsys):
    asked = options(
        8,
        14,
        recipe=CONFIGS / "cifar10.py",
        switches={"block": "preact_basic"},
        overrides={"optimizer.learning_rate": "0.05"},
    )
    content = reported(asked)
    assert [row["paper"] for row in content["summary"]] == [None, None]
    changes = "block=preact_basic, optimizer.learning_rate=0.05"
    assert content["runs"][0]["changes"] == changes.split(", ")
    said = capsys.readouterr().out
    page = (asked.workdir / "report.html").read_text("utf-8")
    for text in (said, page):
        assert "This is a variant of the claim of A paper 2015, Table 6" in text
    for text in (said, page, (asked.workdir / "table.md").read_text("utf-8")):
        assert f"Recipe: configs/cifar10.py with {changes}." in text


def test_what_the_claim_varies_is_named(options):
    asked = options(8)
    run = asked.run("x", ("resnet", 8), 0, switches={"skip": "B"}, values={"model.width": 4})
    assert report.caption(asked, [run, run]).endswith(
        "configs/digits.py, unchanged. The claim itself varies skip, model.width."
    )
    assert report.origin("ours", "", asked) == "Source of the claim: ours."
    assert "is a variant of the claim of x: the networks are trained by configs/digits.py" in (
        report.origin("x", "cifar10", asked)
    )


def test_a_report_names_the_revisions_and_the_hardware_of_the_runs(options, finish):
    runs = [options(8).run("net", ("resnet", 8), seed) for seed in (0, 1)]
    here = results.versions(runs[:0])
    assert here["hardware"].startswith("cpu, ") and "jax" in here
    finish(runs[0], revision="abc")
    one = results.versions(runs[:1])
    assert (one["revision of the runs"], one["jax"]) == ("abc", "1")
    assert one["revision of this report"] == (here["revision"] or "unknown")
    assert one["hardware"].startswith("cpu, ") and list(one)[-1] == "hardware"
    finish(runs[1], revision="def+changes", device="gpu:NVIDIA H100")
    both = results.versions(runs)
    assert both["revision of the runs"] == "abc; def+changes"
    assert both["hardware"] == "1 x cpu:cpu; 1 x gpu:NVIDIA H100"


def test_the_columns_of_another_task_have_the_name_of_its_score(options, finish):
    asked = options(networks=(("highway", 4),), recipe=CONFIGS / "reconstruction.py")
    run = asked.run("highway-4", ("highway", 4), 0)
    finish(run, 0.25)
    (row,) = results.scores(run)
    assert (row["train_loss"], row["test_loss"], row["chance_loss"]) == (0.25, 0.25, 0.9)
    content = claim.conclude(CLAIM._replace(task="reconstruction", recipe=""), asked, [run])
    assert content["dataset"] == "reconstruction"
    assert content["summary"][0]["test_loss_mean"] == 0.25
    page = (asked.workdir / "report.html").read_text("utf-8")
    assert "Loss while training" in page and "train loss" in page and "%</th>" not in page


def test_curves_have_every_record_of_a_seed(options, finish):
    run = options(8, overrides={"replicas": "2"}).run("resnet-8", ("resnet", 8), 0)
    finish(run, 0.25)
    curves = results.curves(run)
    assert [(curve["seed"], curve["split"]) for curve in curves] == [
        (0, "train"), (0, "test"), (1, "train"), (1, "test"),
    ]  # fmt: skip
    assert all(curve["step"] == [150, 300] and curve["error"] == [0.9, 0.25] for curve in curves)


def test_a_run_that_diverged_counts_as_at_chance(options, training):
    training.ends = training.diverge
    run = options(8, overrides={"replicas": "2"}).run("resnet-8", ("resnet", 8), 0)
    sweep.execute([run])
    rows = results.scores(run)
    assert [row["seed"] for row in rows] == [0, 1]
    for row in rows:
        assert (row["train_error"], row["test_error"], row["note"]) == (0.9, 0.9, "diverged")
        assert row["train_loss"] == pytest.approx(math.log(10))
    asked = options(networks=(("highway", 4),), recipe=CONFIGS / "reconstruction.py")
    other = asked.run("highway-4", ("highway", 4), 0)
    sweep.execute([other])
    (row,) = results.scores(other)
    assert (row["train_loss"], row["test_loss"], row["note"]) == (0.9, 0.9, "diverged")


def test_a_report_of_runs_that_all_diverged_at_once_has_no_curves(options, training):
    training.ends = training.diverge
    asked = options(8, 14)
    runs = list(CLAIM.plan(asked))
    sweep.execute(runs)
    content = claim.conclude(CLAIM, asked, runs)
    assert [row["note"] for row in content["summary"]] == ["diverged", "diverged"]
    files = {path.name for path in asked.workdir.iterdir() if path.is_file()}
    assert files == {"results.json", "table.md", "report.html"}
    assert "diverged" in (asked.workdir / "report.html").read_text("utf-8")
