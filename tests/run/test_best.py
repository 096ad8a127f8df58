"""The best epoch by a validation split: chosen, kept, measured, and chosen again after a stop."""

import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from resnet_jax import train as training
from resnet_jax import trained
from resnet_jax.data import order
from resnet_jax.run import best, checkpoint, records
from tests.in_process import command
from tests.run.conftest import CHANGES
from tests.run.test_resume import flip

# The network that is evaluated is a moving average of one whose gradients come in two parts. It has
# three blocks, with which the errors of the three epochs differ.
VALIDATED = CHANGES | {
    "model.stages": "(1, 1, 1)",
    "model.width": "8",
    "data.validation": "150",
    "data.validation_seed": "3",
    "eval_every": "2",
    "optimizer.ema_decay": "0.5",
    "optimizer.groups": "((r'.*/bias', 0.5, 0.0),)",
    "accumulate": "2",
}


@pytest.fixture(scope="module")
def start(digits):
    """Return the function that starts or resumes the run with a validation split."""

    def start(workdir):
        prepared = training.prepare(digits(8, VALIDATED), workdir)
        assert prepared is not None
        training.train(prepared)
        return prepared

    return start


@pytest.fixture(scope="module")
def run(start, tmp_path_factory):
    """Return the directory of a finished run, and what was prepared. Do not change it."""
    workdir = tmp_path_factory.mktemp("validated") / "run"
    return workdir, start(workdir)


def lines(workdir, split):
    return [line for line in records.read(workdir / "metrics.jsonl") if line["split"] == split]


def test_the_best_epoch_is_kept_and_measured(run, tmp_path, capsys):
    workdir, prepared = run
    assert (len(prepared.dataset.train), len(prepared.dataset.validation)) == (1350, 150)
    validated = lines(workdir, "validation")
    assert [(line["step"], line["examples"]) for line in validated] == [
        (2, 150),
        (4, 150),
        (6, 150),
    ]
    lowest = min(validated, key=lambda line: (line["error"], line["step"]))
    assert best.of_records(validated, "error") == (lowest["error"], lowest["step"])
    listed = checkpoint._listed_steps(workdir)[0]
    assert lowest["step"] in listed, "a run that goes on must not come before its best epoch"
    loaded = trained.load(workdir, best=True)
    assert loaded.step == lowest["step"] and trained.load(workdir).step == 6
    done = command("evaluate", f"--workdir={workdir}", "--best")
    at_best = next(line for line in lines(workdir, "test") if line["step"] == lowest["step"])
    assert f"test error {at_best['error']:.2%}" in done.out, done.err
    assert f"at step {lowest['step']}" in done.out
    # What is evaluated are the averages.
    assert loaded.variables == loaded.state.ema
    assert any(
        (a != b).any()
        for a, b in zip(
            *map(jax.tree.leaves, (loaded.state.ema["params"], loaded.state.params)), strict=True
        )
    )


def test_a_run_that_was_stopped_keeps_the_same_best_epoch(run, start, tmp_path, capsys):
    workdir, copied = run[0], tmp_path / "run"
    shutil.copytree(workdir, copied)
    flip(copied, 6)
    start(copied)
    said = capsys.readouterr().out
    assert "resumes at step 4" in said and "best validation error" in said
    assert "optimizer.groups: .*/bias has 0.5 x the rate and 0 x the decay" in said
    for name in ("metrics.jsonl", "best/saved.jsonl"):
        assert (copied / name).read_text("utf-8") == (workdir / name).read_text("utf-8")
    states = [trained.load(folder, best=True).state for folder in (workdir, copied)]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        assert (a == b).all()


