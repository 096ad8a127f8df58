"""No data is run as a program: nothing in the package unpickles, or evaluates text.

The config file that a command line names is Python by design, and runs: config_file.py runs it, and
no other module runs a file.
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


# Words of a module that runs another file.
RUNNERS = ("runpy", "exec_module", "spec_from_file_location")


def refuses_pickles(keyword):
    """Return whether a keyword is `allow_pickle=False`, with which NumPy loads numbers alone."""
    value = keyword.value
    return (
        keyword.arg == "allow_pickle" and isinstance(value, ast.Constant) and value.value is False
    )


def doors(source):
    """Yield line and name of everything in a program that could run data."""
    nodes = list(ast.walk(ast.parse(source)))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    closed = {call.func for call in calls if any(map(refuses_pickles, call.keywords))}
    for node in nodes:
        names = []
        if isinstance(node, ast.Import):
            names = [n.name for n in node.names if n.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            imported = {(node.module or "").partition(".")[0], *(n.name for n in node.names)}
            names = sorted(imported & MODULES)
        elif isinstance(node, ast.Name):
            names = sorted({node.id} & BUILTINS)
        elif isinstance(node, ast.Attribute) and node not in closed:
            base = ast.unparse(node.value)
            names = sorted({f"{base}.{node.attr}", f"{base}.*"} & ATTRIBUTES)
        elif isinstance(node, ast.keyword) and not refuses_pickles(node):
            names = sorted({node.arg or ""} & KEYWORDS)
        yield from ((node.lineno, name) for name in names)


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
        "np.load(path, allow_pickle=may)",
        "load = np.load",
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
    assert not list(doors(path.read_text("utf-8")))


def test_numbers_may_be_loaded():
    assert not list(doors("np.load(path, mmap_mode='r', allow_pickle=False)"))


def test_only_a_config_file_is_run():
    running = [path for path in FILES if any(word in path.read_text("utf-8") for word in RUNNERS)]
    assert [path.name for path in running] == ["config_file.py"]
