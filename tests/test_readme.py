"""The README's use as a library, executed; and its claims about files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_ten_lines_of_python_do_what_the_page_says(tmp_path, monkeypatch):
    from resnet_jax import train
    from resnet_jax.data import sources
    from tests.recipes import recipe

    values = {"steps": 2, "chunk_steps": 2, "eval_every": 2, "checkpoint_every": 2}
    config = recipe("digits", "depth=8", model__width=4, schedule__boundaries=(), **values)
    run = train.prepare(config, tmp_path / "runs" / "resnet-20")
    assert run is not None
    train.train(run)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 10
    names = {"images": sources.load("digits", "").test.images[:3]}
    exec(code, names)
    assert names["logits"].shape == (1, 10)
    assert names["log_probabilities"].shape == (3, 10) and names["run"].step == 2
    np.testing.assert_allclose(np.exp(names["log_probabilities"]).sum(1), 1, rtol=1e-5)
    stage = names["sown"]["intermediates"]["stage1"]["layers"]["__call__"][0]
    assert stage.shape == (3, 1, 8, 8, 16), "three blocks of the first stage, stacked"


def test_files_and_pages_that_the_readme_names_are_there():
    names = re.findall(r"\]\(([\w./-]+)\)", README) + re.findall(
        r"(?:configs|docs)/\w+\.\w+", README
    )
    assert len(names) > 8
    for name in names:
        assert name == "configs/NAME.py" or (ROOT / name).exists(), name


@pytest.mark.slow  # a minute: pytest -m slow tests/test_readme.py
def test_the_notebook_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    cells = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    small = {"STEPS = 300": "STEPS = 30", "DEPTH = 20": "DEPTH = 8"}
    names: dict = {}
    for cell in code:
        for text, shorter in small.items():
            cell = cell.replace(text, shorter)
        exec(cell, names)
    assert set(names["trained"]) == {"plain", "residual"}
    assert len(names["scale"]["plain"]) == 3 and np.isfinite(names["scale"]["residual"]).all()
