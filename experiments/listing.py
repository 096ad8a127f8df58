"""The claims of this folder: which there are, their lines in a list, and a claim by its name."""

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence

import experiments
from experiments.claim import Claim


def claims() -> dict[str, Claim]:
    """Return the claims of the files in this folder, by the names of the files."""
    names = sorted(module.name for module in pkgutil.iter_modules(experiments.__path__))
    modules = {
        name: importlib.import_module(f"experiments.{name}") for name in names if name[0] != "_"
    }
    return {name: module.CLAIM for name, module in modules.items() if hasattr(module, "CLAIM")}


def lines(claims: Mapping[str, Claim]) -> Iterator[tuple[str, str]]:
    """Yield each statement of the claims: its name and kind in columns, and its sentence.

    The further statements of a claim follow the claim's own, whose name is that of the command.
    """
    names = [statement.name for claim in claims.values() for statement in claim.statements]
    width = max(map(len, names), default=0) + 2
    for claim in claims.values():
        for statement in claim.statements:
            yield f"{statement.name:<{width}}{claim.kind:<9}", " ".join(statement.says.split())


def named(names: Sequence[str], claims: Mapping[str, Claim]) -> list[str]:
    """Return the names of the claims that have these names, or have statements of these names.

    Raises: ValueError in one line, with the nearest name, for a name that there is not.
    """
    owners = {s.name: name for name, claim in claims.items() for s in claim.statements}
    chosen = []
    for name in names:
        if name not in owners:
            near = difflib.get_close_matches(name, owners, 1, 0.5)
            advice = f"nearest: {near[0]}" if near else "python -m experiments lists them"
            raise ValueError(f"{name[:80]!r} is the name of no claim; {advice}")
        chosen.append(owners[name])
    return list(dict.fromkeys(chosen))
