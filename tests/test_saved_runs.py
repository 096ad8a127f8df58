"""Runs that earlier revisions saved are evaluated, used for predictions and gone on with."""

import json
import math
import shutil
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from PIL import Image

import resnet_jax
from resnet_jax import config as configs
from resnet_jax import config_file, evaluate, families, predict, train, trained
from resnet_jax.run import directory, programs, records, start
from resnet_jax.tasks import TASKS
from resnet_jax.tasks.task import Generated
from resnet_jax.training import feeds, shard
from resnet_jax.training import state as states
from tests.in_process import command as in_process

ROOT = Path(__file__).parent.parent
# A ResNet-8 with 4 channels on digits that revision e8e0e5a trained for 110 of 240 steps and
# stopped by SIGTERM. What this revision measured at step 110, and at step 240 after it went on:
SAVED = ROOT / "tests" / "fixtures" / "run_e8e0e5a"
AT_110 = {"error": 53 / 297, "error_top5": 11 / 297, "loss": 0.7245111112241391}
AT_240 = {"train": 0.32636725044250486, "test": 0.6073804335160689}
OVERRIDES = {
    "model.width": "4",
    "steps": "240",
    "chunk_steps": "10",
    "eval_every": "60",
    "checkpoint_every": "240",
    "schedule.boundaries": "(120,180)",
    # The recipe has changed since then.
    "optimizer.decay": "all",
}


@pytest.fixture
def workdir(tmp_path):
    return shutil.copytree(SAVED, tmp_path / "run")


def recipe():
    return config_file.load(f"{ROOT}/configs/digits.py:depth=8", OVERRIDES)


def test_evaluate_measures_what_the_revision_measured(workdir, tmp_path, capsys):
    evaluate.main([f"--workdir={workdir}", f"--json={tmp_path / 'errors.json'}"])
    measured = json.loads((tmp_path / "errors.json").read_text("utf-8"))
    assert {name: measured[name] for name in AT_110} == pytest.approx(AT_110, abs=1e-4)
    assert "at step 110" in capsys.readouterr().out


def test_predict_sees_the_digits(workdir, tmp_path, capsys):
    from resnet_jax.data import sources

    digits = sources.load("digits", "").test
    files = [str(tmp_path / f"{i}.png") for i in range(16)]
    for file, image in zip(files, digits.images[..., 0], strict=False):
        Image.fromarray(image).save(file)
    predict.main([f"--workdir={workdir}", *files])
    lines = capsys.readouterr().out.splitlines()
    named = [
        int(after.split()[-1])
        for line, after in zip(lines, lines[1:], strict=False)
        if line.endswith(":")
    ]
    assert (np.array(named) == digits.labels[:16]).sum() >= 12


def test_train_goes_on(workdir):
    run = train.prepare(recipe(), workdir)
    assert run is not None
    train.train(run)
    assert [start["step"] for start in directory.read_starts(workdir)] == [0, 110]
    lines = records.read(workdir / "metrics.jsonl")
    assert [r["step"] for r in lines if r["split"] == "train"] == list(range(10, 241, 10))
    last = {r["split"]: r["loss"] for r in lines}
    # On the machine that made the fixture they are equal to the last digit.
    for split, loss in AT_240.items():
        assert math.isclose(last[split], loss, rel_tol=0.1)


def test_a_saved_config_is_today_s_config(workdir):
    saved = json.loads((workdir / "config.json").read_text("utf-8"))
    assert "patch" in saved["model"], "e8e0e5a saved the keys of every part"
    restored = configs.from_saved(saved)
    assert not configs.differences(recipe(), restored)
    assert configs.flatten(restored) == configs.flatten(recipe())


@pytest.mark.parametrize(
    "argument,old",
    [
        # What e8e0e5a saved in another form.
        ("depth=8,block=fixup_basic", {"norm.kind": "batch", "norm.momentum": 0.9}),
        ("depth=8,schedule=cosine", {"schedule.boundaries": (300,), "schedule.end": None}),
        # Keys that did not exist then.
        ("depth=8", {"task": None, "data.stream": None, "remat": None}),
    ],
)
def test_keys_of_another_form_and_missing_keys_take_the_value_that_reproduces_the_run(
    argument, old
):
    config = config_file.load(f"{ROOT}/configs/digits.py:{argument}")
    saved = configs.flatten(config) | old
    saved = {key: value for key, value in saved.items() if value is not None}
    assert configs.flatten(configs.from_saved(saved)) == configs.flatten(config)


def test_a_key_that_no_version_had_is_refused_by_name():
    saved = configs.flatten(recipe()) | {"model.colour": "blue"}
    with pytest.raises(ValueError, match="has the unknown model.colour: another version wrote it"):
        configs.from_saved(saved)


