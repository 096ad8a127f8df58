"""One self-contained HTML page for a result: verdict, interactive figure, table, origin."""

import base64
import importlib.resources
import json
import string
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from resnet_jax.reporting.figures import axis_top, colours, levels, panel_title, seed_mean
from resnet_jax.reporting.tables import ERROR, ERRORS, Columns, Score, is_text, table_cells

# The verdict in words. Colour and class repeat what the words say.
WORDS = {True: "holds", False: "does not hold", None: "undecided"}
MOODS = {True: "holds", False: "fails", None: "undecided"}  # class names of the style sheet


def report(
    results: Mapping[str, Any],
    curves: Sequence[Mapping[str, Any]],
    figure_png: bytes | None,
    command: str,
    versions: Mapping[str, str],
    title: str,
    *,
    recipe: str = "",
    origin: str = "",
    score: Score = ERROR,
    columns: Columns = ERRORS,
    pictures: Mapping[str, bytes] | None = None,
) -> str:
    """Return an HTML page that needs no network, library or server: it opens from a file.

    Args:
        results: the content of results.json.
        curves: the curves of `score_curves`. A script draws the figure from them.
        figure_png: the figure for readers without scripts.
        command: the command line that made the page.
        versions: {what: version}; listed in their order, so that hardware goes last.
        title: the title of the page.
        recipe: how the networks were trained, the caption of the table.
        origin: sentences about the source of the claim.
        score: the score of the curves.
        columns: the measured columns of the table.
        pictures: further figures of the claim, {name: PNG}.
    """
    first, *further = results["statements"]
    holds = first["verdict"]["holds"]
    means, chosen = seed_mean(curves, score), results["chosen"]
    return filled(
        "page.html",
        title=escape(title),
        mood=MOODS[holds],
        words=_sentence(holds),
        says=escape(first["verdict"]["says"]),
        details=_details(first),
        further="".join(map(_statement, further)),
        dataset=escape(results["dataset"]),
        score=escape(score.name.replace("_", " ").capitalize()),
        recipe=escape(recipe),
        origin=escape(origin or f"The claim is from {results['source']}."),
        command=escape(command),
        versions=listed(versions),
        colours=_colours(means, dark=False),
        dark_colours=_colours(means, dark=True),
        hidden="" if means else "hidden",
        figure=_picture(figure_png, title),
        pictures="".join(
            f"<h2>{escape(name.replace('_', ' ').capitalize())}</h2>{_image(png, name)}"
            for name, png in (pictures or {}).items()
        ),
        table=_table(table_cells(results, columns)),
        chosen=listed({model: ", ".join(of) or "the recipe" for model, of in chosen.items()}),
        data=_embedded(_data(means, score)),
    )


def filled(name: str, **fields: object) -> str:
    """Return a page of this folder with its ${fields} and the style that all pages share."""
    folder = importlib.resources.files("resnet_jax.reporting")
    read = lambda name: folder.joinpath(name).read_text("utf-8")
    return string.Template(read(name)).substitute(fields, style=read("style.css"))


def listed(terms: Mapping[str, str]) -> str:
    """Return the entries of a description list."""
    return "".join(f"<dt>{escape(t)}</dt><dd>{escape(text)}</dd>" for t, text in terms.items())


def _sentence(holds: bool | None) -> str:
    """Return a verdict as a sentence."""
    return f"The claim {'is ' if holds is None else ''}{WORDS[holds]}."


def _statement(statement: Mapping[str, Any]) -> str:
    """Return a further statement with its verdict; its sentence tells the headings apart."""
    holds = statement["verdict"]["holds"]
    return (
        f'<div class="verdict further {MOODS[holds]}">'
        f"<h2><span>{escape(statement['claim'])}</span>{_sentence(holds)}</h2>"
        f"<p>{escape(statement['verdict']['says'])}</p></div><dl>{_details(statement)}</dl>"
    )


def _details(statement: Mapping[str, Any]) -> str:
    """Return a statement, its rule, its numbers and its control as a description list's entries."""
    verdict, control = statement["verdict"], statement["control"]
    terms = {"Claim": statement["claim"], "Source": statement["source"], "Rule": verdict["rule"]}
    if numbers := numbers_of(verdict):
        terms["Effect"] = numbers
    if control is not None:
        answer = {True: "yes", False: "no", None: "undecided"}[control["holds"]]
        terms["Control"] = f"{control['against']}: the rule says {answer}. {control['says']}"
    if statement["rule_changed"]:
        terms["Rule changed"] = "some of these runs began under another text of this rule"
    return listed(terms)


def numbers_of(verdict: Mapping[str, Any]) -> str:
    """Return the effect with its interval, p and n in words; "" if there was no test."""
    if verdict["effect"] is None:
        return ""
    if min(verdict["p"], verdict["p_opposite"]) == 1:
        return f"{verdict['effect']:.3g}, n = {verdict['n']}, too few seeds for a test"
    name, p = "p", verdict["p"]
    if verdict["holds"] is False:
        name, p = "p of the opposite", verdict["p_opposite"]
    words = f"{verdict['effect']:.3g}"
    if verdict["interval"] is not None:
        words += " (98 % interval {:.3g} to {:.3g})".format(*verdict["interval"])
    return f"{words}, {name} = {p:.2g}, n = {verdict['n']}"


def _colours(means: list[dict[str, Any]], dark: bool) -> str:
    order = tuple(levels(means).values())
    return "".join(
        f"--level-{i}:{colour};" for i, colour in enumerate(colours(order, dark).values())
    )


def _data(means: list[dict[str, Any]], score: Score) -> dict[str, Any]:
    """Return what the script draws."""
    level = levels(means)
    order = list(dict.fromkeys(level.values()))
    arms = dict.fromkeys(mean["arm"] for mean in means)
    return {
        "top": axis_top(means, score),
        "score": score.name.replace("_", " "),
        "label": score.label,
        "unit": " %" if score.scale == 100 else "",
        "levels": order,
        "layers": all(name.isdecimal() for name in order),
        "panels": [
            {
                "title": panel_title(arm),
                "curves": [
                    _points(mean, order.index(level[mean["model"]]), score.scale)
                    for mean in means
                    if mean["arm"] == arm
                ],
            }
            for arm in arms
        ],
    }


def _points(mean: dict[str, Any], level: int, scale: float) -> dict[str, Any]:
    """Return a curve for the script: shown values, and their range if there are several seeds."""
    names = ("value", "low", "high") if mean["n"] > 1 else ("value",)
    digits = lambda value: round(scale * value, 3) if scale == 100 else float(f"{value:.5g}")
    shown = {name: [digits(value) for value in mean[name]] for name in names}
    kept = {key: mean[key] for key in ("model", "depth", "split", "n", "step")}
    return kept | shown | {"level": level}


def _picture(png: bytes | None, title: str) -> str:
    if png is None:
        return "<p>The figure is drawn by a script; the table below has its last values.</p>"
    return _image(png, f"Curves: {title}")


def _image(png: bytes, words: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(words)}" class="drawn">'


def _table(cells: list[list[str]]) -> str:
    align = ["" if is_text(name) else ' class="number"' for name in cells[0]]
    head = "".join(
        f'<th scope="col"{a}>{escape(c)}</th>' for c, a in zip(cells[0], align, strict=True)
    )
    rows = [
        "".join(f"<td{a}>{escape(c)}</td>" for c, a in zip(row, align, strict=True))
        for row in cells[1:]
    ]
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def _embedded(data: Any) -> str:
    """Return JSON that no text in it can end early: `<` is written as its escape."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
