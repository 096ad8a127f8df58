"""A claim is one file: everything else is the frame's, from the command line to the report."""

import importlib.util
import json

import pytest

from experiments import __main__ as index
from experiments import claim
from experiments.claim import Claim, Verdict

SMALL = '''
"""Wider networks fit the digits better."""

from statistics import fmean

from experiments import claim
from experiments.claim import Claim, Verdict
from resnet_jax import command


def plan(options):
    """Return networks of 4 and of 16 channels, equal but for that, with two seeds."""
    return [
        options.run(f"width-{width}", network, seed, values={"model.width": width})
        for seed in options.seeds(2)
        for network in options.networks
        for width in (4, 16)
    ]


def judge(rows):
    """Compare the mean training errors."""
    mean = lambda model: fmean(row["train_error"] for row in rows if row["model"] == model)
    narrow, wide = mean("width-4"), mean("width-16")
    return Verdict(wide < narrow, f"{wide:.1%} with 16 channels, {narrow:.1%} with 4.")


CLAIM = Claim("wider", __doc__, "ours", "error(16) < error(4)", plan, judge, depths=lambda *_: (8,))
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
'''


@pytest.fixture
def small(tmp_path):
    """Return the module of a small claim's file."""
    path = tmp_path / "wider.py"
    path.write_text(SMALL)
    spec = importlib.util.spec_from_file_location("wider", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_small_file_is_a_whole_experiment(small, training, tmp_path, capsys):
    words = [f"--workdir={tmp_path}/runs", "--steps=40"]
    training.update({"width-4-seed0": 0.4, "width-4-seed1": 0.2, "width-16-seed0": 0.1})

    small.main([*words, "--list"])
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in listed] == 2 * ["width-4", "width-16"]
    assert not (tmp_path / "runs").exists()

    small.main([*words, "--run=1"])
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["width-16-seed0"]

    small.main(words)
    said = capsys.readouterr().out
    assert "[2/4]" not in said and "[4/4] width-16, seed 1" in said
    assert "holds: 17.5% with 16 channels, 30.0% with 4." in said
    files = {path.name for path in (tmp_path / "runs").iterdir() if path.is_file()}
    assert files == {"results.json", "table.md", "figure.png", "report.html"}
    results = json.loads((tmp_path / "runs" / "results.json").read_text("utf-8"))
    assert results["verdict"]["holds"] is True
    assert [row["n"] for row in results["summary"]] == [2, 2]
    assert results["runs"][0]["changes"] == ["steps=40", "model.width=4"]


@pytest.mark.parametrize(
    "words,message",
    [
        (["--run=4"], "--run=4 is not one of --list's 0 to 3"),
        (["--config.model.width=2"], "--config.model.width is set by the claim"),
        (["--config=configs/reconstruction.py"], "the claim is about task=classification"),
        (["--models=lenet:5"], "model.width is a key of family=resnet"),
        (["--depths=9"], "depth 9 is not 6n+2"),
        (["--seeds=0"], "argument --seeds: 0 is less than 1"),
    ],
)
def test_what_cannot_run_is_one_line_and_writes_nothing(small, tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        small.main([f"--workdir={tmp_path}/runs", *words])
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_another_run_stops_everything(small, training, tmp_path, capsys):
    words = [f"--workdir={tmp_path}/runs", "--steps=40"]
    small.main([*words, "--run=3"])
    with pytest.raises(SystemExit):
        small.main([*words, "--config.norm.momentum=0.5"])
    assert "norm.momentum is 0.9 in that run and 0.5 now" in capsys.readouterr().err


def test_help_has_the_statement_the_rule_the_flags_and_an_example(small, capsys):
    with pytest.raises(SystemExit) as end:
        small.main(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0
    for part in (
        *("Wider networks fit the digits better.", "Rule: error(16) < error(4)", "--jobs"),
        *("python -m experiments.wider --workdir=runs/wider", "optimizer.learning_rate"),
    ):
        assert part in text


def test_a_claim_measures_columns_of_its_own_and_draws_them(options, finish):
    asked = options(8)
    runs = [
        asked.run("resnet-8", ("resnet", 8), 0),
        asked.run("start", ("resnet", 8), 0, trained=False),
    ]
    finish(runs[0])

    def layers(rows):
        from matplotlib.figure import Figure

        assert [row["layers"] for row in rows] == [8, 8]
        figure = Figure()
        figure.subplots().plot([row["layers"] for row in rows])
        return figure

    own = Claim(
        "count",
        "Networks have layers.",
        "ours",
        "layers > 7",
        plan=lambda options: runs,
        measure=lambda run: [{"layers": run.config.model.depth}],
        judge=lambda rows: Verdict(all(row["layers"] > 7 for row in rows), "They have."),
        columns={"layers": ".1f"},
        figures=(layers,),
    )
    results = claim.conclude(own, asked, runs)
    assert results["verdict"] == {"holds": True, "rule": "layers > 7", "says": "They have."}
    assert [row["layers_mean"] for row in results["summary"]] == [8, 8]
    assert "| 8.0 |" in " ".join((asked.workdir / "table.md").read_text("utf-8").split())
    assert (asked.workdir / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert "<h2>Layers</h2>" in (asked.workdir / "report.html").read_text("utf-8")


def test_a_claim_without_trained_runs_has_no_curves(options):
    asked = options(8)
    run = asked.run("start", ("resnet", 8), 0, trained=False)
    own = Claim(
        "count", "It counts.", "ours", "1 > 0", lambda options: [run],
        measure=lambda run: [{"value": 1.0}],
        judge=lambda rows: Verdict(None, "It is open."),
        columns={"value": ".2f"},
    )  # fmt: skip
    assert claim.conclude(own, asked, [run])["verdict"]["holds"] is None
    assert not (asked.workdir / "figure.png").exists()
    assert "Not shown at this scale." in (asked.workdir / "report.html").read_text("utf-8")


def test_every_claim_has_the_name_of_its_file_and_is_listed(capsys):
    claims = index.claims()
    assert "degradation" in claims
    for name, own in claims.items():
        assert own.name == name
    index.main()
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in listed for name in claims)
    assert "experiments.NAME" in listed


def test_processes_meet_before_jax_is_asked_for_devices(small, tmp_path, monkeypatch):
    order = []
    joined = claim.cluster.join
    monkeypatch.setattr(claim.cluster, "join", lambda a: order.append("join") or joined(a))
    monkeypatch.setattr(claim.plan, "check", lambda *_: order.append("check"))
    monkeypatch.setattr(claim.sweep, "execute", lambda runs: order.append("execute"))
    small.main([f"--workdir={tmp_path}/runs", "--run=0"])
    assert order == ["join", "check", "execute"]


def test_jobs_and_lists_take_no_accelerator(small, training, tmp_path, monkeypatch):
    updates = []
    monkeypatch.setattr(claim.jax.config, "update", lambda *words: updates.append(words))
    monkeypatch.setattr(claim.sweep, "execute_apart", lambda runs, *_: claim.sweep.execute(runs))
    monkeypatch.setattr(claim, "conclude", lambda *_: None)
    small.main([f"--workdir={tmp_path}/runs", "--steps=40", "--run=0"])
    assert not updates
    for words in (["--list"], ["--jobs=2"]):
        small.main([f"--workdir={tmp_path}/runs", "--steps=40", *words])
    assert updates == 2 * [("jax_platforms", "cpu")]
