"""Copy measured verdicts into results/ and README.md: `python scripts/claims.py --workdir=DIR`.

DIR is that of `python -m experiments.all`. results/index.json is its index.json, with the hardware,
the data and the revision of each statement; results/NAME.png are small figures. The table between
two markers of README.md is made from results/index.json, and `python scripts/claims.py` without
--workdir makes it anew.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from resnet_jax import command  # noqa: E402
from resnet_jax.reporting.index_page import KINDS, summary, thumbnail  # noqa: E402
from resnet_jax.reporting.page import WORDS, numbers_of  # noqa: E402

RESULTS = ROOT / "results"
README = ROOT / "README.md"
BEGIN = "<!-- This table is made by scripts/claims.py: do not change it by hand. -->"
END = "<!-- The table ends here. -->"
LARGEST = 30_000  # bytes of a figure
NOTHING = "Nothing has been measured for this table yet."


def main(words: list[str] | None = None) -> None:
    """Copy the results of --workdir, if it is given, and write the table."""
    parser = argparse.ArgumentParser(
        description="Copy measured verdicts into results/ and README.md."
    )
    parser.add_argument("--workdir", type=Path, help="the directory of experiments.all")
    workdir = parser.parse_args(words).workdir
    with command.refusals():
        if workdir is not None:
            copy(workdir, RESULTS)
        README.write_text(with_table(README.read_text("utf-8"), read(RESULTS)), "utf-8")


def read(results: Path) -> dict[str, Any] | None:
    """Return the content of results/index.json; None if nothing was copied yet."""
    path = results / "index.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def copy(workdir: Path, results: Path) -> None:
    """Write the index and the figures of a workdir to `results`, and nothing else there.

    Claims that failed to run are missing in `results`, as those that were not done are.
    Raises: ValueError if the index is absent, or if no claim was done.
    """
    again = f"python -m experiments.all --workdir={workdir}"
    content = read(workdir)
    if content is None:
        raise ValueError(f"{workdir} has no index.json; write it with {again}")
    done = [row for row in content["claims"] if not row["error"]]
    if not done:
        raise ValueError(f"{workdir} has the results of no claim; do them with {again}")
    if other := {row["experiment"]: row["options"] for row in done if row["options"]}:
        name, options = next(iter(other.items()))
        raise ValueError(
            f"{name} of {workdir} was done with {' '.join(options)}; results/ has the claims as "
            f"they are without options: do it with {again}"
        )
    failed = dict.fromkeys(row["experiment"] for row in content["claims"] if row["error"])
    # The directory and the order in which claims were done are of no interest elsewhere.
    command_of_all = "python -m experiments.all --workdir=DIR"
    content = content | {"missing": [*content["missing"], *failed], "command": command_of_all}
    results.mkdir(exist_ok=True)
    for old in results.glob("*.png"):
        old.unlink()
    rows = []
    for row in done:
        figure = None
        if row["figure"]:
            figure = f"{row['experiment']}.png"
            (results / figure).write_bytes(small((workdir / row["figure"]).read_bytes()))
        # Reports, runs and logs stay where they were measured.
        rows.append(row | {"report": None, "log": None, "runs": [], "figure": figure})
    kept = json.dumps(content | {"claims": rows}, indent=2, ensure_ascii=False)
    (results / "index.json").write_text(kept + "\n", "utf-8")


def small(png: bytes) -> bytes:
    """Return the figure with the most pixels and colours that fit into LARGEST bytes."""
    sizes = ((720, 64), (720, 24), (480, 24), (360, 16), (240, 8))
    pictures = (thumbnail(png, width, colours) for width, colours in sizes)
    return next(picture for picture in pictures if len(picture) < LARGEST)


def with_table(text: str, content: Mapping[str, Any] | None) -> str:
    """Return the README with the table of verdicts between its markers.

    Raises: ValueError if the markers are not there, each once and in their order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in after or END in after:
        raise ValueError(f"README.md must have the lines {BEGIN} and {END}, each once")
    return f"{before}{BEGIN}\n\n{table(content)}\n{END}{after}"


def table(content: Mapping[str, Any] | None) -> str:
    """Return the verdicts as a Markdown table, with a sentence on how they were measured."""
    if content is None:
        return f"{NOTHING}\n"
    rows = ["| statement | kind | verdict | effect | data |", "|---|---|---|---|---|"]
    rows += [f"| {' | '.join(map(cell, cells(row)))} |" for row in content["claims"]]
    revisions = dict.fromkeys(row["revision"][:10] for row in content["claims"] if row["revision"])
    minutes = sum({row["experiment"]: row["seconds"] for row in content["claims"]}.values()) / 60
    how = (
        f"{summary(content['claims'])} Measured on {content['date'][:10]} in {minutes:.0f} minutes "
        f"by `{content['command']}`, on {content['hardware'] or 'unknown hardware'}, at revision "
        f"{', '.join(revisions) or 'unknown'}."
    )
    if content["missing"]:
        how += f" Not measured yet: {', '.join(f'`{name}`' for name in content['missing'])}."
    return "\n".join([how, "", *rows, ""])


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of a statement."""
    verdict = WORDS[row["verdict"]]
    told = {name: row[name] for name in ("effect", "interval", "p", "p_opposite", "n")}
    numbers = numbers_of(told | {"holds": row["uncorrected"]}) or "–"
    name = f"`{row['name']}`: {row['claim']}"
    return name, KINDS[row["kind"]], f"**{verdict}**", numbers, row["dataset"]


def cell(text: str) -> str:
    """Return text that no character of ends a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