@pytest.mark.parametrize(
    "key,value,says",
    [
        ("steps", "many", "steps='many' must be int, such as 64000"),
        ("model.depth", 9, "depth 9 is not 6n+2 (basic blocks); nearest 8 and 14"),
        ("model.block", "round", "block=round is not a block of family=resnet, which has"),
    ],
)
def test_a_saved_config_that_cannot_be_read_is_named(tmp_path, key, value, says):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(configs.flatten(recipe()) | {key: value}))
    with pytest.raises(ValueError) as error:
        trained.read_config(tmp_path)
    assert str(error.value).startswith(f"{path}: ") and says in str(error.value)


def test_python_predicts_as_the_command_does_and_refuses_other_ranges(workdir):
    from resnet_jax.data import sources

    run, digits = resnet_jax.load(str(workdir)), sources.load("digits", "").test
    wrong = (run.predict(digits.images).argmax(1) != digits.labels).mean()
    assert wrong == pytest.approx(AT_110["error"])
    levels = np.round(digits.images / (255 / 16)).astype(np.uint8)
    for images, message in (
        (levels, r"uint8 from 0 to 16; .* mean pixel in training was 78; .* \(255 / 16 \* images"),
        (levels * 1.0, r"float64 from 0 to 16; this run takes uint8 .* \(255 / 16 \* images"),
        (digits.images / np.float32(255), r"float32 from 0 to 1; .*: pass \(255 \* images\)"),
        (digits.images / 255 - 0.5, "from -0.5 to 0.5; .* as they were before they were normali"),
        (digits.images.astype(np.int64), r"int64 from 0 to 255; .*: pass images.round\(\).asty"),
        (np.where(digits.images > 9, np.inf, 0), "from 0 to inf; .*: give finite numbers"),
        (digits.images.astype(str), "images are <U3; this run takes uint8 from 0 to 255: give f"),
        (digits.images[..., 0], r"shape \(297, 8, 8\); give an array of shape \(n, 8, 8, 1\)"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            run.predict(images)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["evaluate", "predict"])
@pytest.mark.parametrize("mean", ["[0.5, 0.5]", "[NaN]", '"x"'])
def test_damaged_statistics_are_named(workdir, name, mean):
    path = workdir / "normalisation.json"
    path.write_text(f'{{"mean": {mean}, "std": [1.0]}}')
    Image.new("L", (8, 8)).save(workdir / "image.png")
    words = [workdir / "image.png"] if name == "predict" else []
    refusal = in_process(name, f"--workdir={workdir}", *words).refusal
    assert refusal.startswith(f"{path} is damaged: ")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_init_refuses_what_a_run_refuses(seed):
    with pytest.raises(ValueError, match=f"seed={seed} must not be negative and must be below"):
        resnet_jax.init(recipe(), seed)
    narrow = recipe().copy_and_resolve_references()
    narrow.model.width = -4
    with pytest.raises(ValueError, match="model.width=-4 must be positive"):
        resnet_jax.init(narrow)


def test_the_generator_that_the_environment_names_changes_no_run():
    split = Generated(lambda key: (jax.random.normal(key, (3,)),) * 2, 20)

    def drawn():
        variables = resnet_jax.init(recipe(), seed=3)
        key = jax.random.key_data(states.begin(3, variables, optax.sgd(0.1)).key)
        feed = feeds.generated(shard.mesh(devices=1), split, (3,), 8, "train")
        places, masks = feed.draw(0, 1)
        return variables, key, feed.fetch(feed.source, (places[0], masks[0]), None).input

    usual = drawn()
    with jax.default_prng_impl("rbg"):
        jax.tree.map(np.testing.assert_array_equal, usual, drawn())


def test_types_that_the_environment_names_are_refused_unless_the_config_names_them(x64):
    with pytest.raises(ValueError, match="dtype=float32 with JAX_ENABLE_X64=1 in the environment"):
        configs.check(recipe())
    double = recipe().copy_and_resolve_references()
    double.dtype = "float64"
    configs.check(double)


@pytest.mark.parametrize("option,value", [("threefry_partitionable", False), ("disable_jit", True)])
def test_options_that_change_or_prevent_every_run_are_refused(option, value):
    with getattr(jax, option)(value), pytest.raises(ValueError, match=f"JAX_{option.upper()}=. is"):
        configs.check(recipe())


def test_init_draws_what_a_run_of_the_seed_starts_with():
    """The dense highway sows gains, which once changed the last bits of what is drawn."""
    config = config_file.load(f"{ROOT}/configs/digits.py:family=highway,block=dense,depth=4")
    first = programs.first_state(
        start.Run(config, Path(), shard.mesh(devices=1), TASKS[config.task].build(config), {}),
        families.build(config),
        None,
    )
    drawn = resnet_jax.init(config, seed=config.seed)
    assert set(drawn) == {"params"}
    jax.tree.map(np.testing.assert_array_equal, drawn["params"], first.params)


def test_the_version_is_the_package_s():
    assert resnet_jax.__version__ == metadata.version("resnet_jax")
