"""What holds of every claim in experiments/: its words, its controls, its length and its plan."""

import ast
import importlib
import inspect
import re

import pytest

from experiments import flags, listing, plan
from resnet_jax import command

CLAIMS = listing.claims()
STATEMENTS = [statement for claim in CLAIMS.values() for statement in claim.statements]
EXACT = {of.name for claim in CLAIMS.values() if claim.kind == "exact" for of in claim.statements}
LINES = 140  # of code: without blank lines and without the first docstring


def test_the_names_of_statements_are_unique_and_those_of_files():
    names = [statement.name for statement in STATEMENTS]
    assert len(set(names)) == len(names)
    assert all(name == claim.name for name, claim in CLAIMS.items())


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
def test_a_statement_has_a_rule_with_numbers_and_a_control(statement):
    assert re.fullmatch(r"[A-Z].*\.", statement.says) and "\n" not in statement.says
    assert statement.control is not None or statement.name in EXACT
    assert bool(statement.against) == (statement.control is not None)
    assert not statement.against.endswith(".") and not statement.rule.endswith(".")
    assert re.search(r"\d", statement.rule) or statement.name in EXACT
    assert statement.source == "ours" or re.search(r"\d{4}|^ours", statement.source)


@pytest.mark.parametrize("name", CLAIMS)
def test_the_rule_of_a_claim_over_seeds_names_the_level(name):
    for statement in CLAIMS[name].statements:
        assert CLAIMS[name].kind == "exact" or "p < 0.01" in statement.rule


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_is_a_short_file_that_names_its_source_and_its_command(name):
    module = importlib.import_module(f"experiments.{name}")
    source = inspect.getsource(module)
    opening = ast.get_docstring(ast.parse(source), clean=False)
    assert opening is not None and f"python -m experiments.{name}" in opening
    code = [line for line in source.replace(opening, "").splitlines() if line.strip()]
    assert len(code) <= LINES, f"{len(code)} lines of code, {len(source.splitlines())} in all"
    assert source.rstrip().endswith('if __name__ == "__main__":\n    command.run(main)')
    assert module.command is command


# The networks of the census are large: tracing them takes a quarter of a minute.
LARGE = ("identity_census", "census_blocks")
PLANS = [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in CLAIMS]


@pytest.mark.parametrize("name", PLANS)
def test_the_default_plan_is_accepted_and_gives_each_config_its_folder(name, tmp_path):
    claim = CLAIMS[name]
    arguments = flags.parser(name, "").read([f"--workdir={tmp_path}", "--seeds=1"])
    options = claim.options(arguments)
    runs = list(claim.plan(options))
    plan.check(runs, options, claim.task)
    assert len({run.workdir for run in runs}) == len({str(run.config) for run in runs})
    if claim.kind == "init":
        assert not any(run.trained for run in runs)
    if claim.kind == "trained":
        assert any(run.trained for run in runs)
    assert not list(tmp_path.iterdir())
