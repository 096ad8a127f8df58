"""The runs of a plan: what --list prints, and which of them are trained."""

import json

import pytest

from experiments import results, sweep


@pytest.fixture
def runs(options):
    asked = options(8, 14)
    return [
        asked.run(f"resnet-{depth}", ("resnet", depth), seed)
        for seed in (0, 1)
        for depth in (8, 14)
    ]


def test_a_list_has_number_network_seed_state_and_folder(runs, finish, training, capsys):
    finish(runs[1])
    runs[2].workdir.mkdir()
    lines = '{"step": 30, "split": "train"}\n{"step": 60, "split": "train"}\n'
    (runs[2].workdir / "metrics.jsonl").write_text(lines)
    training.ends = training.diverge
    sweep.execute(runs[3:])
    capsys.readouterr()
    sweep.show(runs)
    assert capsys.readouterr().out.splitlines() == [
        f"   0  resnet-8             seed 0         0/300  {runs[0].workdir}",
        f"   1  resnet-14            seed 0      finished  {runs[1].workdir}",
        f"   2  resnet-8             seed 1        60/300  {runs[2].workdir}",
        f"   3  resnet-14            seed 1      diverged  {runs[3].workdir}",
    ]


def test_a_run_of_replicas_is_listed_with_its_seeds(options, capsys):
    asked = options(8, overrides={"replicas": "2"})
    sweep.show([asked.run("resnet-8", ("resnet", 8), 0)])
    assert "seed 0 to 1         0/300" in capsys.readouterr().out


def test_what_is_missing_is_trained_and_runs_that_diverge_stop_no_other(
    runs, finish, training, capsys
):
    finish(runs[0])
    training.ends = lambda config: training.diverge(config) if config.model.depth == 14 else 0.25
    sweep.execute(runs)
    said = capsys.readouterr().out
    assert "[1/4]" not in said and "[2/4] resnet-14, seed 0\n" in said
    assert said.count("diverged: the training loss is nan at step 30\n") == 2
    assert [sweep.state(run) for run in runs] == 2 * ["finished", "diverged"]
    assert len(training.trained) == 3
    sweep.execute(runs)
    assert len(training.trained) == 3, "what diverged would diverge again"


def test_one_run_has_no_number(runs, training, capsys):
    sweep.execute(runs[:1])
    assert capsys.readouterr().out == "resnet-8, seed 0\n"
    with pytest.raises(ValueError, match="--run=4 is not one of --list's 0 to 3"):
        sweep.chosen(runs, 4)


def test_models_of_one_config_share_a_run(options, training, monkeypatch):
    asked = options(8)
    models = [asked.run(model, ("resnet", 8), 0) for model in ("base", "again")]
    models += [asked.run("wide", ("resnet", 8), 0, values={"model.width": 32})]
    assert models[0].workdir == models[1].workdir != models[2].workdir
    asked = []
    monkeypatch.setattr(sweep.jobs, "run", lambda missing, *_: asked.append(missing) or [])
    sweep.execute_apart(models, 3, [])
    assert asked == [{0: "base, seed 0", 2: "wide, seed 0"}]
    sweep.execute(models)
    assert [config.model.width for config in training.trained] == [16, 32]
    assert {sweep.state(run) for run in models} == {"finished"}


def test_each_start_records_the_rules(runs, training):
    sweep.execute(runs[:1], {"depth": "a1", "loss": "b2"})
    sweep.execute(runs[1:2])
    assert [results.rules_of(run) for run in runs[:2]] == [[{"depth": "a1", "loss": "b2"}], [{}]]
    assert not results.other_rules(runs, "depth", "a1")
    assert results.other_rules(runs, "depth", "a2")
    assert not results.other_rules(runs, "width", "c3"), "no run has been judged by it"


def test_a_folder_of_another_run_is_refused(runs, finish):
    finish(runs[0])
    path = runs[0].workdir / "config.json"
    saved = json.loads(path.read_text("utf-8"))
    saved["norm"]["momentum"] = 0.5
    path.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="norm.momentum is 0.5 in that run and 0.9 now"):
        sweep.check(runs)


def test_a_run_that_needs_no_training_is_finished(options, training, capsys):
    run = options(8).run("resnet-8", ("resnet", 8), 0, trained=False)
    sweep.check([run])
    sweep.execute([run])
    sweep.show([run])
    assert "finished" in capsys.readouterr().out and not run.workdir.exists()


def test_runs_at_once_are_the_missing_ones(runs, finish, monkeypatch):
    asked = []
    monkeypatch.setattr(sweep.jobs, "run", lambda *words: asked.append(words) or [])
    finish(runs[1])
    sweep.execute_apart(runs, 2, ["-m", "experiments.test"])
    missing = {0: "resnet-8, seed 0", 2: "resnet-8, seed 1", 3: "resnet-14, seed 1"}
    assert asked == [(missing, 2, ["-m", "experiments.test"])]


def test_runs_at_once_that_fail_are_counted(runs, monkeypatch, capsys):
    monkeypatch.setattr(sweep.jobs, "run", lambda *words: ["resnet-8, seed 0: no memory"])
    with pytest.raises(SystemExit) as end:
        sweep.execute_apart(runs, 2, [])
    assert end.value.code == 1
    assert capsys.readouterr().err == ("error: 1 of 4 runs failed. resnet-8, seed 0: no memory\n")
