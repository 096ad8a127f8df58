"""The tests that judge claims keep their level, need more of noisier seeds, and can say all three.

Simulations count how often a test speaks if the true effect is the margin itself. There a yes has
probability `level`, so has a no, which is the yes of the opposite statement; a few more are
allowed for chance: 1 % of 3,000 draws are 30, with a standard deviation of 5.4.
"""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from resnet_jax.analysis import statistics
from resnet_jax.analysis.statistics import (
    above,
    corrected,
    every,
    holm,
    interaction,
    larger,
    no_rise,
    no_worse,
    opposite,
    rises,
)

DRAWS = 3000
MOST = 0.015 * DRAWS
HIGH, LOW = [0.90, 0.91, 0.92, 0.90, 0.91], [0.10, 0.11, 0.12, 0.11, 0.10]
NOISY = [0.05, 0.87, 0.10, 0.87, 0.06]


def draws(*shape, count=DRAWS, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape))


def said(tests):
    """Return how many tests say yes, and how many say no."""
    verdicts = [test.holds for test in tests]
    return verdicts.count(True), verdicts.count(False)


def by_depth(values, depths=(8, 20, 56)):
    """Return samples by depth of values (depth, seed)."""
    return dict(zip(depths, values, strict=True))


# The level.


@pytest.mark.parametrize(
    "n, spread, count",
    [
        *((n, 1.0, DRAWS) for n in (3, 5, 10)),
        *((n, 4.0, DRAWS) for n in (5, 10)),
        (3, 4.0, 5 * DRAWS),  # Welch's approximation gives 1.25 % there, which is near to 1.5 %
    ],
)
def test_at_the_margin_larger_and_no_worse_rarely_say_yes(n, spread, count):
    samples = draws(2, n, count=count) * np.reshape((1.0, spread), (2, 1))
    tests = [larger(a + 5.3, b + 5.0, 0.3) for a, b in samples]
    assert max(said(tests)) <= 0.015 * count
    samples += np.reshape((5.3, 5.0), (2, 1))
    assert said([no_worse(a, b, 0.3) for a, b in samples[:300]]) == said(tests[:300])[::-1]


@pytest.mark.parametrize("n", [3, 5, 10])
def test_at_the_margin_a_paired_test_says_yes_at_its_level(n):
    a, b, shared = np.moveaxis(draws(3, n), 1, 0)
    pairs = zip(a + 9 * shared + 0.3, 4 * b + 9 * shared, strict=True)
    tests = [larger(x, y, 0.3, paired=True) for x, y in pairs]
    assert MOST / 3 <= min(said(tests)) <= max(said(tests)) <= MOST


@pytest.mark.parametrize("n", [3, 5, 10])
def test_at_the_margin_rises_says_yes_at_its_level(n):
    rise = np.log2([[8], [20], [56]]) / np.log2(56 / 8) * 0.3
    spread = np.reshape((0.1, 1.0, 3.0), (3, 1))
    tests = [rises(by_depth(values), 0.3) for values in draws(3, n) * spread + rise]
    assert MOST / 3 <= min(said(tests)) <= max(said(tests)) <= MOST


@pytest.mark.parametrize("n", [3, 5, 10])
def test_at_the_margin_an_interaction_says_yes_at_its_level(n):
    samples = draws(2, 2, n) * np.reshape((1.0, 3.0), (2, 1))
    samples[:, 0, 1] += 0.3
    tests = [interaction(by_depth(a, (8, 56)), by_depth(b, (8, 56)), 0.3) for a, b in samples]
    assert MOST / 3 <= min(said(tests)) <= max(said(tests)) <= MOST


def test_every_says_yes_and_no_at_its_level():
    clear = above(HIGH, 0.5)
    all_but_one = [every(clear, above(x, 0), clear) for x in draws(5)]
    assert MOST / 3 <= said(all_but_one)[0] <= MOST
    barely_all = [
        every(*map(with_p, ps)) for ps in np.random.default_rng(0).uniform(size=(DRAWS, 3))
    ]
    assert MOST / 3 <= said(barely_all)[1] <= MOST


def test_verdicts_that_are_corrected_together_are_rarely_wrong_at_all():
    # All twenty effects are equal to the margin. For the first ten a yes is counted as a mistake,
    # and for the other ten a no.
    mistakes = [True] * 10 + [False] * 10
    wrong = lambda tests: any(t.holds is m for t, m in zip(tests, mistakes, strict=False))
    times, times_alone = 0, 0
    for ps in np.random.default_rng(0).uniform(size=(DRAWS, 20)).tolist():
        tests = [with_p(p) for p in ps]
        times_alone += wrong(tests)
        times += wrong(corrected([*tests, *[with_p(0.0)] * 10]))
    assert MOST / 3 <= times <= MOST and times_alone > 10 * MOST


