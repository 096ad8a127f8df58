"""The worked examples of docs/extending.md: applied to a copy of the checkout, they run.

The additions to the table of rooms are held here too: how many files each example touches.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
SECTIONS = {
    title: body for title, body in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
}
# The files that each example may touch: one place, or its own file and a table.
TOUCHED = {"A key": 1, "A merge": 1, "A family": 2, "A task": 2, "A data set": 2}
TOUCHED |= {"An instrument": 2, "A claim": 1}


def blocks(section, language):
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.M | re.S)


def apply(piece, root):
    """Put a piece of code where its first line says, and return the file."""
    place, code = piece.split("\n", 1)
    if match := re.fullmatch(r"# new file (\S+)", place):
        (root / match[1]).write_text(code)
        return match[1]
    match = re.fullmatch(r"# (\S+), (below|above): (.*)", place)
    assert match, f"{place} does not say where the piece goes"
    lines = (root / match[1]).read_text("utf-8").splitlines(keepends=True)
    (at,) = (i for i, line in enumerate(lines) if line.strip() == match[3])
    lines.insert(at + (match[2] == "below"), code)
    (root / match[1]).write_text("".join(lines))
    return match[1]


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the checkout with every example of the page, and the files that each touched."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("resnet_jax", "configs", "experiments"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    touched = {
        title: {apply(piece, root) for piece in blocks(section, "python")}
        for title, section in SECTIONS.items()
    }
    return root, touched


def test_an_addition_touches_as_few_files_as_the_page_says(extended):
    _, touched = extended
    assert {title: len(files) for title, files in touched.items()} == TOUCHED


def test_every_example_runs(extended):
    """All commands of the page, in one process: a process of its own for each takes minutes."""
    root, _ = extended
    commands = [
        line.removeprefix("python -m ").split()
        for section in SECTIONS.values()
        for block in blocks(section, "sh")
        for line in block.splitlines()
    ]
    assert len(commands) >= 9
    script = f"""
import importlib
for module, *words in {commands!r}:
    print("$", module, *words, flush=True)
    importlib.import_module(module).main(words)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for words in ("holds", "runs/perceptron: train error", "runs/averaging: test error"):
        assert words in done.stdout


def test_the_additions_are_clean(extended):
    """The linter finds nothing but the order of an import beside the table's own import."""
    root, touched = extended
    files = sorted({root / file for files in touched.values() for file in files})
    ruff = [Path(sys.executable).with_name("ruff"), "check", "--config", ROOT / "pyproject.toml"]
    done = subprocess.run(
        [*ruff, "--ignore=I001", "--output-format=concise", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
