"""The code that a claim's numbers come from: its file, and what the file imports.

Only the packages `experiments` and `resnet_jax.analysis` count: they measure and judge. The code
that trains is recorded by each run, as the revision of its starts.
"""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("experiments", "resnet_jax.analysis")


def digest(name: str) -> str:
    """Return the first digits of the SHA-256 of the code of claim `name`.

    The code is that of experiments/NAME.py and of all modules of PACKAGES that it imports, directly
    or through others of them.
    """
    waiting, seen = [f"experiments.{name}"], dict[str, bytes]()
    while waiting:
        module = waiting.pop()
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        if module not in seen and path.exists():
            seen[module] = path.read_bytes()
            waiting += imported(seen[module])
    content = b"".join(seen[module] for module in sorted(seen))
    return hashlib.sha256(content).hexdigest()[:16]


def imported(source: bytes) -> Iterator[str]:
    """Yield the names of what a file imports from PACKAGES: modules, and names in modules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith(PACKAGES))
