"""The page of many claims: what it shows, what it loads, and what its filters do in a browser."""

import io
import re
import shutil
import subprocess

import pytest
from PIL import Image

from resnet_jax.reporting.index_page import page, thumbnail
from tests.reporting.test_page import HOSTILE, Page

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


def entry(name, kind, verdict, **values):
    tested = {"effect": 0.59, "interval": [-0.1, 0.68], "p": 0.002, "p_opposite": 0.998}
    tested |= {"p_adjusted": 0.006, "n": 5}
    numbers = dict.fromkeys(tested) if kind == "exact" else tested
    return {
        "name": name,
        "kind": kind,
        "verdict": verdict,
        "uncorrected": verdict,
        **numbers,
        "says": f"What {name} saw.",
        "report": f"{name}/report.html",
        "reason": "",
        "claim": f"The sentence of {name}.",
        "source": "A paper 2015",
        "rule": "r > 0",
        "rule_changed": False,
        "control": None,
        "experiment": name,
        "options": ["--seeds=5"],
        "log": f"{name}/log.txt",
        "runs": [f"digits-{name}-seed0"],
        "figure": f"{name}/figure.png",
        "dataset": "digits",
        "hardware": "2 cores",
        "revision": "abc",
        "seconds": 90.0,
        "error": "",
    } | values


@pytest.fixture
def content():
    return {
        "claims": [
            entry("depth", "trained", True),
            entry("signal", "exact", False),
            entry("start", "init", None),
            entry("width", "trained", None),
        ],
        "missing": ["lesion"],
        "untested": [
            {"says": "A prize was won.", "why": "It is looked up.", "not_yet": False},
            {"says": "Words have skips.", "why": "It needs text.", "not_yet": True},
        ],
        "tests": 3,
        "level": 0.01,
        "command": "python -m experiments.all --workdir=runs/claims",
        "date": "2026-11-27T20:00:00+00:00",
        "hardware": "2 cores",
        "versions": {"jax": "0.10.2", "revision": "abc"},
    }


def attributes(text, tag):
    return [attributes for name, attributes in Page(text).tags if name == tag]


