"""The claims about stochastic depth: their rules on invented rows, and what they measure."""

import math

import pytest

from experiments import (
    drop_forms,
    preactivation,
    stochastic_depth,
    stochastic_depth_needs_skips,
    stochastic_depth_saves_time,
)
from resnet_jax import config as configs

REGULARISES, SAVES = (
    *stochastic_depth.CLAIM.statements,
    *stochastic_depth_saves_time.CLAIM.statements,
)


def rows(dropped, kept=(0.05, 0.08, 1.0), seeds=5):
    """Return rows of (clean error, test error, time) of each arm; constant depth has 5, 8 %."""
    arms = {"constant": (0.05, 0.08, 1.0), "dropped": dropped, "kept": kept}
    return [
        {
            "model": f"{name}-56",
            "arm": name,
            "depth": 56,
            "seed": seed,
            "chance_error": 0.9,
            "train_error": 0.2,
        }
        | {
            column: value + 0.0005 * (seed - 2)
            for column, value in zip(("clean_error", "test_error", "time"), of, strict=True)
        }
        for name, of in arms.items()
        for seed in range(seeds)
    ]


@pytest.mark.parametrize(
    "dropped,regularises,saves",
    [
        ((0.10, 0.06, 0.75), True, True),
        ((0.10, 0.10, 0.95), False, False),
        ((0.03, 0.06, 0.9), False, None),
    ],
)
def test_the_rules_say_yes_no_and_nothing(dropped, regularises, saves):
    assert REGULARISES.judge(rows(dropped)).holds is regularises
    assert SAVES.judge(rows(dropped)).holds is saves
    assert REGULARISES.judge(rows(dropped, seeds=2)).holds is None
    for statement in (REGULARISES, SAVES):
        assert statement.control is not None
        assert not statement.judge(statement.control(rows(dropped))).holds


def test_constant_depth_differs_in_the_merge_alone(options):
    constant, dropped, kept = stochastic_depth.plan(options(8, seeds_per_model=1))
    for run in (constant, dropped, kept):
        assert configs.flatten(
            stochastic_depth_saves_time.constant_depth(run.config)
        ) == configs.flatten(constant.config)
    assert (dropped.config.model.survival, kept.config.model.survival) == (0.5, 1.0)


def test_the_time_is_that_of_the_network_over_the_others(options, monkeypatch):
    constant, dropped, _ = stochastic_depth_saves_time.plan(options(8, seeds_per_model=1))
    now = [0.0]

    def compiled(network, seed):
        seconds = 3.0 if network.config.model.merge == "stochastic_depth" else 4.0
        return lambda: now.append(now[-1] + seconds)

    monkeypatch.setattr(stochastic_depth_saves_time, "compiled", compiled)
    monkeypatch.setattr(stochastic_depth_saves_time.time, "perf_counter", lambda: now[-1])
    assert stochastic_depth_saves_time.ratio(dropped, constant) == 0.75
    assert stochastic_depth_saves_time.ratio(constant, constant) == 1.0


def test_four_forms_and_a_plain_network_without_a_body(options):
    given = {}
    for claim in (drop_forms.CLAIM, stochastic_depth_needs_skips.CLAIM):
        rows = given[claim.name] = [
            {"model": run.model, "arm": run.arm, "depth": 8, "seed": 0} | row
            for run in claim.plan(options(8))
            for row in claim.measure(run)
        ]
        assert claim.control is not None
        assert claim.judge(rows).holds is True
        assert claim.judge(claim.control(rows)).holds is False
    forms, skips = given.values()
    twice = forms + [row | {"seed": 1} for row in forms]
    assert drop_forms.judge(twice).holds is True
    biased = [row | {"share_error": 9.0} for row in forms]
    assert drop_forms.judge(biased).holds is False
    three = [row | {"values": 3} for row in forms]
    assert drop_forms.judge(three).holds is False
    silent = [row | {"least": 0.0} for row in skips]
    assert stochastic_depth_needs_skips.judge(silent).holds is False


def test_the_early_loss_is_that_of_the_first_tenth_of_the_steps(options, finish, monkeypatch):
    run = preactivation.plan(options(8, 14, seeds_per_model=1))[0]
    finish(run, 0.25)
    curve = {"seed": 0, "split": "train", "step": [10, 20, 30, 40], "loss": [2.0, 1.0, 0.6, 0.1]}
    monkeypatch.setattr(preactivation, "curves", lambda run: [curve, curve | {"split": "test"}])
    (row,) = preactivation.measure(run)
    assert run.config.steps == 300 and row["early_loss"] == pytest.approx(1.2)


def test_the_early_loss_of_a_run_that_diverged_is_that_of_one_that_learned_nothing(options, finish):
    run = preactivation.plan(options(8, 14, seeds_per_model=1))[0]
    finish(run, 0.25, diverged="the training loss is nan at step 30")
    (row,) = preactivation.measure(run)
    assert row["early_loss"] == row["train_loss"] == pytest.approx(math.log(10))
