"""The verdict's rule on invented results, and the plan."""

import numpy as np
import pytest

from experiments import claim, degradation
from experiments.degradation import CLAIM, plan
from experiments.flags import CONFIGS

CHANCE = 0.9
ERROR, LOSS = CLAIM.statements


def row(arm, depth, seed, error, loss):
    row = {"model": f"{arm}-{depth}", "arm": arm, "depth": depth, "seed": seed}
    return row | {"train_error": error, "train_loss": loss, "chance_error": CHANCE}


def rows(plain, residual, std=0.002, seeds=3, arms=("plain", "resnet"), losses=None):
    """Rows of invented runs: the errors from the shallowest to the deepest of 8, 20 and 56 layers.

    The seeds differ by noise of the standard deviation `std`. Losses are the errors, or `losses`.
    """
    losses = losses or (plain, residual)
    noise = np.random.default_rng(0)
    return [
        row(arm, depth, seed, *noise.normal((error, loss), std))
        for arm, errors, own in zip(arms, (plain, residual), losses, strict=True)
        for depth, error, loss in zip((8, 20, 56)[3 - len(errors) :], errors, own, strict=True)
        for seed in range(seeds)
    ]


WORSE, BETTER = (0.10, 0.20, 0.40), (0.08, 0.07, 0.05)


@pytest.mark.parametrize(
    "invented,holds",
    [
        (rows(WORSE, BETTER), True),
        (rows(WORSE, (0.08, 0.09, 0.09)), True),  # residual networks are hardly worse
        (rows((0.10, 0.20, CHANCE), BETTER), True),  # a deep plain network at chance counts
        (rows((0.10, 0.10, 0.11), BETTER), False),  # plain networks are hardly worse
        (rows((0.20, 0.15, 0.10), BETTER), False),
        (rows(WORSE, (0.08, 0.20, 0.38)), False),  # residual networks are as much worse
        (rows((0.10, 0.20, 0.70), (0.08, 0.20, 0.38)), False),
        (rows((0.10, 0.50, 0.11), BETTER), False),  # one depth between makes no trend
        (rows(WORSE, BETTER, seeds=2), None),
        (rows(WORSE, BETTER, seeds=1), None),
        (rows(WORSE, BETTER, std=0.15), None),
        (rows((0.10, 0.13, 0.16), BETTER, std=0.02), None),
        (rows((CHANCE,) * 3, BETTER), None),
        (rows(WORSE, (0.08, 0.07, 0.89)), None),
        (rows(WORSE, (0.89, 0.07, 0.05)), None),
        (rows(WORSE[-1:], BETTER[-1:]), None),
        (rows(WORSE, BETTER[:0]), None),
        ([], None),
    ],
)
def test_the_verdict_follows_its_rule(invented, holds):
    verdict = ERROR.judge(invented)
    assert verdict.holds is holds and verdict.says
    assert verdict.test is None or verdict.test.holds is holds


@pytest.mark.parametrize("failures", [1, 2])
def test_residual_runs_that_sometimes_fail_are_no_success(failures):
    """Two seeds at 0 and 0.87 once passed for networks that do not degrade."""
    for seeds in (2, 3, 5):
        invented = rows(WORSE, (0.01, 0.01, 0.01), seeds=seeds)
        for each in invented:
            if (each["model"], each["seed"] < failures) == ("resnet-56", True):
                each["train_error"] = 0.87
        assert ERROR.judge(invented).holds is not True


def test_a_verdict_of_no_has_the_effect_of_the_part_that_is_refuted():
    test = CLAIM.judge(rows((0.10, 0.40, 0.85), (0.05, 0.15, 0.25), seeds=5)).test
    assert test is not None and test.holds is False
    assert test.effect == pytest.approx(0.2, abs=0.02) and test.interval[0] > 0.05


