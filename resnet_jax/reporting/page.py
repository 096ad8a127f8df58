"""One self-contained HTML page a result: verdict, interactive figure, table, how it was made."""

import base64
import importlib.resources
import json
import string
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from resnet_jax.reporting.figures import axis_top, depth_colours, panel_title, seed_mean
from resnet_jax.reporting.tables import is_text, table_cells

# The verdict in words: colour and class only repeat what the words say.
_VERDICTS = {
    True: ("holds", "The claim holds."),
    False: ("fails", "The claim does not hold."),
    None: ("open", "Not shown at this scale."),
}


def report(
    results: Mapping[str, Any],
    curves: Sequence[Mapping[str, Any]],
    figure_png: bytes | None,
    command: str,
    versions: Mapping[str, str],
    title: str,
) -> str:
    """An HTML page that needs no network, library or server: it opens from a file.

    `results` as in results.json, `curves` as for `error_curves`. The figure is drawn from the
    curves by a script; `figure_png` stands in for it where scripts are off. `versions` are listed
    in their order, so hardware goes last.
    """
    mood, words = _VERDICTS[results["verdict"]["holds"]]
    means = seed_mean(curves)
    template = (
        importlib.resources.files("resnet_jax.reporting").joinpath("page.html").read_text("utf-8")
    )
    return string.Template(template).substitute(
        title=escape(title),
        mood=mood,
        words=words,
        says=escape(results["verdict"]["says"]),
        claim=escape(results["claim"]),
        rule=escape(results["verdict"]["rule"]),
        dataset=escape(results["dataset"]),
        source=escape(results["source"]),
        command=escape(command),
        versions="".join(
            f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in versions.items()
        ),
        colours=_colours(means, dark=False),
        dark_colours=_colours(means, dark=True),
        figure=_picture(figure_png, title),
        table=_table(table_cells(results)),
        data=_embedded({"top": axis_top(means), "panels": _panels(means)}),
    )


def _colours(means: list[dict[str, Any]], dark: bool) -> str:
    colours = depth_colours([mean["depth"] for mean in means], dark)
    return "".join(f"--depth-{depth}:{colour};" for depth, colour in colours.items())


def _panels(means: list[dict[str, Any]]) -> list[dict[str, Any]]:
    families = dict.fromkeys(mean["family"] for mean in means)
    return [
        {
            "title": panel_title(family),
            "curves": [_points(m) for m in means if m["family"] == family],
        }
        for family in families
    ]


def _points(mean: dict[str, Any]) -> dict[str, Any]:
    """A curve for the script: errors in percent, the range over seeds where there is one."""
    names = ("error", "low", "high") if mean["n"] > 1 else ("error",)
    percent = {name: [round(100 * error, 3) for error in mean[name]] for name in names}
    return {key: mean[key] for key in ("model", "depth", "split", "n", "step")} | percent


def _picture(png: bytes | None, title: str) -> str:
    if png is None:
        return "<p>The figure is drawn by a script; the table below has its last values.</p>"
    data = base64.b64encode(png).decode()
    return f'<img src="data:image/png;base64,{data}" alt="Error curves: {escape(title)}">'


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
    """JSON that no text in it can end early: `<` is written as its escape."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
