"""Lists the claims: `python -m experiments`."""

import textwrap

from experiments.listing import claims, lines
from resnet_jax.run.output import keep_running


def main() -> None:
    """Print the name, the kind and the sentence of each statement."""
    keep_running()
    print("Each claim is a command: python -m experiments.NAME --workdir=DIR (--help, --list).")
    print("python -m experiments.all --workdir=DIR does all of them, and writes DIR/index.html.\n")
    for columns, says in lines(claims()):
        after = " " * len(columns)
        print(textwrap.fill(says, 99, initial_indent=columns, subsequent_indent=after))
    print(
        "\nexperiments.search is no claim: it trains random draws from the ranges of a config file."
    )


if __name__ == "__main__":
    main()
