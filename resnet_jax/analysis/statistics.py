"""The tests by which a claim about trained networks is judged: true, false, or undecided.

A sample holds one value for each seed. Every test is a one-sided t test with a margin. At `level`
0.01 a wrong statement gets a yes in at most 1 % of cases, and a right one a no. Noise and few seeds
make both verdicts harder to reach: fewer than three seeds decide nothing.

A t test assumes that values are roughly normal over seeds, and it knows only the seeds that were
run: if one run in ten fails, five seeds show no failure in 59 % of cases.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

Sample = Sequence[float | int] | np.ndarray
ByDepth = Mapping[Any, Sample]  # of depths, or of other positive numbers

FEWEST = 3  # seeds
ROUND_OFF = 1e-12  # of the largest value: smaller differences are taken to be rounding
LARGEST = 1e100  # the squares of larger values may overflow


class Test(NamedTuple):
    """The result of a test; all fields are plain Python, and none is NaN or infinite.

    Attributes:
        holds: true if p < level, false if p_opposite < level, else None.
        effect: the estimated difference, or rise over depth, in the units of the values.
        interval: the bounds that the effect exceeds, and stays below, each with confidence 1 -
            level; None with fewer than three seeds, and if a bound is unknown. A statement "more
            than the margin" is true if and only if the lower bound exceeds the margin, and false if
            the upper one is below it.
        p: the p-value of the one-sided test whose alternative is the statement.
        n: the number of seeds in the smallest sample.
        p_opposite: the p-value of the test whose alternative is the opposite; 1 - p for one test.
            With fewer than three seeds both are 1, as of a test that never says anything.
    """

    __test__ = False  # pytest must not collect it, for all its name

    holds: bool | None
    effect: float
    interval: tuple[float, float] | None
    p: float
    n: int
    p_opposite: float


def larger(
    a: Sample,
    b: Sample,
    margin: float | int,
    level: float = 0.01,
    paired: bool = False,
    resolution: float | int = 0,
) -> Test:
    """Test whether the mean of a exceeds that of b by more than the margin.

    t = (mean a - mean b - margin) / sqrt(s_a^2 / n_a + s_b^2 / n_b), with Welch's degrees of
    freedom; if paired, the one-sample t of the differences a[i] - b[i], which share a seed. A
    negative margin is allowed: "larger by more than -m" says that a is not smaller by m or more.

    Values without any spread have no t. The test is then its limit for small spreads: p is 0 if the
    effect exceeds the margin, 1 if the effect is below it, and 0.5 (undecided) if they are equal.
    Seeds can also agree by chance if their spread is below the `resolution` of the value, such as
    the step between the depths that were tried. Rounding to this step has the variance
    resolution^2 / 12 (Sheppard's correction), which is added to the variance of each sample.

    Welch's test is an approximation. At level 0.01 the worst ratio of spreads gives 0.014 with
    three seeds in each sample, 0.012 with five, and 0.021 with three against ten; at the smaller
    levels of `corrected` the last is ten times too large. So give all arms the same seeds.

    Source: Welch 1947, Biometrika 34.
    Raises: ValueError if a sample is empty or has a value that is not finite, if paired samples
    differ in length, and if the level is not between 0 and 0.5.
    """
    a, b = _array(a), _array(b)
    if not paired:
        return _exceeds(margin, level, [a, b], [a, b], resolution**2 / 12)
    if len(a) != len(b):
        raise ValueError(
            f"a has {len(a)} seeds and b has {len(b)}; a paired test needs each seed in both"
        )
    return _exceeds(margin, level, [a - b], [a, b], resolution**2 / 6)


def no_worse(
    a: Sample, b: Sample, margin: float | int, level: float = 0.01, paired: bool = False
) -> Test:
    """Test whether the mean of a exceeds that of b by less than the margin: non-inferiority.

    Smaller values are better, as of errors; swap a and b for accuracies. The statement is the
    opposite of `larger`: it is true if the upper bound of a - b is below the margin, so noise makes
    it harder. A margin of 0 asks that a be better than b, a negative one that it be better by more
    than its size. Raises as `larger` does.
    """
    return opposite(larger(a, b, margin, level, paired))


def above(values: Sample, margin: float | int, level: float = 0.01) -> Test:
    """Test whether the mean of one sample exceeds the margin: t = (mean - margin) / (s / sqrt(n)).

    `opposite(above(...))` tests whether it is below. Raises as `larger` does.
    """
    values = _array(values)
    return _exceeds(margin, level, [values], [values])


def rises(samples: ByDepth, margin: float | int, level: float = 0.01) -> Test:
    """Test whether a value rises by more than the margin over the range of depths.

    samples[depth][i] is the value of seed i. The rise of a seed is that of its least-squares line
    in log2(depth), slope * log2(deepest / shallowest), so that all depths count; the test is the
    one-sample t of the rises.

    Raises: ValueError if there are fewer than two depths, or one is not positive, if depths differ
    in their number of seeds, and as `larger` does.
    """
    values = _by_seed(samples)
    return _exceeds(margin, level, [_fitted_rises(samples, values)], [values])


def no_rise(samples: ByDepth, margin: float | int, level: float = 0.01) -> Test:
    """Test whether a value rises by less than the margin over depth: the opposite of `rises`."""
    return opposite(rises(samples, margin, level))


def interaction(a: ByDepth, b: ByDepth, margin: float | int, level: float = 0.01) -> Test:
    """Test whether the rise of a over depth exceeds that of b by more than the margin.

    The rises are those of `rises`, and a[depth][i] and b[depth][i] share a seed: the test is the
    one-sample t of rise(a)[i] - rise(b)[i]. With two depths this is (a deep - a shallow) - (b deep
    - b shallow).

    Raises: ValueError if a and b differ in their depths or number of seeds, and as `rises` does.
    """
    first, second = _by_seed(a), _by_seed(b)
    if sorted(a) != sorted(b) or first.shape != second.shape:
        raise ValueError(
            f"a has depths {sorted(a)} with {first.shape[1]} seeds and b has depths {sorted(b)} "
            f"with {second.shape[1]}; an interaction needs the same in both"
        )
    return _exceeds(margin, level, [_fitted_rises(a, first - second)], [first, second])


def opposite(test: Test) -> Test:
    """Return the test of the opposite statement, with the same effect and interval."""
    holds = None if test.holds is None else not test.holds
    return test._replace(holds=holds, p=test.p_opposite, p_opposite=test.p)


def every(*tests: Test, level: float = 0.01) -> Test:
    """Test whether all of several statements hold.

    p is the largest p: all hold only if each is shown (intersection-union, which needs no
    correction). p_opposite is the smallest p_opposite times the number of tests (Bonferroni): it
    is enough that one fails, and each has its chance to fail by accident. Effect, interval and n
    are those of the test that decides; a test of too few seeds prevents a yes, but not a no.

    Source: Berger 1982, Technometrics 24 (intersection-union).
    Raises: ValueError if there is no test, and if the level is not between 0 and 0.5.
    """
    if not tests:
        raise ValueError("there is no test; give every() at least one")
    weakest = max(tests, key=lambda test: (test.p, -test.p_opposite))
    failed = min(tests, key=lambda test: test.p_opposite)
    p_opposite = min(1.0, len(tests) * failed.p_opposite)
    holds = _verdict(weakest.p, p_opposite, level)
    decides = failed if holds is False else weakest
    return decides._replace(holds=holds, p=weakest.p, p_opposite=p_opposite)


def holm(ps: Sequence[float | int]) -> list[float]:
    """Return p-values adjusted for their number, in the order given.

    The k-th smallest of m becomes the largest of (m - j + 1) p_j over j <= k, and at most 1. To
    reject what is below a level then gives any wrong rejection with at most that probability.

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    Raises: ValueError if a p-value is not between 0 and 1.
    """
    adjusted, highest = [0.0] * len(ps), 0.0
    for k, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        if not 0 <= ps[i] <= 1:
            raise ValueError(f"{ps[i]} is not a p-value; it must be between 0 and 1")
        highest = max(highest, min(1.0, (len(ps) - k) * float(ps[i])))
        adjusted[i] = highest
    return adjusted


def corrected(tests: Sequence[Test], level: float = 0.01) -> list[Test]:
    """Return tests that are published together, with only the verdicts that survive Holm.

    Each test enters with the smaller of p and p_opposite, decided or not, so that the probability
    of any wrong yes or no is at most the level, as far as each p-value is exact. A verdict whose
    adjusted p-value is not below the level becomes None; everything else stays, also p. Tests of
    too few seeds could say nothing and are not counted.

    Source: Holm 1979; Shaffer 1980, Annals of Statistics 8, for the choice of the direction, which
    is proven for independent tests.
    Raises: ValueError if the level is not between 0 and 0.5.
    """
    ps = [min(test.p, test.p_opposite) for test in tests]
    counted = [i for i, p in enumerate(ps) if p < 1]
    adjusted = [1.0] * len(tests)
    for i, p in zip(counted, holm([ps[i] for i in counted]), strict=True):
        adjusted[i] = p
    survives = [_verdict(p, 1.0, level) for p in adjusted]
    return [t._replace(holds=t.holds if s else None) for t, s in zip(tests, survives, strict=True)]


def _exceeds(
    margin: float | int,
    level: float,
    samples: Sequence[np.ndarray],
    measured: Sequence[np.ndarray],
    rounding: float = 0.0,
) -> Test:
    """Test whether mean(first sample) - mean(second sample, if there is one) > margin.

    With one sample Welch's degrees of freedom are n - 1. `measured` are the values as they were
    measured, which give the size of rounding errors; `rounding` is the variance of coarser ones.
    """
    if not abs(margin) < LARGEST:
        raise ValueError(f"margin = {margin} must be a finite number")
    means = [float(np.mean(x)) for x in samples]
    effect, n = means[0] - sum(means[1:]), min(map(len, samples))
    if n < FEWEST:
        return Test(_verdict(1.0, 1.0, level), effect, None, 1.0, n, 1.0)
    variances = [(float(np.var(x, ddof=1)) + rounding) / len(x) for x in samples]
    variance, gap = sum(variances), effect - margin
    error = variance**0.5
    round_off = ROUND_OFF * max(abs(margin), *(float(np.abs(x).max()) for x in measured))
    if error > round_off:
        parts = zip(variances, samples, strict=True)
        freedom = 1 / sum((v / variance) ** 2 / (len(x) - 1) for v, x in parts)
        p, p_opposite = (float(special.stdtr(freedom, t)) for t in (-gap / error, gap / error))
        reach = float(special.stdtrit(freedom, 1 - level)) * error
    else:
        p = 0.5 if abs(gap) <= round_off else float(gap < 0)
        p_opposite, reach = 1 - p, 0.0
    holds = _verdict(p, p_opposite, level)
    return Test(holds, effect, (effect - reach, effect + reach), p, n, p_opposite)


def _verdict(p: float, p_opposite: float, level: float) -> bool | None:
    if not 0 < level < 0.5:
        raise ValueError(f"level = {level} must be between 0 and 0.5; 0.01 is usual")
    return True if p < level else False if p_opposite < level else None


def _array(values: Sample) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{values} is not a sample; give a list with one number for each seed")
    finite = np.abs(array) < LARGEST  # NaN is not
    if not finite.all():
        raise ValueError(
            f"{array[~finite][0]} is not a finite number, so no mean can be tested; give a run "
            "that diverged the value that the rule has for it, such as the error at chance"
        )
    return array


def _by_seed(samples: ByDepth) -> np.ndarray:
    """Return an array of shape (depths, seeds), from the shallowest to the deepest network."""
    depths = sorted(samples)
    if len(depths) < 2 or depths[0] <= 0:
        raise ValueError(f"a trend needs two or more positive depths, not {depths}")
    values = [_array(samples[depth]) for depth in depths]
    if len(set(map(len, values))) > 1:
        seeds = dict(zip(depths, map(len, values), strict=True))
        raise ValueError(f"the numbers of seeds by depth are {seeds}; all depths need all seeds")
    return np.stack(values)


def _fitted_rises(samples: ByDepth, values: np.ndarray) -> np.ndarray:
    """Return for each seed the rise of its least-squares line from the least to the largest x."""
    x = np.log2(sorted(samples))
    x -= x.mean()
    return (x[-1] - x[0]) * (x @ values) / (x @ x)