def test_nothing_is_loaded_from_outside_and_links_are_relative(content):
    text = page(content, {"depth/figure.png": b"png"})
    tags = Page(text).tags
    loads = [a[name] for _, a in tags for name in ("src", "srcset", "data", "action") if name in a]
    assert len(loads) == 1 and loads[0].startswith("data:image/png;base64,")
    assert all(a["href"].startswith("data:") for a in attributes(text, "link"))
    policy = next(a["content"] for t, a in tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert not re.search(r"@import|url\(|fetch\(|https?:", text)
    links = {a["href"] for a in attributes(text, "a")}
    assert {"depth/report.html", "depth/log.txt", "runs/", "runs/digits-depth-seed0/"} <= links
    assert all(not re.match(r"\w+:|/", link) for link in links)


def test_a_statement_has_its_verdict_in_words_and_its_numbers(content):
    content["claims"][0]["control"] = {
        "against": "equal arms", "holds": False, "says": "Nothing rises.", "effect": None,
    }  # fmt: skip
    content["claims"][3] |= {"uncorrected": True, "reason": "By its own test it holds."}
    seen = Page(page(content, {}))
    assert seen.within("strong") == ["Holds", "Does not hold", "Undecided", "Undecided"]
    assert seen.within("h3") == [f"The sentence of {row['name']}." for row in content["claims"]]
    assert "What depth saw." in seen.within("p") and "By its own test it holds." in seen.within("p")
    told = seen.within("dd")
    for text in (
        "0.59",
        "\N{MINUS SIGN}0.1 to 0.68",
        "0.002",
        "0.006",
        "5",
        "r > 0",
        "1.5 minutes",
    ):
        assert text in told, text
    assert "equal arms: the rule says no. Nothing rises." in told
    assert "python -m experiments.depth --workdir=DIR --seeds=5" in told
    assert "4 statements: 1 holds, 1 does not hold, 2 are undecided." in seen.within("p")
    assert any("corrected together (Holm)" in text for text in seen.within("p"))
    assert any("lesion" in text for text in seen.within("p"))
    for text in ("A prize was won.", "Words have skips."):
        assert text in seen.within("dt")
    for text in ("It is looked up.", "It needs text."):
        assert text in told


def test_a_statement_that_does_not_hold_shows_the_p_of_the_opposite(content):
    content["claims"][0] |= {
        "verdict": False,
        "uncorrected": False,
        "p": 0.998,
        "p_opposite": 0.002,
    }
    seen = Page(page(content, {}))
    assert "p of the opposite" in seen.within("dt") and "0.998" not in seen.within("dd")


def test_without_a_test_there_are_no_numbers_and_with_two_seeds_no_p(content):
    few = entry("few", "init", None, interval=None, n=2, p=1.0, p_opposite=1.0, p_adjusted=1.0)
    seen = Page(page(content | {"claims": [few, entry("signal", "exact", True)]}, {}))
    terms = [text for text in seen.within("dt") if text in ("effect", "98 % interval", "p", "n")]
    assert terms == ["effect", "n"]


def test_an_effect_without_an_upper_bound_has_a_p_and_no_interval(content):
    seen = Page(page({**content, "claims": [entry("depth", "trained", True, interval=None)]}, {}))
    shown = ("effect", "98 % interval", "p", "n")
    assert [text for text in seen.within("dt") if text in shown] == ["effect", "p", "n"]


def test_a_command_that_failed_is_told_apart(content):
    content["claims"][3] |= {"error": "no space left", "report": None, "runs": [], "figure": None}
    seen = Page(page(content, {}))
    assert seen.within("strong")[-1] == "Failed to run"
    assert "no space left" in seen.within("p")


def test_text_is_text_wherever_it_stands(content):
    good = page(content, {})
    names = ("name", "says", "reason", "claim", "source", "rule", "experiment", "dataset")
    names += ("hardware", "revision", "error", "report", "log")
    bad_row = content["claims"][0] | dict.fromkeys(names, HOSTILE)
    bad_row |= {"options": [HOSTILE], "runs": [HOSTILE]}
    bad_row["control"] = {"against": HOSTILE, "holds": None, "says": HOSTILE, "effect": None}
    bad = content | {"claims": [bad_row, *content["claims"][1:]], "missing": [HOSTILE]}
    bad |= {"untested": [{"says": HOSTILE, "why": HOSTILE, "not_yet": True}], "command": HOSTILE}
    bad |= {"versions": {HOSTILE: HOSTILE}, "hardware": HOSTILE, "date": HOSTILE}
    text = page(bad, {})
    count = lambda page, tag: len(attributes(page, tag))
    assert count(text, "script") == count(good, "script") == 1
    assert count(text, "img") == 0
    assert Page(text).within("pre") == [HOSTILE]
    assert not any(name.startswith("on") for _, own in Page(text).tags for name in own)


def test_filters_are_buttons_with_counts_that_need_a_script(content):
    text = page(content, {})
    filters = next(a for a in attributes(text, "div") if a.get("id") == "filters")
    assert "hidden" in filters  # a script shows them
    groups = [a["aria-label"] for a in attributes(text, "div") if a.get("role") == "group"]
    assert groups == ["Verdict", "Kind"]
    buttons = [
        (a["data-key"], a["data-value"], a["aria-pressed"]) for a in attributes(text, "button")
    ]
    assert buttons == [
        ("verdict", "", "true"),
        *(("verdict", value, "false") for value in ("holds", "fails", "undecided")),
        ("kind", "", "true"),
        *(("kind", value, "false") for value in ("exact", "init", "trained")),
    ]
    assert all(a["type"] == "button" for a in attributes(text, "button"))
    counts = re.findall(r"<span>(\d+)</span></button>", text)
    assert counts == ["4", "1", "1", "2", "4", "1", "1", "2"]
    claims = [a for a in attributes(text, "li") if "data-verdict" in a]
    assert [(a["id"], a["data-verdict"], a["data-kind"]) for a in claims] == [
        ("depth", "holds", "trained"),
        ("signal", "fails", "exact"),
        ("start", "undecided", "init"),
        ("width", "undecided", "trained"),
    ]
    assert not any("hidden" in a for a in claims)


def test_a_thumbnail_is_small(content):
    large = io.BytesIO()
    Image.radial_gradient("L").resize((1600, 800)).convert("RGBA").save(large, "PNG")
    small = thumbnail(large.getvalue())
    with Image.open(io.BytesIO(small)) as image:
        assert image.size == (360, 180)
    assert len(small) < 15_000
    text = page(content, {"depth/figure.png": small})
    assert [a["alt"] for a in attributes(text, "img")] == [""]
    link = next(a for a in attributes(text, "a") if a.get("class") == "picture")
    assert (link["href"], link["tabindex"]) == ("depth/report.html", "-1")


CLICKS = """<script>
const seen = () => [...document.querySelectorAll(".claim")].filter(c => c.offsetParent).map(c => c.id).join(",");
const press = (key, value) => document.querySelector(`[data-key=${key}][data-value=${value}]`).click();
const told = [seen(), document.getElementById("filters").hidden];
press("verdict", "undecided"); told.push(seen(), document.getElementById("shown").textContent);
told.push(document.querySelector("[data-value=trained] span").textContent);
press("kind", "trained"); told.push(seen());
told.push(document.querySelectorAll("[aria-pressed=true]").length);
told.push(document.documentElement.scrollWidth <= innerWidth);
document.title = told.join("|");
</script>"""  # noqa: E501


@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [360, 1280])
def test_filters_hide_statements_in_a_browser(content, tmp_path, width):
    content["claims"][0]["claim"] = "an_identifier_without_spaces" * 8
    (tmp_path / "index.html").write_text(page(content, {}) + CLICKS, "utf-8")
    frame = f'<iframe src="index.html" style="width:{width}px;height:900px"></iframe>'
    frame += "<script>onload = () => document.title = frames[0].document.title</script>"
    (tmp_path / "frame.html").write_text(frame, "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--disable-quic", "--no-first-run"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--allow-file-access-from-files"]
    done = subprocess.run(
        (str(BROWSER), *flags, "--dump-dom", (tmp_path / "frame.html").as_uri()),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
    assert title.split("|") == [
        "depth,signal,start,width",
        "false",
        "start,width",
        "2 of 4 statements are shown.",
        "1",
        "width",
        "2",
        "true",
    ]