def test_the_verdict_has_the_effect_of_the_skip_connection():
    verdict = ERROR.judge(rows(WORSE, BETTER))
    assert verdict.test is not None and verdict.test.interval is not None
    assert verdict.test.n == 3 and verdict.test.p < 0.01
    low, high = verdict.test.interval
    assert low < verdict.test.effect < high
    assert verdict.test.effect == pytest.approx(0.33, abs=0.01)
    few = ERROR.judge(rows(WORSE, BETTER, seeds=2, std=0.0))
    assert few.test is not None and few.test.interval is None
    assert few.test.effect == pytest.approx(0.33, abs=0.01)
    for number in ("From 8 to 56 layers", "from 10.0% to 40.0%", "from 8.0% to 5.0%", "by 33.2%"):
        assert number in few.says


@pytest.mark.parametrize("statement", CLAIM.statements)
@pytest.mark.parametrize("residual", [BETTER, WORSE, (0.08, 0.2, 0.1)])
def test_the_rule_says_no_to_its_control(statement, residual):
    invented = rows(WORSE, residual)
    assert statement.judge(statement.control(invented)).holds is False
    several = invented + rows(WORSE, residual, arms=("plain-ladder", "ladder"))
    assert statement.judge(statement.control(several)).holds is False


def test_of_several_families_the_claim_holds_if_it_holds_of_each():
    good = rows(WORSE, BETTER)
    other = lambda residual: rows(WORSE, residual, arms=("plain-ladder", "ladder"))
    assert ERROR.judge(good + other(BETTER)).holds is True
    assert ERROR.judge(good + other((0.1, 0.2, 0.4))).holds is False
    assert ERROR.judge(good + other((CHANCE,) * 3)).holds is None
    assert "[ladder] " in ERROR.judge(good + other(BETTER)).says


@pytest.mark.parametrize(
    "plain,residual,holds",
    [
        ((0.5, 0.9, 1.8), (0.4, 0.3, 0.2), True),
        ((0.5, 0.5, 0.5), (0.4, 0.3, 0.2), False),
        ((0.5, 0.9, 1.8), (0.4, 0.9, 1.7), False),
        ((0.5, 0.55, 0.6), (0.4, 0.3, 0.2), None),  # 0.1 nats are the margin
    ],
)
def test_the_loss_is_judged_by_itself(plain, residual, holds):
    same = (0.1, 0.1, 0.1)
    assert LOSS.judge(rows(same, same, losses=(plain, residual))).holds is holds
    assert "training loss" in LOSS.judge(rows(same, same, losses=(plain, residual))).says
    at_chance = rows(same, (0.1, 0.1, 0.89), losses=(plain, residual))
    assert LOSS.judge(at_chance).holds is None


def test_both_statements_are_told_with_their_rules():
    error, loss = (claim.judged(each, rows(WORSE, BETTER), []) for each in CLAIM.statements)
    assert (error["name"], loss["name"]) == ("degradation", "degradation_of_the_loss")
    assert "rises by more than 5 points" in error["verdict"]["rule"]
    assert "rises by more than 0.1 nats" in loss["verdict"]["rule"]
    for told in (error, loss):
        assert told["verdict"]["holds"] is True and told["control"]["holds"] is False
    assert degradation.training_error_by_depth(rows(WORSE, BETTER)).axes


def test_the_plan_has_five_seeds_and_two_depths_or_more(options):
    runs = plan(options(8, 14))
    assert {run.model for run in runs} == {"plain-8", "resnet-8", "plain-14", "resnet-14"}
    assert [run.config.seed for run in runs] == [seed for seed in range(5) for _ in range(4)]
    with pytest.raises(ValueError, match="resnet:8 is the only depth of family=resnet"):
        plan(options(8))
    with pytest.raises(ValueError, match="is not a skip of family=lenet"):
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
    plain, residual = plan(options(8, 14))[:2]
    finish(plain, 0.89)
    finish(residual, 0.25)
    assert [row.get("note") for row in CLAIM.measure(plain)] == ["did not train"]
    assert [row.get("note") for row in CLAIM.measure(residual)] == [None]
