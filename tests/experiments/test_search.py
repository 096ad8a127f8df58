"""A random search: draws by seed and number, runs of their own, and the best first."""

import json
import math
import types

import pytest
from etils import epath

from experiments import search
from resnet_jax import config_file
from resnet_jax.recipe import LogUniform, OneOf, Uniform
from tests.recipes import recipe

FILE = """
from configs import digits
from resnet_jax.config import choose, make
from resnet_jax.recipe import LogUniform, OneOf

RECIPE = digits.RECIPE | {"steps": 2, "chunk_steps": 2, "eval_every": 2, "checkpoint_every": 2}
SEARCH = {"optimizer.learning_rate": LogUniform(1e-3, 0.1), "model.activation": OneOf(("tanh",))}

def get_config(argument=""):
    return make(choose(f"family=highway,block=dense,depth=2,{argument}"), RECIPE)
"""


def test_a_draw_depends_on_the_seed_and_its_number_alone():
    ranges = {"a": LogUniform(1e-3, 1.0), "b": Uniform(-10.0, -1.0), "c": OneOf(("x", "y"))}
    draws = [search.drawn(ranges, 0, number) for number in range(2000)]
    assert draws[7] == search.drawn(ranges, 0, 7) != search.drawn(ranges, 1, 7)
    logarithms = [math.log10(draw["a"]) for draw in draws]
    assert min(logarithms) >= -3 and max(logarithms) <= 0
    assert sum(logarithms) / len(draws) == pytest.approx(-1.5, abs=0.1)
    assert sum(draw["b"] for draw in draws) / len(draws) == pytest.approx(-5.5, abs=0.3)
    assert sum(draw["c"] == "x" for draw in draws) / len(draws) == pytest.approx(0.5, abs=0.05)


def test_the_draws_are_trained_once_and_the_best_is_first(tmp_path, capsys):
    file = tmp_path / "own.py"
    file.write_text(FILE)
    words = [f"--config={file}", f"--workdir={tmp_path / 'runs'}"]
    search.main([*words, "--runs=1"])
    first = json.loads((tmp_path / "runs" / "search.json").read_text("utf-8"))
    capsys.readouterr()
    search.main([*words, "--runs=2"])
    rows = json.loads((tmp_path / "runs" / "search.json").read_text("utf-8"))
    assert sorted(row["draw"] for row in rows) == [0, 1] and first[0] in rows
    assert rows[0]["loss"] <= rows[1]["loss"]
    said = capsys.readouterr().out
    assert f"--config.optimizer.learning_rate={rows[0]['optimizer.learning_rate']}" in said
    assert said.count("ready after") == 1, "the first draw is trained again"
    # The line that it prints is a command line.
    flags = said.splitlines()[-1].removeprefix("best: ").split()[1:]
    overrides, _ = config_file.split(flags)
    assert config_file.load(str(file), overrides).model.activation == "tanh"


def test_a_loss_is_the_mean_over_the_last_epoch_however_many_records_it_has(finish, tmp_path):
    run = types.SimpleNamespace(config=recipe("digits", "depth=8"), workdir=tmp_path)
    finish(run)
    line = {"split": "train", "seed": 0, "error": 0.5, "examples": 750}
    lines = [line | {"step": 30 * i, "loss": loss} for i, loss in enumerate((9.0, 9.0, 1.0, 2.0))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert search.loss_of(run.config, epath.Path(tmp_path)) == 1.5


def test_a_draw_that_diverged_is_last_and_has_no_loss(monkeypatch, tmp_path, capsys):
    (tmp_path / "own.py").write_text(FILE)
    (tmp_path / "runs").mkdir()
    losses = iter((None, 2.0, 1.0))
    monkeypatch.setattr(search, "loss_of", lambda config, workdir: next(losses))
    search.main([f"--config={tmp_path / 'own.py'}", f"--workdir={tmp_path / 'runs'}", "--runs=3"])
    rows = json.loads((tmp_path / "runs" / "search.json").read_text("utf-8"))
    assert [row["loss"] for row in rows] == [1.0, 2.0, None]
    assert "draw   0: diverged" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words,says",
    [
        (
            ["--config=configs/digits.py"],
            "names nothing to search over; define SEARCH in it, as conf",
        ),
        (["--config.optimizer.learning_rate=0.1"], "--config.optimizer.learning_rate is what is s"),
        (["--config.model.width=0"], "model.width=0 must be positive"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_it_begins(tmp_path, capsys, words, says):
    (tmp_path / "own.py").write_text(FILE)
    with pytest.raises(SystemExit):
        search.main([f"--config={tmp_path}/own.py", *words, f"--workdir={tmp_path}/runs"])
    assert says in capsys.readouterr().err and not (tmp_path / "runs").exists()
