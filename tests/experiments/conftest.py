"""Options made by hand, a small claim, and training that only writes what a run would leave."""

import importlib.util
import json
from pathlib import Path

import pytest
from etils import epath

from experiments.flags import CONFIGS
from experiments.plan import Options
from resnet_jax import config as configs
from resnet_jax import train
from resnet_jax.reporting import figures
from resnet_jax.run import checkpoint, manifest
from resnet_jax.tasks import TASKS

SMALL = '''
"""Wider networks fit the digits better."""

from experiments import claim
from experiments.claim import Claim, Verdict
from experiments.rows import relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import larger


def plan(options):
    """Return networks of 4 and of 16 channels, equal but for that, with three seeds."""
    return [
        options.run(f"width-{width}", network, seed, values={"model.width": width})
        for seed in options.seeds(3)
        for network in options.networks
        for width in (4, 16)
    ]


def judge(rows):
    """Compare the mean training errors."""
    narrow, wide = (sample(rows, "train_error", model=f"width-{width}") for width in (4, 16))
    test = larger(narrow, wide, 0.05)
    return Verdict.of(test, f"{test.effect:.1%} better with 16 channels than with 4.")


def control(rows):
    """Return the narrow networks in the place of the wide ones, too."""
    narrow = where(rows, model="width-4")
    return narrow + relabelled(narrow, model="width-16")


CLAIM = Claim(
    "wider", __doc__, "ours", "error(4) - error(16) > 5 points", plan, judge,
    depths=lambda *_: (8,), control=control, against="equal networks",
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
'''


@pytest.fixture
def small(tmp_path):
    """Return the module of a small claim's file, which is wider.py in the test's folder."""
    path = tmp_path / "wider.py"
    path.write_text(SMALL)
    spec = importlib.util.spec_from_file_location("wider", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
def undrawn(monkeypatch):
    """Leave out the curves, which take a second."""
    monkeypatch.setattr(figures, "score_curves", lambda curves, path, *_: path.write_text(""))


class Training:
    """What replaces training: how runs end, and the configs that were trained.

    `ends` is a function of the config: it returns the last score of a run, or is `diverge`.
    """

    def __init__(self):
        self.ends = lambda config: 0.25
        self.trained = []

    @staticmethod
    def diverge(config):
        """End as a run that diverges."""
        raise FloatingPointError("the training loss is nan at step 30")


@pytest.fixture
def training(monkeypatch):
    """Replace training, and return the Training that says how runs end."""
    replaced = Training()

    def prepare(config, workdir):
        done = checkpoint.finished(workdir, config.steps)
        return None if done else (config, workdir)

    def train_one(run, facts):
        config, workdir = run
        replaced.trained.append(config)
        start(config, workdir, **facts)
        write(config, workdir, replaced.ends(config), **facts)

    monkeypatch.setattr(train, "prepare", prepare)
    monkeypatch.setattr(train, "train", train_one)
    return replaced


def start(config, workdir, revision="abc", device="cpu:cpu", **facts):
    """Write what a run writes when it starts."""
    folder = Path(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(configs.to_json(config))
    first = {"devices": [device], "versions": {"jax": "1", "revision": revision}}
    first |= {f"chance_{TASKS[config.task].score}": 0.9}
    (folder / "run.json").write_text(json.dumps([first | facts]))


def write(config, workdir, value=0.25, **fields):
    """Write what a finished run has written."""
    start(config, workdir, **({"seconds": 2.0} | fields))
    folder = Path(workdir)
    score, epoch = TASKS[config.task].score, 1500
    saved = folder / "checkpoints" / str(config.steps)
    saved.mkdir(parents=True)
    (saved / "data").write_text("weights")
    manifest.write(saved)
    own = {"loss": 1.9, score: value - 0.01}
    clean = {"step": config.steps, "seeds": [own for _ in configs.seeds(config)]}
    (folder / "clean.json").write_text(json.dumps(clean))
    lines = [
        {"step": step, "split": split, "seed": seed, "loss": 2.0, score: at, "examples": epoch}
        for seed in configs.seeds(config)
        for step, at in ((config.steps // 2, 0.9), (config.steps, value))
        for split in ("train", "test")
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