def with_p(p):
    """Return a test that has the p-value."""
    holds = True if p < 0.01 else False if 1 - p < 0.01 else None
    return statistics.Test(holds, 0.8, (0.7, 0.9), p, 5, 1 - p)


# Power.


def test_non_inferiority_of_equals_is_shown_by_five_seeds_unless_they_are_noisy():
    samples = draws(2, 5, count=500)
    yes = [said([no_worse(s * a, s * b, 3.0) for a, b in samples])[0] for s in (1, 2, 4)]
    assert 500 > yes[0] > 400 and yes[0] > 2 * yes[1] > 4 * yes[2]


def test_pairing_by_seed_removes_what_seeds_share():
    shared = np.array([0.0, 0.5, -0.5, 0.2, -0.2])
    a, b = np.array(HIGH) + shared, np.array(LOW) + shared
    assert larger(a, b, 0.5).holds is None and larger(a, b, 0.5, paired=True).holds is True
    arms = [{8: LOW + shared, 56: HIGH + shared}, {8: LOW + shared, 56: LOW - shared[::-1]}]
    assert interaction(arms[0], {8: LOW, 56: LOW}, 0.5).holds is True
    assert rises(arms[1], 0.5).holds is None


# Closed forms, and scipy's tests.


def test_larger_by_hand():
    test = larger([3, 4, 5], [1, 2, 3], 0)
    assert (test.effect, test.n, test.holds) == (2.0, 3, None)
    # t = 2 / sqrt(2 / 3) has t^2 = 6 and 4 degrees of freedom, whose distribution is elementary.
    p = 0.5 - 3 / 8 * math.sqrt(6 / 2.5) * (1 - 6 / (12 * 2.5))
    assert test.p == pytest.approx(p, rel=1e-12) == pytest.approx(1 - test.p_opposite)
    reach = 3.746947 * math.sqrt(2 / 3)  # the table's t at 0.99 with 4 degrees of freedom
    assert test.interval == pytest.approx((2 - reach, 2 + reach), rel=1e-6)


def test_a_paired_test_by_hand():
    test = larger([3.0, 5.0, 7.0], [1.0, 2.0, 3.0], 1.0, paired=True)
    t = (3 - 1) / math.sqrt(1 / 3)
    assert test.p == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t**2)), rel=1e-12)
    assert (test.effect, test.n) == (3.0, 3)


@pytest.mark.parametrize("sizes", [(3, 3), (5, 4), (10, 3)])
@pytest.mark.parametrize("distance", [0.0, 0.7, 40.0])
def test_larger_is_welchs_test(sizes, distance):
    rng = np.random.default_rng(0)
    a, b = rng.normal(distance, 1, sizes[0]), rng.normal(0, 3, sizes[1])
    test = larger(a, b, 0.3)
    for p, alternative in ((test.p, "greater"), (test.p_opposite, "less")):
        theirs = stats.ttest_ind(a - 0.3, b, equal_var=False, alternative=alternative)
        assert p == pytest.approx(theirs.pvalue, rel=1e-9)
    theirs = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.98)
    assert test.interval == pytest.approx(tuple(theirs), rel=1e-9)
    assert test.n == min(sizes)


def test_samples_of_seeds_give_scipys_one_sample_tests():
    a, b = draws(2, 6, count=1)[0]
    theirs = stats.ttest_rel(a, b, alternative="greater").pvalue
    assert larger(a, b, 0.0, paired=True).p == pytest.approx(theirs)
    assert above(a, -1).p == pytest.approx(stats.ttest_1samp(a, -1, alternative="greater").pvalue)


def test_a_rise_is_that_of_the_least_squares_line_of_each_seed():
    values, depths = draws(4, 5, count=1)[0], (8, 20, 56, 110)
    x = np.log2(depths)
    fitted = [stats.linregress(x, seed).slope * np.log2(110 / 8) for seed in values.T]
    test = rises(by_depth(values, depths), 0.1)
    assert test.effect == pytest.approx(np.mean(fitted)) and test.n == 5
    assert test.p == pytest.approx(stats.ttest_1samp(fitted, 0.1, alternative="greater").pvalue)
    assert rises(by_depth(values[::-1], depths[::-1]), 0.1) == test


