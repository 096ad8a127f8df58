import html.parser
import json
import math

import pytest

from resnet_jax.reporting.page import report
from resnet_jax.reporting.tables import Score, summarise, table_cells

COMMAND = "python -m experiments.degradation --depths=20,56 --workdir=runs/demo"
VERSIONS = {"jax": "0.10.2", "hardware": "2 CPU cores"}
HOSTILE = """</script><script>alert("1")</script><img src=x onerror='alert(2)'>&$title"""


class Page(html.parser.HTMLParser):
    """What a browser sees: tags with attributes, and the text inside of each tag, in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def within(self, *tags):
        return [text for tag, text in self.texts if tag in tags]

    @property
    def data(self):
        return json.loads(self.within("script")[0])


@pytest.fixture
def page(results, curves):
    def build(png=b"\x89PNG", command=COMMAND, title="Depth", curves=curves, more=None, **changes):
        return report(results | changes, curves, png, command, VERSIONS, title, **(more or {}))

    return build


def test_nothing_is_loaded_from_outside(page):
    text = page()
    loads = [
        value
        for _, attributes in Page(text).tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "poster")
    ]
    assert loads
    assert all(value.startswith("data:") for value in loads)
    assert "@import" not in text
    assert "url(" not in text
    assert "fetch(" not in text
    policy = next(a["content"] for t, a in Page(text).tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy


def test_embedded_curves_are_the_seed_means_in_percent(page):
    plain, residual = Page(page()).data["panels"]
    assert (plain["title"], residual["title"]) == ("Plain networks", "Residual networks")
    curve = next(c for c in plain["curves"] if (c["model"], c["split"]) == ("plain-56", "train"))
    assert curve["value"][-1] == pytest.approx(70)
    assert (curve["low"][-1], curve["high"][-1]) == (50, 90)
    single = next(c for c in residual["curves"] if c["model"] == "resnet-56")
    assert "low" not in single


def test_a_diverged_run_leaves_the_data_valid(page, curves):
    curves[0]["error"][-1] = math.nan
    assert "NaN" not in json.dumps(Page(page(curves=curves)).data)


@pytest.mark.parametrize(
    ("holds", "words"),
    [
        (True, "The claim holds."),
        (False, "The claim does not hold."),
        (None, "The claim is undecided."),
    ],
)
def test_the_verdict_is_said_in_words_before_anything_else(page, results, holds, words):
    results["statements"][0]["verdict"] |= {
        "holds": holds, "rule": "the rule", "says": "what was seen",
    }  # fmt: skip
    texts = Page(page()).texts
    body = [text for tag, text in texts if tag not in ("title", "style")]
    assert body[:3] == ["Depth", words, "what was seen"]
    assert "the rule" in body[3:]


def test_text_is_text_wherever_it_stands(page, results, curves):
    hostile = [c | {"model": HOSTILE, "arm": HOSTILE} for c in curves]
    results["summary"][0] |= {"model": HOSTILE, "note": HOSTILE}
    good = Page(page())
    statement = results["statements"][0]
    verdict = statement["verdict"] | {"holds": None, "rule": HOSTILE, "says": HOSTILE}
    control = verdict | {"against": HOSTILE}
    bad_one = statement | {"claim": HOSTILE, "source": HOSTILE, "verdict": verdict}
    words = {"dataset": HOSTILE, "statements": [bad_one | {"control": control}, bad_one]}
    words["chosen"] = {HOSTILE: [HOSTILE]}
    bad = Page(page(title=HOSTILE, command=HOSTILE, curves=hostile, **words))
    count = lambda seen, tag: sum(t == tag for t, _ in seen.tags)
    assert count(bad, "script") == count(good, "script") == 2
    assert count(bad, "img") == count(good, "img") == 1
    assert bad.within("h1", "pre") == ["The claim is undecided.", HOSTILE]
    assert bad.data["panels"][0]["curves"][0]["model"] == HOSTILE


def test_the_table_shows_the_same_cells_as_markdown(page, results):
    results["summary"][2]["paper"] = 0.0875
    shown = Page(page()).within("th", "td")
    assert shown == [cell for row in table_cells(results) for cell in row if cell]


def test_command_is_exact_and_hardware_comes_last(page):
    seen = Page(page())
    assert seen.within("pre") == [COMMAND]
    assert seen.within("dd")[-1] == "2 CPU cores"


def test_it_says_where_the_claim_is_from_and_how_the_networks_were_trained(page):
    assert "The claim is from He et al. 2015, arXiv:1512.03385, Fig. 6." in page()
    text = page(more={"origin": "A variant of <it>.", "recipe": "Recipe: x.py with a=1."})
    seen = " ".join(Page(text).within("p"))
    assert "A variant of <it>." in seen and "Recipe: x.py with a=1." in seen


def test_figures_of_the_claim_are_embedded(page):
    text = page(more={"pictures": {"gain_by_layer": b"png"}})
    assert "Gain by layer" in Page(text).within("h2")
    assert [a["alt"] for tag, a in Page(text).tags if tag == "img"][-1] == "gain_by_layer"


def test_another_score_has_its_name_and_no_percent(page, results, curves):
    loss = Score("loss", ".4f")
    summary = summarise(results["runs"], ["train_loss"])
    text = page(more={"score": loss, "columns": {"train_loss": ".4f"}}, summary=summary)
    data = Page(text).data
    assert (data["score"], data["label"], data["unit"], data["top"]) == ("loss", "loss", "", 2.0)
    assert data["panels"][0]["curves"][0]["value"] == [2.0, 1.0, 0.5]
    assert "Loss while training" in Page(text).within("h2")
    assert "train loss" in Page(text).within("th") and "0.1000" in text


def test_a_claim_without_curves_hides_their_section(page):
    assert "<section hidden>" in page(curves=[], png=None)
    assert "<section hidden>" not in page()


def test_without_scripts_the_picture_stands_in(page):
    assert "<noscript><img src=" in page()
    assert "<img" not in page(png=None)


def test_a_statement_has_its_numbers_and_its_control(page, results):
    first = results["statements"][0]
    seen = Page(page()).within("dd")
    assert "0.59 (98 % interval 0.5 to 0.68), p = 0.002, n = 3" in seen
    refuted = first["verdict"] | {"holds": False, "p": 0.9985, "p_opposite": 0.0015}
    control = first["verdict"] | {"against": "equal arms", "holds": None, "says": "Nothing."}
    more = first | {"verdict": refuted, "control": control, "rule_changed": True}
    texts = Page(page(statements=[first, more]))
    assert "The claim does not hold." in texts.within("h2")
    seen = texts.within("dd")
    assert any("p of the opposite = 0.0015" in text for text in seen)
    assert "equal arms: the rule says undecided. Nothing." in seen
    assert any("another text of this rule" in text for text in seen)


def test_too_few_seeds_have_an_effect_and_no_p(page, results):
    few = {"holds": None, "interval": None, "p": 1.0, "p_opposite": 1.0, "n": 2}
    results["statements"][0]["verdict"] |= few
    assert "0.59, n = 2, too few seeds for a test" in Page(page()).within("dd")
    results["statements"][0]["verdict"] |= {"p": 0.001, "n": 5}  # the interval has no upper bound
    assert "0.59, p = 0.001, n = 5" in Page(page()).within("dd")
