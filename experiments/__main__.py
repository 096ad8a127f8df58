"""Lists the claims: `python -m experiments`."""

import importlib
import pkgutil
import textwrap

import experiments
from experiments.claim import Claim
from resnet_jax.run.output import keep_running


def claims() -> dict[str, Claim]:
    """Return the claims of the files in this folder, by the names of the files."""
    names = sorted(module.name for module in pkgutil.iter_modules(experiments.__path__))
    modules = {
        name: importlib.import_module(f"experiments.{name}") for name in names if name[0] != "_"
    }
    return {name: module.CLAIM for name, module in modules.items() if hasattr(module, "CLAIM")}


def main() -> None:
    """Print the name, the statement and the source of each claim."""
    keep_running()
    print("Each claim is a command: python -m experiments.NAME --workdir=DIR (--help, --list)\n")
    for name, claim in claims().items():
        text = f"{claim.says} ({claim.source})"
        print(textwrap.fill(text, 99, initial_indent=f"{name:<20}", subsequent_indent=" " * 20))
    print(
        "\nexperiments.search is no claim: it trains random draws from the ranges of a config file."
    )


if __name__ == "__main__":
    main()