def test_with_two_depths_a_rise_and_an_interaction_are_differences_of_the_ends():
    a, b, c, d = draws(4, 5, count=1)[0]
    rise, ends = rises({8: a, 56: b}, 0.1), larger(b, a, 0.1, paired=True)
    assert (rise.effect, rise.p) == pytest.approx((ends.effect, ends.p))
    both = interaction({8: a, 56: b}, {8: c, 56: d}, 0.1)
    ends = larger(b - a, d - c, 0.1, paired=True)
    assert (both.effect, both.p) == pytest.approx((ends.effect, ends.p))


# What leaves a verdict alone, and what turns it.

EVERY_CASE = [(HIGH, LOW, 0.1), (HIGH, LOW, 0.9), (LOW, NOISY, 0.05), (NOISY, LOW, -0.9)]


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("a, b, margin", EVERY_CASE)
def test_a_swap_turns_the_statement_and_a_shift_or_a_unit_leaves_it(a, b, margin, paired):
    test = larger(a, b, margin, paired=paired)
    x, y = np.array(a), np.array(b)
    swapped = opposite(larger(b, a, -margin, paired=paired))
    assert (swapped.holds, -swapped.effect) == (test.holds, test.effect)
    assert (swapped.p, swapped.p_opposite) == pytest.approx((test.p, test.p_opposite), rel=1e-9)
    assert swapped.interval == pytest.approx((-test.interval[1], -test.interval[0]))
    shifted = larger(x + 3, y + 3, margin, paired=paired)
    percent = larger(100 * x, 100 * y, 100 * margin, paired=paired)
    reordered = larger(a[::-1], b[::-1], margin, paired=paired)
    for other in (shifted, percent, reordered):
        assert other.holds is test.holds and other.p == pytest.approx(test.p, rel=1e-9)
    assert percent.effect == pytest.approx(100 * test.effect)


@pytest.mark.parametrize("level", [0.01, 0.1])
def test_a_verdict_is_where_the_interval_lies(level):
    seen = set()
    for a, b in draws(2, 4, count=200) + np.reshape((1.0, 0.0), (2, 1)):
        for margin in (-4.0, 0.0, 4.0):
            test = larger(a, b, margin, level)
            low, high = test.interval or (math.nan, math.nan)
            assert test.holds is (True if low > margin else False if high < margin else None)
            mirror = no_worse(a, b, margin, level)
            assert mirror == opposite(test) and opposite(mirror) == test
            seen.add(test.holds)
    assert seen == {True, False, None}


def test_no_rise_and_no_worse_are_the_opposite_statements():
    for margin, level in itertools.product((0.1, 0.5, 0.9), (0.01, 0.1)):
        samples = {8: LOW, 56: HIGH}
        assert no_rise(samples, margin, level) == opposite(rises(samples, margin, level))
        mirror = no_worse(LOW, NOISY, margin, level, paired=True)
        assert mirror == opposite(larger(LOW, NOISY, margin, level, paired=True))


# Invented results: yes, no, and undecided.


@pytest.mark.parametrize(
    "test, holds",
    [
        (larger(HIGH, LOW, 0.5), True),
        (larger(HIGH, LOW, 0.9), False),
        (larger(LOW, HIGH, 0.05), False),
        (larger(HIGH, LOW, 0.8), None),
        (larger(HIGH, NOISY, 0.05), None),
        (no_worse(LOW, LOW, 0.05), True),
        (no_worse(LOW, HIGH, 0.01), True),
        (no_worse(LOW, HIGH, -0.5), True),
        (no_worse(HIGH, LOW, 0.05), False),
        (no_worse(LOW, LOW, 0.0), None),
        (no_worse(LOW, LOW, 0.01), None),  # equal, and too noisy for so small a margin
        (no_worse(NOISY, NOISY, 0.05), None),
        (above(LOW, 0.05), True),
        (above(LOW, 0.15), False),
        (above(NOISY, 0.15), None),
        (rises({8: LOW, 20: LOW, 56: HIGH}, 0.5), True),
        (rises({8: HIGH, 20: LOW, 56: LOW}, 0.05), False),
        (rises({8: LOW, 20: HIGH, 56: LOW}, 0.05), False),  # a bump is no trend
        (rises({8: LOW, 20: LOW, 56: NOISY}, 0.05), None),
        (no_rise({8: LOW, 20: LOW, 56: LOW}, 0.05), True),
        (no_rise({8: LOW, 20: LOW, 56: HIGH}, 0.05), False),
        (no_rise({8: LOW, 20: LOW, 56: NOISY}, 0.05), None),
        (interaction({8: LOW, 56: HIGH}, {8: LOW, 56: LOW}, 0.5), True),
        (interaction({8: LOW, 56: HIGH}, {8: LOW, 56: HIGH}, 0.05), False),
        (interaction({8: LOW, 56: LOW}, {8: LOW, 56: HIGH}, 0.05), False),
        (interaction({8: LOW, 56: HIGH}, {8: LOW, 56: NOISY}, 0.05), None),
    ],
)
def test_invented_results_get_their_verdict(test, holds):
    assert test.holds is holds


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_a_residual_network_that_fails_in_some_runs_is_never_shown_to_be_no_worse(n):
    good = [0.0] * n
    for runs in itertools.product((0.0, 0.87), repeat=n):
        if any(runs):
            tests = [no_worse(runs, good, 0.01), no_worse(runs, good, 0.01, paired=True)]
            tests += [no_rise({8: good, 20: good, 56: runs}, 0.01)]
            assert True not in [test.holds for test in tests]


