"""The report of a claim: results.json, table.md, the figures, report.html."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments import results as finished
from experiments.plan import Options, Run
from experiments.results import Row
from resnet_jax import provenance
from resnet_jax.distributed import by_first
from resnet_jax.reporting import figures, page, tables
from resnet_jax.run import directory

ROOT = Path(__file__).parent.parent


def recipe_name(options: Options) -> str:
    """Return the path of the config file, from the repository's folder if it is within."""
    path = options.recipe.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else options.recipe)


def published(options: Options, recipe: str) -> bool:
    """Return whether the runs are trained by configs/RECIPE.py, with nothing changed in it."""
    own = ROOT / "configs" / f"{recipe}.py"
    return bool(recipe) and options.recipe.resolve() == own and not options.changes()


def caption(options: Options, runs: Sequence[Run]) -> str:
    """Return how the networks were trained, and what the claim itself varies."""
    common = options.changes()
    varied = dict.fromkeys(key for run in runs for key in run.changes)
    text = f"Recipe: {recipe_name(options)}"
    text += f" with {', '.join(common)}." if common else ", unchanged."
    return text + (f" The claim itself varies {', '.join(varied)}." if varied else "")


def origin(source: str, recipe: str, options: Options) -> str:
    """Return a sentence about the source of the claim, and whether the runs are its own.

    `recipe` names the config file that trains as the source does; it is empty if there is none.
    """
    if not recipe:
        return f"Source of the claim: {source}."
    if published(options, recipe):
        return f"The claim is from {source}, and the networks are trained by its recipe."
    common = options.changes()
    own = recipe_name(options) + (f" with {', '.join(common)}" if common else "")
    return (
        f"This is a variant of the claim of {source}: the networks are trained by {own}, while "
        f"the source's own recipe is configs/{recipe}.py, unchanged."
    )


@by_first
def write(
    results: Mapping[str, Any],
    runs: Sequence[Run],
    options: Options,
    *,
    title: str,
    origin: str,
    columns: tables.Columns,
    drawings: Sequence[Callable[[list[Row]], Figure]] = (),
) -> None:
    """Write results.json, table.md, the figures and report.html, and print table and verdict.

    `drawings` are the claim's own figures, functions of the rows; each is saved under its name.
    """
    workdir = options.workdir
    workdir.mkdir(parents=True, exist_ok=True)
    of_runs = [curve for run in runs if run.trained for curve in finished.curves(run)]
    curves = [curve for curve in of_runs if curve["step"]]  # a run may diverge before its first
    score = finished.score_of(runs[0].config)
    picture = None
    if curves:
        figures.score_curves(curves, workdir / "figure.png", title, score)
        picture = (workdir / "figure.png").read_bytes()
    pictures = {draw.__name__: figures.png(draw(results["runs"])) for draw in drawings}
    for name, png in pictures.items():
        (workdir / f"{name}.png").write_bytes(png)
    recipe, versions = caption(options, runs), finished.versions(list(runs))
    table = tables.summary_table(results, columns)
    text = page.report(
        results,
        curves,
        picture,
        provenance.command_line(),
        versions,
        title,
        recipe=recipe,
        origin=origin,
        score=score,
        columns=columns,
        pictures=pictures,
    )
    content = {**results, "versions": versions}
    directory.write(workdir / "results.json", json.dumps(content, indent=2) + "\n")
    directory.write(workdir / "table.md", f"{table}\n{recipe}\n")
    directory.write(workdir / "report.html", text)
    print(f"\n{table}\n{recipe}\n{origin}\n")
    for statement in results["statements"]:
        verdict, control = statement["verdict"], statement["control"]
        print(f"{statement['claim']}\n{page.WORDS[verdict['holds']]}: {verdict['says']}")
        if numbers := page.numbers_of(verdict):
            print(f"effect {numbers}")
        if control:
            answer = {True: "yes", False: "no", None: "undecided"}[control["holds"]]
            print(f"control ({control['against']}): {answer}")
    print(f"report: {workdir / 'report.html'}")
