"""Imported work directories: their content, what may follow, what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest

from resnet_jax import convert, evaluate, tensors, train, trained
from resnet_jax.run import directory, records
from resnet_jax.tasks import image_data
from tests.recipes import changed, recipe


def test_an_import_is_a_run_at_step_0_with_a_fresh_optimizer(imported):
    workdir, config, _ = imported
    run = trained.load(workdir)
    assert run.config == config and int(run.state.step) == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(run.state.opt_state))
    assert sorted(p.name for p in workdir.parent.iterdir()) == ["run", "weights.safetensors"]


def test_an_export_is_the_file_that_was_imported(imported, tmp_path):
    workdir, _, file = imported
    assert convert.export_weights("akamaster", workdir, tmp_path / "out.safetensors") == 0
    expected, exported = tensors.read(file), tensors.read(tmp_path / "out.safetensors")
    assert exported.keys() == expected.keys()
    for name in exported:
        np.testing.assert_array_equal(exported[name], expected[name], strict=True)


@pytest.fixture(scope="module")
def tuned(imported, tmp_path_factory):
    """Return a run of the imported weights at a rate that changes nothing, and the run before."""
    _, config, file = imported
    config = changed(config, {"optimizer.learning_rate": 1e-30, "optimizer.weight_decay": 0.0})
    workdir = tmp_path_factory.mktemp("tuned") / "run"
    convert.import_weights("akamaster", file, config, workdir)
    before = trained.load(workdir)
    prepared = train.prepare(config, workdir)
    assert prepared is not None
    train.train(prepared)
    return workdir, before


def test_training_goes_on_from_the_imported_weights(tuned, tmp_path):
    workdir, before = tuned
    after = trained.load(workdir)
    assert int(after.state.step) == before.config.steps
    jax.tree.map(np.testing.assert_array_equal, before.state.params, after.state.params)
    assert [s["step"] for s in directory.read_starts(workdir)] == [0]
    lines = records.read(workdir / "metrics.jsonl")
    assert [r["step"] for r in lines if r["split"] == "train"] == [2, 4]
    assert convert.export_weights("akamaster", workdir, tmp_path / "tuned.safetensors") == 4


def test_an_evaluation_repeats_the_last_record_of_a_run(tuned):
    run = trained.load(tuned[0])
    assert (tuned[0] / "normalisation.json").exists()
    dataset = image_data.dataset(run.config)
    measured = evaluate.evaluate(run, dataset, trained.statistics(run))
    lines = records.read(tuned[0] / "metrics.jsonl")
    last = [r for r in lines if r["split"] == "test"][-1]
    for name in ("loss", "error", "examples"):
        assert measured[name] == pytest.approx(last[name], rel=1e-5)


def test_constants_of_normalisation_are_saved_without_the_data(imported, tmp_path):
    changes = {"data.mean": (0.5,), "data.std": (0.25,), "model.width": 4}
    config = recipe("digits", "depth=14,skip=A_split,normalisation=constants", **changes)
    file = imported[2]
    convert.import_weights("akamaster", file, config, tmp_path / "new" / "run")
    saved = json.loads((tmp_path / "new" / "run" / "normalisation.json").read_text("utf-8"))
    assert saved == {"mean": [0.5], "std": [0.25]}


def test_an_import_may_go_into_an_empty_directory_and_into_no_other(imported, tmp_path):
    _, config, file = imported
    (tmp_path / "empty").mkdir()
    convert.import_weights("akamaster", file, config, tmp_path / "empty")
    assert trained.load(tmp_path / "empty").config == config
    with pytest.raises(ValueError, match="is not empty"):
        convert.import_weights("akamaster", file, config, tmp_path / "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is not empty"):
        convert.import_weights("akamaster", file, config, tmp_path / "file")


def test_an_import_that_fails_leaves_nothing(imported, tmp_path, monkeypatch):
    _, config, file = imported
    other = changed(config, {"model.num_classes": 7})
    with pytest.raises(ValueError, match="use --new_head, or --config.model.num_classes=10$"):
        convert.import_weights("akamaster", file, other, tmp_path / "run")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(convert.Checkpoints, "save", full)
    with pytest.raises(OSError, match="no space"):
        convert.import_weights("akamaster", file, config, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_directory_without_a_checkpoint_is_not_exported(imported, tmp_path):
    file = tmp_path / "out.safetensors"
    with pytest.raises(ValueError, match="holds no run"):
        convert.export_weights("akamaster", tmp_path / "none", file)
    shutil.copytree(imported[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(OSError, match="step 0: its folder is gone"):
        convert.export_weights("akamaster", tmp_path / "run", file)
    (tmp_path / "run" / "saved.jsonl").unlink()
    with pytest.raises(ValueError, match="run has no checkpoint"):
        convert.export_weights("akamaster", tmp_path / "run", file)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "change,says",
    [
        (lambda c: c.update(colour=1), "has the unknown colour"),
        (lambda c: c["model"].update(depth="deep"), "model.depth='deep' must be int"),
        (lambda c: c["model"].update(depth=15), "depth 15 is not 6n"),
        (
            lambda c: c["model"].update(block="square"),
            "block=square is not a block of family=resnet",
        ),
    ],
)
def test_a_config_that_this_version_cannot_read_is_one_line(imported, tmp_path, change, says):
    workdir = tmp_path / "run"
    shutil.copytree(imported[0], workdir)
    saved = json.loads((workdir / "config.json").read_text("utf-8"))
    change(saved)
    (workdir / "config.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=says) as error:
        trained.load(workdir)
    assert "\n" not in str(error.value)


def test_a_key_that_a_saved_config_lacks_takes_its_default(imported, tmp_path):
    shutil.copytree(imported[0], tmp_path / "run")
    saved = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    del saved["norm"]["momentum"], saved["nonfinite"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved))
    assert trained.load(tmp_path / "run").config == imported[1]


def test_a_config_that_is_cut_short_is_one_line(imported, tmp_path):
    shutil.copytree(imported[0], tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text('{"seed": 0, "mod')
    with pytest.raises(OSError, match="config.json is damaged"):
        trained.load(tmp_path / "run")