# Few seeds, and no spread.


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_seeds_decide_nothing_and_show_the_effect(n):
    few, many = [0.9] * n, [0.1] * 5
    tests = [larger(few, many, 0), larger(many, few, 0), above(few, 0), rises({8: few, 9: few}, 1)]
    for test in tests:
        assert test.holds is None and test.interval is None and test.n == n
        assert test.p == test.p_opposite == 1
    assert tests[0].effect == pytest.approx(0.8) and tests[2].effect == 0.9


def test_values_without_spread_are_decided_by_the_effect():
    chance, perfect = [0.9, 0.9, 0.9], [0.0, 0.0, 0.0]
    for test in (larger(chance, perfect, 0.5), rises({8: perfect, 110: chance}, 0.5)):
        assert (test.holds, test.p, test.p_opposite) == (True, 0.0, 1.0)
        assert test.interval == pytest.approx((0.9, 0.9))
    assert larger(perfect, chance, 0.5).holds is False
    assert no_worse(perfect, perfect, 0.01).holds is True
    assert larger(chance, [0.0, 0.01, 0.02], 0.5).holds is True  # one arm of no spread: Welch


@pytest.mark.parametrize("paired", [False, True])
def test_seeds_that_agree_on_a_coarse_scale_have_its_resolution_as_their_spread(paired):
    """Two equal samples of n values on a scale of step 1 have standard errors of 1 / sqrt(12 n)."""
    high, low = [3.0] * 5, [1.0] * 5
    test = larger(high, low, 1.0, paired=paired, resolution=1.0)
    t = (2.0 - 1.0) / math.sqrt(2 / 12 / 5)
    assert test.p == pytest.approx(stats.t.sf(t, 4 if paired else 8), rel=1e-6)
    assert larger(high, low, 1.0, paired=paired).p == 0
    assert larger(high, low, 1.9, paired=paired, resolution=1.0).holds is None


@pytest.mark.parametrize(
    "test",
    [
        larger([0.9] * 3, [0.1] * 3, 0.8),
        larger([0.3] * 3, [0.1 + 0.2] * 3, 0),
        larger([0.9, 0.8, 0.7], [0.6, 0.5, 0.4], 0.3, paired=True),
        larger([0.1 + 0.2, 0.3, 0.3], [0.3, 0.1 + 0.2, 0.3], 0.0, paired=True),
        rises({8: [0.9] * 3, 20: [0.9] * 3, 56: [0.9] * 3}, 0),
        interaction({8: [0.1] * 3, 56: [0.9] * 3}, {8: [0.0] * 3, 56: [0.5] * 3}, 0.3),
    ],
)
def test_without_spread_at_the_margin_rounding_does_not_decide(test):
    assert (test.holds, test.p, test.p_opposite) == (None, 0.5, 0.5)


def test_a_small_spread_is_not_taken_for_rounding():
    test = above([1 + 1e-9, 1 + 2e-9, 1 + 3e-9], 1)
    assert test.p == pytest.approx(above([1, 2, 3], 0).p, rel=1e-5) and test.holds is None


def test_results_can_be_written_as_json():
    few, sure = larger([0.9], [0.1], 0), larger([0.9] * 3, [0.1] * 3, 0)
    for test in (few, sure, larger(HIGH, LOW, 0.1), every(few, sure), *corrected([few, sure])):
        assert json.loads(json.dumps(test._asdict(), allow_nan=False))["holds"] is test.holds
    assert larger(HIGH, LOW, 0.1)._asdict().keys() >= {"holds", "effect", "interval", "p", "n"}


