"""Claims that need no training come out as results/index.json has them."""

import pytest

from experiments import flags, listing, results
from experiments.claim import judged
from scripts import claims

CLAIMS = {name: claim for name, claim in listing.claims().items() if claim.kind != "trained"}
CHEAP = ("small_kernels", "drop_forms")
EACH = [name if name in CHEAP else pytest.param(name, marks=pytest.mark.slow) for name in CLAIMS]


@pytest.fixture(scope="module")
def measured():
    """Return the entries of results/index.json by the names of the statements."""
    content = claims.read(claims.RESULTS)
    if content is None:
        pytest.skip("results/index.json is not there: nothing has been measured yet")
    return {entry["name"]: entry for entry in content["claims"]}


@pytest.mark.parametrize("name", EACH)
def test_a_claim_without_training_comes_out_as_it_was_measured(name, measured, tmp_path):
    if name not in measured:
        pytest.skip(f"{name} is not in results/index.json: it has not been measured yet")
    claim = CLAIMS[name]
    runs = claim.plan(claim.options(flags.parser(name, "").read([f"--workdir={tmp_path}"])))
    if any(run.trained for run in runs):
        pytest.skip(f"{name} looks at a trained network, too")
    rows = [results.named(run) | row for run in runs for row in claim.measure(run)]
    for statement in claim.statements:
        verdict = judged(statement, rows, runs)["verdict"]
        entry = measured[statement.name]
        assert verdict["holds"] == entry["uncorrected"], verdict["says"]
        if entry["effect"] is not None:
            low, high = entry["interval"]
            assert low <= verdict["effect"] <= high
