"""The verdicts in the repository: the README's table is the script's, and the script copies all."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from scripts import claims
from tests.reporting.test_index_page import entry


@pytest.fixture
def workdir(tmp_path):
    """A finished directory of experiments.all, with invented results."""
    figure = io.BytesIO()
    noise = Image.effect_noise((1600, 800), 100)
    noise.save(figure, "PNG")
    for name in ("depth", "signal"):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "figure.png").write_bytes(figure.getvalue())
    rows = [
        entry("depth", "trained", True),
        entry("depth_of_the_loss", "trained", None, uncorrected=True, experiment="depth")
        | {"claim": "Rises, | too.", "figure": "depth/figure.png"},
        entry("signal", "exact", False),
    ]
    rows = [row | {"options": []} for row in rows]
    content = {"claims": rows, "missing": [], "date": "2026-11-27T20:00:00+00:00"}
    content |= {"command": "python -m experiments.all", "hardware": "2 cores", "untested": []}
    (tmp_path / "all" / "index.json").write_text(json.dumps(content))
    return tmp_path / "all"


def test_the_readme_has_the_table_of_the_results():
    """While nothing has been measured, the README says so."""
    content = claims.read(claims.RESULTS)
    text = claims.README.read_text("utf-8")
    assert text == claims.with_table(text, content), "run python scripts/claims.py"
    assert (claims.NOTHING in text) == (content is None)
    if content is None:
        print("results/index.json is not there: nothing has been measured yet")


def test_results_are_copied_with_small_figures(workdir, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    (results / "old.png").write_bytes(b"")
    claims.copy(workdir, results)
    assert {path.name for path in results.iterdir()} == {"index.json", "depth.png", "signal.png"}
    for path in results.glob("*.png"):
        assert 100 < path.stat().st_size < 30_000
    rows = claims.read(results)["claims"]
    assert [row["figure"] for row in rows] == ["depth.png", "depth.png", "signal.png"]
    for row in rows:
        assert (row["report"], row["runs"]) == (None, [])
        assert (row["hardware"], row["dataset"], row["revision"]) == ("2 cores", "digits", "abc")


def test_the_table_has_a_row_for_each_statement(workdir):
    lines = claims.table(claims.read(workdir)).splitlines()
    assert lines[0] == (
        "3 statements: 1 holds, 1 does not hold, 1 is undecided. Measured on 2026-11-27 in 3 "
        "minutes by `python -m experiments.all`, on 2 cores, at revision abc."
    )
    assert lines[4:] == [
        "| `depth`: The sentence of depth. | trained | **holds** | 0.59 (98 % interval -0.1 to "
        "0.68), p = 0.002, n = 5 | digits |",
        "| `depth_of_the_loss`: Rises, \\| too. | trained | **undecided** | 0.59 (98 % interval "
        "-0.1 to 0.68), p = 0.002, n = 5 | digits |",
        "| `signal`: The sentence of signal. | exact | **does not hold** | – | digits |",
    ]
    text = f"before\n{claims.BEGIN}\nearlier\n{claims.END}\nafter\n"
    new = claims.with_table(text, claims.read(workdir))
    assert new.startswith("before\n") and new.endswith("after\n") and "earlier" not in new
    assert claims.with_table(new, claims.read(workdir)) == new
    with pytest.raises(ValueError, match="each once"):
        claims.with_table("no markers", None)


def test_claims_that_were_not_done_or_failed_are_named(workdir, tmp_path):
    content = claims.read(workdir)
    content["missing"].append("lesion")
    content["claims"][2].update(error="x")
    (workdir / "index.json").write_text(json.dumps(content))
    claims.copy(workdir, tmp_path / "results")
    copied = claims.read(tmp_path / "results")
    assert copied["command"] == "python -m experiments.all --workdir=DIR"
    assert [row["name"] for row in copied["claims"]] == ["depth", "depth_of_the_loss"]
    assert claims.table(copied).splitlines()[0].endswith("Not measured yet: `lesion`, `signal`.")


def test_claims_that_were_done_with_options_are_refused(workdir, tmp_path):
    content = claims.read(workdir)
    content["claims"][2]["options"] = ["--steps=2"]
    (workdir / "index.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="signal of .* was done with --steps=2; .*: do it with"):
        claims.copy(workdir, tmp_path / "results")


def test_a_directory_without_a_result_is_refused(workdir, tmp_path):
    content = claims.read(workdir)
    for row in content["claims"]:
        row["error"] = "x"
    (workdir / "index.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="has the results of no claim; do them with"):
        claims.copy(workdir, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_directory_without_an_index_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        claims.main([f"--workdir={tmp_path}"])
    said = capsys.readouterr().err
    assert end.value.code == 2 and "has no index.json" in said and said.count("\n") == 1


def test_pages_that_explain_claims_name_what_there_is():
    root = Path(claims.ROOT)
    text = (root / "docs" / "claims.md").read_text("utf-8")
    for path in ("experiments/untested.py", "scripts/claims.py", "tests/experiments"):
        assert path in text and (root / path).exists()
    assert "docs/claims.md" in (root / "README.md").read_text("utf-8")
