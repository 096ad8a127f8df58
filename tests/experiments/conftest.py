"""Options made by hand, and training that only writes what a finished run would hold."""

import json
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from experiments.flags import CONFIGS
from experiments.plan import Options
from resnet_jax import config as configs
from resnet_jax import train
from resnet_jax.run import checkpoint, manifest
from resnet_jax.tasks import TASKS


@pytest.fixture
def options(tmp_path):
    """options(8, 20, steps=..., ...) -> Options for ResNets of these depths on digits."""

    def make(*depths, **fields):
        networks = tuple(("resnet", depth) for depth in depths)
        return Options(
            **{"workdir": epath.Path(tmp_path / "sweep"), "recipe": CONFIGS / "digits.py"}
            | {"networks": networks}
            | fields
        )

    return make


@pytest.fixture
def finish():
    """finish(run, 0.25) writes the directory of a finished run whose scores end at 0.25."""
    return lambda run, *arguments, **fields: write(run.config, run.workdir, *arguments, **fields)


@pytest.fixture
def training(monkeypatch):
    """Replace training; return the dict {folder's name: last score}, which a test fills.

    The folder is named in short, as `model-seedS`. A run without a score there ends at 0.25, and a
    run with an exception there raises it.
    """
    scores: dict[str, Any] = {}

    def prepare(config, workdir):
        done = checkpoint.finished(workdir, config.steps)
        return None if done else (config, workdir)

    def train_one(run):
        config, workdir = run
        score = scores.get(workdir.name, 0.25)
        if isinstance(score, Exception):
            raise score
        write(config, workdir, score)

    monkeypatch.setattr(train, "prepare", prepare)
    monkeypatch.setattr(train, "train", train_one)
    return scores


def write(config, workdir, value=0.25, revision="abc", device="cpu:cpu"):
    folder = Path(workdir)
    score, epoch = TASKS[config.task].score, 1500
    saved = folder / "checkpoints" / str(config.steps)
    saved.mkdir(parents=True)
    (saved / "data").write_text("weights")
    manifest.write(saved)
    (folder / "config.json").write_text(configs.to_json(config))
    start = {
        "devices": [device],
        "versions": {"jax": "1", "revision": revision},
        "seconds": 2.0,
        f"chance_{score}": 0.9,
    }
    (folder / "run.json").write_text(json.dumps([start]))
    lines = [
        {"step": step, "split": split, "seed": seed, "loss": 2.0, score: at, "examples": epoch}
        for seed in configs.seeds(config)
        for step, at in ((config.steps // 2, 0.9), (config.steps, value))
        for split in ("train", "test")
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
