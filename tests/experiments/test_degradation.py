"""The verdict's rule, and the plan."""

import pytest

from experiments import degradation
from experiments.degradation import CLAIM, judge, plan
from experiments.flags import CONFIGS

CHANCE = 0.9


def row(family, depth, error, seed=0):
    row = {"model": f"{family}-{depth}", "family": family, "depth": depth, "seed": seed}
    return row | {"train_error": error, "test_error": error, "chance_error": CHANCE}


def rows(plain, residual, std=0.0, families=("plain", "resnet")):
    """Rows of 20 and 56 layers, with three seeds if there is a standard deviation."""
    seeds = enumerate((-std, 0.0, std) if std else (0.0,))
    spread = [(seed, off) for seed, off in seeds]
    return [
        row(family, depth, error + off, seed)
        for family, errors in zip(families, (plain, residual), strict=True)
        for depth, error in zip((20, 56), errors, strict=True)
        for seed, off in spread
    ]


@pytest.mark.parametrize(
    "plain,residual,std,holds",
    [
        ((0.10, 0.30), (0.08, 0.05), None, True),
        ((0.10, 0.16), (0.08, 0.09), None, True),
        ((0.10, 0.14), (0.08, 0.05), None, False),  # less than 5 points
        ((0.10, 0.30), (0.08, 0.10), None, False),  # residual more than 1 point worse
        ((0.10, 0.30), (0.08, 0.10), 0.02, True),  # within two standard deviations
        ((0.10, 0.16), (0.08, 0.05), 0.04, False),  # within two standard deviations
        ((0.10, 0.90), (0.08, 0.05), None, True),  # a deep plain net at chance counts
        ((0.90, 0.90), (0.08, 0.05), None, None),
        ((0.10, 0.30), (0.08, 0.89), None, None),
        ((0.10, 0.30), (0.90, 0.08), None, None),
    ],
)
def test_the_verdict_follows_its_rule(plain, residual, std, holds):
    verdict = judge(rows(plain, residual, std or 0.0))
    assert verdict.holds is holds
    assert ("n = 1" if std is None else "n = 3") in verdict.says or holds is None


def test_one_depth_shows_nothing():
    assert judge([row("plain", 20, 0.1), row("resnet", 20, 0.1)]).holds is None


def test_of_several_families_the_claim_holds_if_it_holds_of_each():
    good = rows((0.1, 0.4), (0.1, 0.05))
    other = lambda deep: rows((0.1, 0.4), (0.1, deep), families=("plain-ladder", "ladder"))
    assert judge(good + other(0.05)).holds is True
    assert judge(good + other(0.3)).holds is False
    assert judge(good + other(CHANCE)).holds is None
    assert "[ladder] " in judge(good + other(0.3)).says


def test_twins_differ_in_the_skip_alone(options):
    runs = plan(options(8, 14, seeds_per_model=2))
    assert [run.name for run in runs[:5]] == [
        "plain-8, seed 0", "resnet-8, seed 0", "plain-14, seed 0", "resnet-14, seed 0",
        "plain-8, seed 1",
    ]  # fmt: skip
    plain, residual = (dict(run.config.model.items()) for run in runs[:2])
    assert plain.pop("skip") == "none" and residual.pop("skip") == "A" and plain == residual
    assert runs[0].config.schedule == runs[1].config.schedule


def test_several_families_are_planned_each_with_its_twin(options):
    networks = (("vgg", 11), ("resnet", 8), ("highway", 19))
    assert [(run.model, run.config.model.skip) for run in plan(options(networks=networks))] == [
        ("plain-vgg-11", "none"), ("residual-vgg-11", "A"), ("plain-8", "none"),
        ("resnet-8", "A"), ("plain-highway-19", "none"), ("highway-19", "A"),
    ]  # fmt: skip


def test_a_skip_of_the_argument_is_the_residual_twins(options):
    runs = plan(options(8, switches={"skip": "B"}))
    assert [run.config.model.skip for run in runs] == ["none", "B"]
    with pytest.raises(ValueError, match="skip=none is the plain twin, which is trained anyway"):
        plan(options(8, switches={"skip": "none"}))
    with pytest.raises(ValueError, match="family=lenet"):
        plan(options(networks=(("lenet", 5),)))


def test_full_is_the_papers_scale(options):
    full = options(*degradation.depths("cifar10", True), recipe=CONFIGS / "cifar10.py", full=True)
    runs = plan(full)
    assert len(runs) == 2 * 5 * 5 and not full.changes()
    assert all(run.config.schedule.warmup_steps == 400 for run in runs)
    assert {run.model for run in runs} & degradation.PAPER.keys() == {
        f"resnet-{depth}" for depth in (20, 32, 44, 56, 110)
    }


def test_a_network_at_chance_has_a_note(options, finish):
    plain, residual = plan(options(8))
    finish(plain, 0.89)
    finish(residual, 0.25)
    assert [row["note"] for row in CLAIM.measure(plain)] == ["did not train"]
    assert [row["note"] for row in CLAIM.measure(residual)] == [None]
