import math

import pytest

from resnet_jax.reporting.tables import Score, summarise, summary_table


def rows_of(table):
    """Return a Markdown table as a dict for each row."""
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def test_summary_is_the_mean_and_sample_deviation_over_seeds(runs):
    row = summarise(runs)[0]
    assert (row["model"], row["n"], row["parameters"]) == ("plain-20", 2, 269_722)
    assert row["train_error_mean"] == pytest.approx(0.11)
    assert row["train_error_std"] == pytest.approx(0.02 / math.sqrt(2))  # ddof = 1
    assert row["test_error_mean"] == pytest.approx(0.22)
    assert row["paper"] is None


def test_rows_go_by_family_then_depth_with_plain_first(runs):
    gated = [run | {"arm": "highway", "model": f"highway-{run['depth']}"} for run in runs[:1]]
    models = [row["model"] for row in summarise(gated + runs)]
    assert models == ["plain-20", "plain-56", "highway-56", "resnet-20", "resnet-56"]


def test_one_seed_has_no_spread(runs, results):
    assert summarise(runs)[-1]["test_error_std"] is None
    row = rows_of(summary_table(results))[-1]
    assert (row["seeds"], row["train error %"], row["test error %"]) == ("n = 1", "1.00", "6.97")


def test_the_table_is_in_percent(results):
    row = rows_of(summary_table(results))[0]
    assert row["train error %"] == "11.00 ± 1.41"
    assert row["test error %"] == "22.00 ± 2.83"
    assert (row["depth"], row["parameters"], row["seeds"]) == ("20", "269,722", "n = 2")


def test_a_note_tells_how_many_runs_it_concerns(runs, results):
    notes = [row["note"] for row in rows_of(summary_table(results))]
    assert notes == ["", "did not train (1 of 2)", "", ""]
    both = [run | {"note": "did not train"} for run in runs if run["model"] == "plain-56"]
    assert summarise(both)[0]["note"] == "did not train"


def test_papers_column_names_the_data_set_and_is_absent_without_numbers(results):
    assert "paper" not in summary_table(results)
    results["summary"][2]["paper"] = 0.0875
    papers = [row["paper's test error % on cifar10"] for row in rows_of(summary_table(results))]
    assert papers == ["–", "–", "8.75", "–"]


def test_columns_have_their_own_names_and_formats(runs, results):
    columns = {"train_loss": ".3f", "seconds": ".0f"}
    results["summary"] = summarise(runs, tuple(columns))
    row = rows_of(summary_table(results, columns))[0]
    assert (row["train loss"], row["seconds"]) == ("0.100 ± 0.000", "1 ± 0")
    assert "train error %" not in row
    assert Score("loss", ".4f").columns == {
        "train_loss": ".4f",
        "clean_loss": ".4f",
        "test_loss": ".4f",
    }


def test_rows_without_parameters_have_no_such_column(runs, results):
    for run in runs:
        del run["parameters"]
    results["summary"] = summarise(runs)
    assert "parameters" not in summary_table(results)


def test_a_seed_counted_twice_is_refused(runs):
    with pytest.raises(ValueError, match="resnet-56 has 2 runs of seed 0"):
        summarise([*runs, runs[0]])


def test_text_cannot_break_out_of_its_cell(results):
    results["summary"][0]["note"] = "a|b\nc"
    assert r"a\|b c" in summary_table(results)
