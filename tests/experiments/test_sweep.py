"""The runs of a plan: what --list prints, and which of them are trained."""

import pytest

from experiments import sweep


@pytest.fixture
def runs(options):
    asked = options(8, 14)
    return [
        asked.run(f"resnet-{depth}", ("resnet", depth), seed)
        for seed in (0, 1)
        for depth in (8, 14)
    ]


def test_a_list_has_number_network_seed_state_and_folder(runs, finish, capsys, tmp_path):
    finish(runs[1])
    (tmp_path / "sweep" / "resnet-8-seed1").mkdir()
    lines = '{"step": 30, "split": "train"}\n{"step": 60, "split": "train"}\n'
    (tmp_path / "sweep" / "resnet-8-seed1" / "metrics.jsonl").write_text(lines)
    sweep.show(runs)
    folder = tmp_path / "sweep"
    assert capsys.readouterr().out.splitlines() == [
        f"   0  resnet-8             seed 0         0/300  {folder}/resnet-8-seed0",
        f"   1  resnet-14            seed 0      finished  {folder}/resnet-14-seed0",
        f"   2  resnet-8             seed 1        60/300  {folder}/resnet-8-seed1",
        f"   3  resnet-14            seed 1         0/300  {folder}/resnet-14-seed1",
    ]


def test_a_run_of_replicas_is_listed_with_its_seeds(options, capsys):
    asked = options(8, overrides={"replicas": "2"})
    sweep.show([asked.run("resnet-8", ("resnet", 8), 0)])
    assert "seed 0 to 1         0/300" in capsys.readouterr().out


def test_what_is_missing_is_trained_and_runs_that_diverge_stop_no_other(
    runs, finish, training, capsys
):
    finish(runs[0])
    training["resnet-14-seed0"] = FloatingPointError("the training loss is nan")
    training["resnet-8-seed1"] = FloatingPointError("the training loss is inf")
    with pytest.raises(FloatingPointError) as failed:
        sweep.execute(runs)
    assert str(failed.value) == (
        "2 of 4 runs diverged. resnet-14, seed 0: the training loss is nan"
    )
    said = capsys.readouterr().out
    assert "[1/4]" not in said and "[2/4] resnet-14, seed 0" in said
    assert [sweep.finished(run) for run in runs] == [True, False, False, True]


def test_one_run_has_no_number_and_its_own_error(runs, training, capsys):
    training["resnet-8-seed0"] = FloatingPointError("the training loss is nan")
    with pytest.raises(FloatingPointError, match="^resnet-8, seed 0: the training loss is nan$"):
        sweep.execute(runs[:1])
    assert capsys.readouterr().out.startswith("resnet-8, seed 0\n")
    with pytest.raises(ValueError, match="--run=4 is not one of --list's 0 to 3"):
        sweep.chosen(runs, 4)


def test_a_folder_of_another_run_is_refused(runs, options, finish):
    finish(runs[0])
    asked = options(8, 14, overrides={"norm.momentum": "0.5"})
    with pytest.raises(ValueError, match="norm.momentum is 0.9 in that run and 0.5 now"):
        sweep.check([asked.run("resnet-8", ("resnet", 8), 0)])


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
