"""One self-contained HTML page for many claims: each statement with its verdict and numbers."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image

from resnet_jax.reporting.page import MOODS, WORDS, filled, listed, numbers_of

# The verdict in a word, and the class of its colour.
KINDS = {"exact": "exact", "init": "at the start", "trained": "trained"}
THUMBNAIL = 360  # pixels; shown at about half of that


def page(content: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """Return an HTML page that needs no network, library or server: it opens from a file.

    Without scripts every statement is shown, and there are no filters.

    Args:
        content: the content of index.json.
        pictures: the PNG of each `figure` of the claims.
    """
    claims = content["claims"]
    untested = content["untested"]
    return filled(
        "index.html",
        summary=escape(summary(claims)),
        correction=escape(_correction(content)),
        verdicts=_filter(
            "verdict",
            "Verdict",
            [(MOODS[v], word.capitalize()) for v, word in WORDS.items()],
            claims,
        ),
        kinds=_filter("kind", "Kind", list(KINDS.items()), claims),
        claims="\n".join(_claim(row, pictures) for row in claims),
        missing=_missing(content["missing"]),
        untestable=listed({row["says"]: row["why"] for row in untested if not row["not_yet"]}),
        not_yet=listed({row["says"]: row["why"] for row in untested if row["not_yet"]}),
        command=escape(content["command"]),
        versions=listed(
            {"date": content["date"]}
            | {name: text or "unknown" for name, text in content["versions"].items()}
            | {"hardware": content["hardware"] or "unknown"}
        ),
    )


def summary(claims: Sequence[Mapping[str, Any]]) -> str:
    """Return how many statements hold, do not hold and are undecided."""
    count = Counter(row["verdict"] for row in claims)
    say = lambda number, one, many: f"{number} {one if number == 1 else many}"
    return (
        f"{say(len(claims), 'statement', 'statements')}: {say(count[True], 'holds', 'hold')}, "
        f"{say(count[False], 'does not hold', 'do not hold')}, "
        f"{say(count[None], 'is undecided', 'are undecided')}."
    )


def thumbnail(png: bytes, width: int = THUMBNAIL, colours: int = 48) -> bytes:
    """Return a PNG of at most this width with a palette of few colours, without transparency."""
    with Image.open(io.BytesIO(png)) as image:
        picture = image.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(white, picture).convert("RGB")
    if picture.width > width:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    small = io.BytesIO()
    picture.quantize(colours, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def _correction(content: Mapping[str, Any]) -> str:
    """Return how the verdicts over seeds are corrected."""
    count, level = content["tests"], content["level"]
    if not count:
        return "No statement of this page was tested over three seeds or more."
    return (
        f"{count} {'statement was' if count == 1 else 'statements were'} tested over seeds. Their "
        f"verdicts are corrected together (Holm): the probability of any wrong one is at most "
        f"{level:g}."
    )


def _filter(
    key: str, title: str, values: Sequence[tuple[str, str]], claims: Sequence[Mapping[str, Any]]
) -> str:
    """Return the buttons of a filter, with the number of statements that each shows."""
    count = Counter(_data(row)[key] for row in claims)
    buttons = [("", "All", len(claims)), *((name, text, count[name]) for name, text in values)]
    return (
        f'<div role="group" aria-label="{title}"><span>{title}</span>'
        + "".join(
            f'<button type="button" data-key="{key}" data-value="{name}" '
            f'aria-pressed="{"false" if name else "true"}">{text} <span>{number}</span></button>'
            for name, text, number in buttons
        )
        + "</div>"
    )


def _data(row: Mapping[str, Any]) -> dict[str, str]:
    """Return what the filters compare."""
    return {"verdict": MOODS[row["verdict"]], "kind": row["kind"]}


def _claim(row: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """Return the entry of a statement."""
    data = "".join(f' data-{key}="{escape(value)}"' for key, value in _data(row).items())
    word = "Failed to run" if row["error"] else WORDS[row["verdict"]].capitalize()
    labels = [row["name"], KINDS[row["kind"]], row["dataset"]]
    notes = [row["error"], row["reason"]]
    if row["rule_changed"]:
        notes.append("Some of its runs began under another text of the rule.")
    return (
        f'<li id="{escape(row["name"])}" class="claim {_data(row)["verdict"]}"{data}>\n'
        f'<div class="words"><p class="soft labels"><strong>{word}</strong>'
        + "".join(f" <span>{escape(label)}</span>" for label in labels if label)
        + f"</p>\n<h3>{escape(row['claim'])}</h3>\n<p>{escape(row['says'])}</p>\n"
        + "".join(f'<p class="note">{escape(note)}</p>\n' for note in notes if note)
        + _numbers(row)
        + f'<div class="more">{_links(row)}\n{_details(row)}</div></div>\n'
        + f"{_picture(row, pictures)}</li>"
    )


def _numbers(row: Mapping[str, Any]) -> str:
    """Return effect, interval, p and n of a statement that was tested over seeds."""
    if row["effect"] is None:
        return ""
    terms = {"effect": f"{row['effect']:.3g}"}
    if row["interval"] is not None:
        terms["98 % interval"] = "{:.3g} to {:.3g}".format(*row["interval"])
    if min(row["p"], row["p_opposite"]) < 1:
        refuted = row["uncorrected"] is False
        p = row["p_opposite"] if refuted else row["p"]
        terms["p of the opposite" if refuted else "p"] = f"{p:.2g}"
        terms["p corrected"] = f"{row['p_adjusted']:.2g}"
    terms["n"] = str(row["n"])
    pairs = "".join(
        f"<div><dt>{t}</dt><dd>{text.replace('-', '−')}</dd></div>" for t, text in terms.items()
    )
    return f'<dl class="numbers">{pairs}</dl>\n'


def _links(row: Mapping[str, Any]) -> str:
    """Return the links to report, runs and log, which lie beside the page."""
    targets = {"report": row["report"], "runs": "runs/" if row["runs"] else None}
    links = [
        f'<a href="{escape(target)}" aria-label="{text} of {escape(row["experiment"])}">{text}</a>'
        for text, target in (targets | {"log": row["log"]}).items()
        if target
    ]
    return f'<p class="soft links">{" ".join(links)}</p>'


def _details(row: Mapping[str, Any]) -> str:
    """Return how a statement was tested, closed at first."""
    terms = {"Source": row["source"], "Rule": row["rule"]}
    if control := row["control"]:
        answer = {True: "yes", False: "no", None: "undecided"}[control["holds"]]
        terms["Control"] = f"{control['against']}: the rule says {answer}. {control['says']}"
        if numbers := numbers_of(control):
            terms["Control's effect"] = numbers
    terms["Command"] = " ".join(
        (f"python -m experiments.{row['experiment']} --workdir=DIR", *row["options"])
    )
    terms |= {"Hardware": row["hardware"], "Revision": row["revision"]}
    terms["Time"] = f"{row['seconds'] / 60:.1f} minutes" if row["seconds"] else ""
    runs = "".join(
        f'<li><a href="runs/{escape(run)}/">{escape(run)}</a></li>' for run in row["runs"]
    )
    listing = f"<dt>Runs</dt><dd><ul>{runs}</ul></dd>" if runs else ""
    given = {term: text for term, text in terms.items() if text}
    return (
        f"<details><summary>How it was tested</summary><dl>{listed(given)}{listing}</dl></details>"
    )


def _picture(row: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """Return the figure as a link to the report; the link in words is there, too."""
    if not row["figure"] or row["figure"] not in pictures:
        return ""
    data = base64.b64encode(pictures[row["figure"]]).decode()
    image = f'<img class="drawn" src="data:image/png;base64,{data}" alt="" loading="lazy">'
    link = f'href="{escape(row["report"] or "")}" tabindex="-1" aria-hidden="true"'
    return f'<a class="picture" {link}>{image}</a>\n'


def _missing(names: Sequence[str]) -> str:
    """Return which claims were not done, or not by today's rule."""
    if not names:
        return ""
    return (
        f'<p class="soft">Not done here, or by another text of the rule: {escape(", ".join(names))}'
        ". The command below does them.</p>"
    )
