"""No program comes in as data: nothing in the package unpickles, or evaluates text.

The config file that a command line names is Python by design, and runs: `ml_collections` and
`runpy` run --config's own file, or that of configs/ which --dataset names, and no other.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(
    path for name in ("resnet_jax", "experiments") for path in (ROOT / name).rglob("*.py")
)

MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
MODULES |= {"yaml", "torch", "code"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {"builtins.*", "os.system", "os.popen", "np.load", "numpy.load", "jnp.load"}
KEYWORDS = {"allow_pickle", "shell"}


def doors(source):
    """Line and name of whatever in a program could run what is data."""
    for node in ast.walk(ast.parse(source)):
        found = []
        if isinstance(node, ast.Import):
            found = [n.name for n in node.names if n.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").partition(".")[0], *(n.name for n in node.names)}
            found = sorted(names & MODULES)
        elif isinstance(node, ast.Name):
            found = sorted({node.id} & BUILTINS)
        elif isinstance(node, ast.Attribute):
            base = ast.unparse(node.value)
            found = sorted({f"{base}.{node.attr}", f"{base}.*"} & ATTRIBUTES)
        elif isinstance(node, ast.keyword):
            found = sorted({node.arg or ""} & KEYWORDS)
        yield from ((node.lineno, name) for name in found)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import torch.serialization as t",
        "from torch import load",
        "from six.moves import cPickle",
        "eval(text)",
        "exec(open(path).read())",
        "compile(text, '', 'exec')",
        "__import__(name)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "import numpy, yaml",
        "builtins.eval(text)",
        "subprocess.run(line, shell=True)",
        "os.system(line)",
    ],
)
def test_an_open_door_is_seen(source):
    assert list(doors(source))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_door_is_open(path):
    assert not list(doors(path.read_text()))


def test_only_a_sweep_runs_files_and_only_configs():
    running = [path for path in FILES if "runpy" in path.read_text()]
    assert [path.name for path in running] == ["sweep.py"]