def test_a_best_epoch_that_is_damaged_is_named_and_the_run_goes_on(run, start, tmp_path, capsys):
    copied = shutil.copytree(run[0], tmp_path / "run")
    for step in checkpoint._listed_steps(copied / "best")[0]:
        if (copied / "best" / "checkpoints" / str(step)).exists():
            flip(copied / "best", step)
    assert "none is good any more" in command("evaluate", f"--workdir={copied}", "--best").refusal
    flip(copied, 6)
    start(copied)
    assert lines(copied, "test") == lines(run[0], "test")
    # The epochs whose checkpoints are lost count no longer: the next is the best.
    assert trained.load(copied, best=True).step == 6
    said = capsys.readouterr().out
    lowest = best.of_records(lines(copied, "validation"), "error")
    assert (f"step {lowest.step} had a lower validation error" in said) == (lowest.step != 6)


def test_a_best_epoch_after_the_step_from_which_a_run_goes_on_is_removed(tmp_path):
    workdir, state = epath.Path(tmp_path), {"a": jax.numpy.ones(3)}
    scores = {2: 0.5, 6: 0.25}
    rows = [{"split": "validation", "step": step, "error": at} for step, at in scores.items()]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with best.Best(workdir, "error", 0) as kept:
        assert [kept.note(step, {"error": at}, state) for step, at in scores.items()] == [True] * 2
    with best.Best(workdir, "error", 4) as kept:
        assert kept.best == (0.5, 2) and checkpoint.find(workdir / "best").step == 2
        assert not kept.note(6, {"error": 0.5}, state)


def test_a_run_without_a_validation_split_has_no_best_epoch(run, tmp_path):
    copied = shutil.copytree(run[0], tmp_path / "run")
    config = json.loads((copied / "config.json").read_text("utf-8"))
    for data in (config["data"] | {"validation": 0, "validation_seed": 0}, {}):
        (copied / "config.json").write_text(json.dumps(config | {"data": data}))
        with pytest.raises(
            ValueError, match="has no best epoch: only a validation split can choos"
        ):
            best.find(copied, "error")


@pytest.mark.parametrize(
    "changes,says",
    [
        ({"data.validation": "1500"}, "leaves nothing of the 1500 training examples of digits"),
        ({"data.validation": "9", "replicas": "2"}, "each network has a best epoch of its own"),
        ({"data.validation_seed": "9"}, "data.validation_seed=9 changes nothing"),
        ({"data.validation": "1490"}, "batch_size=16 is larger than the training split of digits"),
        ({"accumulate": "3"}, "accumulate=3 does not divide batch_size=16; nearest 2"),
        ({"data.mixup": "0.2", "batch_size": "15"}, "batch_size=15 is odd, and mixup and cutmix"),
        ({"data.mixup": "0.2", "model.num_classes": "1"}, "data.mixup=0.2 with one class: there"),
        ({"data.pad": "8", "data.padding": "reflect"}, "images of 8 pixels reflect at most 7"),
        ({"data.label_smoothing": "1.0"}, "data.label_smoothing=1.0 must lie in [0, 1)"),
        ({"data.cutout": "3"}, "data.cutout=3 must be even and not negative"),
        ({"data.cutout": "18"}, "data.cutout=18 would cover every image of 8 pixels"),
        ({"data.mixup": "1e-9"}, "data.mixup=1e-09 must be 0, or lie in [0.001, 1000]"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(digits, tmp_path, changes, says):
    with pytest.raises(ValueError) as error:
        training.prepare(digits(4, CHANGES | {"norm.group_size": "0"} | changes), tmp_path / "run")
    assert says in str(error.value) and "\n" not in str(error.value)


def test_what_is_set_aside_follows_from_its_seed_and_is_never_trained_on():
    kept, aside = order.held_out(3, 150, 1500)
    assert sorted([*kept, *aside]) == list(range(1500)) and len(aside) == 150
    again, other = order.held_out(3, 150, 1500)[1], order.held_out(4, 150, 1500)[1]
    np.testing.assert_array_equal(aside, again)
    assert (aside != other).any() and (np.diff(aside) > 0).all()
