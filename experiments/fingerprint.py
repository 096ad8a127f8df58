"""The code that a claim's numbers come from: its file, and what the file imports.

Of a claim with trained networks the packages `experiments` and `resnet_jax.analysis` count, which
measure and judge: the code that trains is recorded by each run, as the revision of its starts. Of
the other claims all modules count, because nothing else records the networks that they build.
"""

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
JUDGING = ("experiments", "resnet_jax.analysis")
ALL = ("experiments", "resnet_jax")


def digest(name: str, trained: bool) -> str:
    """Return the first digits of the SHA-256 of the code of claim `name`.

    The code is that of experiments/NAME.py and of the modules that count and that it imports,
    directly or through others of them.
    """
    packages = JUDGING if trained else ALL
    waiting, seen = [f"experiments.{name}"], dict[str, bytes]()
    while waiting:
        module = waiting.pop()
        place = ROOT.joinpath(*module.split("."))
        path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if module not in seen and path.exists():
            seen[module] = path.read_bytes()
            waiting += imported(seen[module], packages)
    content = b"".join(seen[module] for module in sorted(seen))
    return hashlib.sha256(content).hexdigest()[:16]


def imported(source: bytes, packages: tuple[str, ...]) -> Iterator[str]:
    """Yield the names of what a file imports from packages: modules, and names in modules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith(packages))