# Several statements.


def test_every_statement_must_be_shown_and_one_that_fails_is_enough():
    yes, no, unknown = larger(HIGH, LOW, 0.5), larger(LOW, HIGH, 0), larger(HIGH, NOISY, 0)
    few = larger([0.9], [0.1], 0)
    assert every(yes, larger(HIGH, LOW, 0.7)).holds is True
    assert every(yes, unknown).holds is None and every(yes, few).holds is None
    for tests in ((yes, no), (no, unknown), (few, no), (no, few, yes)):
        test = every(*tests)
        assert test.holds is False and test.p == max(t.p for t in tests)
        assert (test.effect, test.interval, test.n) == (no.effect, no.interval, no.n)
        assert test.p_opposite == pytest.approx(len(tests) * no.p_opposite)
    assert every(yes, unknown)[1:5] == unknown[1:5]
    assert every(yes) == yes and every(no) == no


def test_a_no_to_every_statement_is_corrected_for_their_number():
    yes, no = larger(HIGH, LOW, 0.5), with_p(0.994)
    assert every(no).holds is False
    assert every(no, yes).holds is None and every(no, yes).p_opposite == pytest.approx(0.012)
    assert every(no, yes, level=0.02).holds is False
    assert every(*[with_p(0.006)] * 3).holds is True


def test_holm_by_hand():
    # 4 * 0.005; 3 * 0.01; 2 * 0.03; then 1 * 0.04, which is less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9, 0.6]) == [1, 1, 1] and holm([0.2]) == [0.2] and holm([]) == []
    assert holm([0.02, 0.02]) == [0.04, 0.04]


def test_a_verdict_stays_if_it_survives_the_others():
    ps = [0.002, 0.9985, 0.006, 0.5]  # the smaller ones adjusted: 0.006, 0.006, 0.012, 0.5
    tests = [with_p(p) for p in ps]
    assert [test.holds for test in tests] == [True, False, True, None]
    after = corrected(tests)
    assert [test.holds for test in after] == [True, False, None, None]
    assert [test.p for test in after] == ps
    # A test of one seed can decide nothing, so that it does not count as one of the tests.
    few = larger([0.9], [0.1], 0)
    assert corrected([*tests[2:3], *[few] * 9])[0].holds is True
    assert corrected([*tests[2:3], tests[3]])[0].holds is None
    assert corrected([few])[0].holds is None and corrected([]) == []


# Refusals.


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e200])
def test_a_value_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match=r"^[^\n]* is not a finite number, .* diverged"):
        larger([0.1, bad, 0.3], LOW, 0)
    with pytest.raises(ValueError, match="is not a finite number"):
        rises({8: LOW, 56: [*LOW[:4], bad]}, 0)
    with pytest.raises(ValueError, match="margin"):
        above(LOW, bad)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: larger(LOW, LOW[:4], 0, paired=True), "a has 5 seeds and b has 4"),
        (lambda: larger([], LOW, 0), "not a sample"),
        (lambda: above(np.ones((3, 2)), 0), "not a sample"),
        (lambda: rises({8: LOW}, 0), "two or more positive depths"),
        (lambda: rises({0: LOW, 8: LOW}, 0), "two or more positive depths"),
        (lambda: rises({8: LOW, 56: LOW[:4]}, 0), "8: 5, 56: 4"),
        (lambda: interaction({8: LOW, 56: LOW}, {8: LOW, 20: LOW}, 0), "needs the same in both"),
        (
            lambda: interaction({8: LOW, 56: LOW}, {8: LOW[:3], 56: LOW[:3]}, 0),
            "with 5 seeds .* with 3",
        ),
        (lambda: above(LOW, 0, 0.5), "level = 0.5"),
        (lambda: above([1.0], 0, 0.0), "level = 0.0"),
        (lambda: every(above(LOW, 0), level=1.0), "level = 1.0"),
        (lambda: corrected([above(LOW, 0)], 1.0), "level = 1.0"),
        (lambda: every(), "at least one"),
        (lambda: holm([0.1, 1.1]), "1.1 is not a p-value"),
        (lambda: holm([math.nan]), "nan is not a p-value"),
    ],
)
def test_what_cannot_be_tested_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_pytest_does_not_collect_the_result():
    assert statistics.Test.__test__ is False
