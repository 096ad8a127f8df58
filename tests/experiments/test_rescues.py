"""Claims on block lengths, kernels with identities, activations and starts, on invented rows."""

import math

import pytest

from experiments import (
    block_length,
    learn_identity,
    no_norm_depth,
    plain_rescue,
    relu_vs_tanh,
    reparameterise,
    results,
)
from experiments.flags import CONFIGS

SEEDS = 5


def spread(value, by=0.004):
    """Return a value for each seed, near this one."""
    return [value + by * (seed - (SEEDS - 1) / 2) for seed in range(SEEDS)]


def rows(arm, depth=56, rate=0.01, seeds=SEEDS, **columns):
    """Return a row for each seed; a column is a number, or numbers by seed."""
    values = {k: v if isinstance(v, list) else spread(v) for k, v in columns.items()}
    common = {"arm": arm, "model": f"{arm}-{rate}-{depth}", "depth": depth, "rate": rate}
    own = [{name: of[seed] for name, of in values.items()} for seed in range(seeds)]
    both = {"train_loss": 1.0, "chance_error": 0.9, "chance_loss": 1.0}
    return [common | both | own[seed] | {"seed": seed} for seed in range(seeds)]


def errors(**means):
    """Return the rows of arms with these training errors; - is _ in their names."""
    return [r for name, e in means.items() for r in rows(name.replace("_", "-"), train_error=e)]


def verdicts(claim, given):
    """Return the verdicts of the claim's statements."""
    return [statement.judge(given).holds for statement in claim.CLAIM.statements]


def controls(claim, given):
    """Return the verdicts on the controls."""
    return [of.judge(of.control(given)).holds for of in claim.CLAIM.statements]


@pytest.mark.parametrize(
    "one,two,three,expected",
    [
        (0.16, 0.1, 0.105, [True, True]),
        (0.1, 0.1, 0.14, [False, False]),
        (0.12, 0.1, 0.12, [None, None]),
        (0.16, 0.89, 0.105, [None, None]),
        (0.005, 0.005, 0.005, [None, None]),
    ],
)
def test_lengths_of_blocks(one, two, three, expected):
    given = errors(one=one, two=two, three=three, four=0.2)
    assert verdicts(block_length, given) == expected
    assert controls(block_length, given)[0] is not True


def test_controls_of_lengths_say_no():
    given = errors(one=0.16, two=0.1, three=0.105, four=0.2)
    assert controls(block_length, given) == [False, False]


def test_lengths_differ_in_the_block_alone_and_have_common_depths(options):
    own = block_length.CLAIM.steps
    runs = block_length.plan(options(38, seeds_per_model=1, steps=own))
    models = [dict(run.config.model.items()) for run in runs]
    assert [model.pop("block") for model in models] == ["single", "basic", "triple", "quadruple"]
    assert models[0].pop("kernel_size") == 3
    assert all(model == models[0] for model in models)
    assert {run.config.steps for run in runs} == {own} == {90}
    asked = block_length.plan(options(38, seeds_per_model=1, steps=300))
    assert {run.config.steps for run in asked} == {300}
    for depth, near in ((20, 38), (50, 38), (114, 110)):
        with pytest.raises(ValueError, match=rf"resnet:{depth} .* nearest --depths={near}"):
            block_length.plan(options(depth))


@pytest.mark.parametrize(
    "dirac,start,expected",
    [(0.05, 0.06, [True, True]), (0.3, 0.06, [False, True]), (0.1, 0.2, [None, False])],
)
def test_kernels_with_an_identity(dirac, start, expected):
    given = errors(plain=0.3, residual=0.05, dirac=dirac, dirac_start=start)
    assert verdicts(reparameterise, given) == expected
    assert controls(reparameterise, given) == [False, False]


def test_kernels_have_an_identity_without_a_skip(options):
    runs = reparameterise.plan(options(8, seeds_per_model=1))
    models = [run.config.model for run in runs]
    of = [(m.skip, m.dirac, m.kernel_start) for m in models]
    assert of == [
        ("none", False, "he"), ("A", False, "he"), ("none", True, "he"), ("none", False, "dirac")
    ]  # fmt: skip


def of_steps(arm, rate, steps, reached=True):
    logs = [math.log(steps) + 0.02 * seed for seed in range(SEEDS)]
    own = rows(arm, 8, rate, log_steps=logs, steps_to_25=[math.exp(log) for log in logs])
    return [row | {"reached": reached} for row in own]


def test_relu_against_tanh():
    relu = of_steps("relu", 0.01, 80) + of_steps("relu", 0.1, 40)
    slow, fast = of_steps("tanh", 0.01, 120), of_steps("tanh", 0.01, 45)
    assert verdicts(relu_vs_tanh, relu + slow) == [True]  # against the faster rate
    assert verdicts(relu_vs_tanh, relu + fast) == [False]
    assert verdicts(relu_vs_tanh, relu + of_steps("tanh", 0.1, 60)) == [None]
    assert controls(relu_vs_tanh, relu + slow) == [False]
    assert "42 at a rate of 0.1" in relu_vs_tanh.judge(relu + slow).says


def test_runs_that_never_reach_the_error_bound_the_ratio():
    relu, never = of_steps("relu", 0.1, 40), of_steps("tanh", 0.1, 300, reached=False)
    verdict = relu_vs_tanh.judge(relu + never)
    assert verdict.holds and "lower bound" in verdict.says
    assert relu_vs_tanh.judge(relu + of_steps("tanh", 0.1, 45, reached=False)).holds is None
    assert relu_vs_tanh.judge(of_steps("relu", 0.1, 300, False) + never).holds is None


def test_steps_are_those_of_the_first_record_that_is_good_enough(options, finish):
    line = {"step": [5, 10, 15, 20], "error": [0.9, 0.25, 0.3, 0.1]}
    assert relu_vs_tanh.reached(line, 20) == {
        "steps_to_25": 10, "log_steps": math.log(10), "reached": True
    }  # fmt: skip
    line["error"] = [0.9, 0.8, 0.7, 0.6]
    assert relu_vs_tanh.reached(line, 20)["steps_to_25"] == 20
    run = relu_vs_tanh.plan(options(8, seeds_per_model=1))[0]
    assert run.config.chunk_steps == 5 and run.config.schedule.boundaries == ()
    finish(run, 0.2)
    assert [(row["steps_to_25"], row["rate"]) for row in relu_vs_tanh.measure(run)] == [(300, 0.03)]


def test_a_run_that_diverged_keeps_nothing_that_it_reached(options, finish, monkeypatch):
    run = relu_vs_tanh.plan(options(8, seeds_per_model=1))[0]
    finish(run, 0.2, diverged="the training loss is nan at step 30")
    line = {"seed": 0, "split": "train", "step": [10], "error": [0.2]}
    monkeypatch.setattr(relu_vs_tanh, "curves", lambda run: [line])
    assert [row["reached"] for row in relu_vs_tanh.measure(run)] == [False]


def trained(arm, errors_by_depth, rate=0.01):
    of = errors_by_depth.items()
    return [row for depth, error in of for row in rows(arm, depth, rate, train_error=error)]


GOOD = trained("he", {8: 0.1, 20: 0.2, 32: 0.3, 56: 0.6})


def test_the_deepest_network_without_norm():
    norm = trained("batch-norm", {56: 0.3})
    short = trained("xavier", {8: 0.1, 20: 0.6, 32: 0.6, 56: 0.9})
    assert no_norm_depth.bounds(short) == ([3] * SEEDS, [math.log2(20)] * SEEDS)
    assert no_norm_depth.bounds(trained("xavier", {8: 0.9})) == ([2] * SEEDS, [3] * SEEDS)
    assert verdicts(no_norm_depth, GOOD + short + norm) == [None, True]  # 32 against below 20
    none = trained("xavier", {8: 0.6, 20: 0.6, 32: 0.6, 56: 0.9})
    assert verdicts(no_norm_depth, GOOD + none + norm) == [True, True]
    assert verdicts(no_norm_depth, trained("he", {56: 0.3}) + none + norm)[1] is False
    assert controls(no_norm_depth, GOOD + short + norm) == [None, False]
    deep = trained("xavier", {8: 0.1, 20: 0.2, 32: 0.3, 56: 0.9})
    shallow = trained("he", {8: 0.1, 20: 0.6, 32: 0.6, 56: 0.6})
    worse = trained("batch-norm", {56: 0.6})
    assert verdicts(no_norm_depth, shallow + deep + worse) == [False, False]
    few = [row for row in GOOD + short + norm if row["seed"] < 2]
    assert verdicts(no_norm_depth, few) == [None, None]


def test_what_lies_between_two_depths_that_were_tried_decides_nothing():
    one_step = trained("xavier", {8: 0.1, 20: 0.2, 32: 0.6, 56: 0.9})
    for xavier in (GOOD, one_step):  # equal in all seeds, but the depths between were not tried
        own = [row | {"arm": "xavier"} for row in xavier]
        assert no_norm_depth.start(GOOD + own).holds is None
    all_train = trained("xavier", {8: 0.1, 20: 0.2, 32: 0.3, 56: 0.4})
    verdict = no_norm_depth.start(GOOD + all_train)
    assert verdict.holds is None and verdict.says.endswith("Nothing deeper was trained.")
    to_the_end = [row | {"arm": "he"} for row in all_train]
    to_32 = trained("xavier", {8: 0.1, 20: 0.2, 32: 0.3, 56: 0.9})
    assert no_norm_depth.start(to_the_end + to_32).holds is None
    assert no_norm_depth.start(to_the_end + one_step).holds is None  # 56 or more, and below 32
    to_8 = trained("xavier", {8: 0.1, 20: 0.6, 32: 0.6, 56: 0.9})
    unbounded = no_norm_depth.start(to_the_end + to_8)
    assert unbounded.holds is True and unbounded.test is not None
    assert unbounded.test.interval is None  # nothing deeper than 56 was tried


def test_batch_norm_is_trained_at_the_deepest_alone(options):
    runs = no_norm_depth.plan(options(8, 20, seeds_per_model=1))
    depths = lambda group: {run.config.model.depth for run in runs if run.arm == group}
    assert depths("batch-norm") == {20} and depths("he") == depths("xavier") == {8, 20}
    assert {run.config.norm.kind for run in runs if run.arm != "batch-norm"} == {"none"}
    with pytest.raises(ValueError, match="only depth"):
        no_norm_depth.plan(options(20))


def rescued(tanh, tat, linear=0.08, bare=0.88):
    means = {"residual": 0.05, "plain": 0.3, "plain_without_norm": bare}
    return errors(**means, orthogonal_tanh=tanh, tat=tat, looks_linear=linear)


@pytest.mark.parametrize(
    "given,expected",
    [
        ((0.1, 0.08), [True, True, True]),
        ((0.3, 0.08, 0.4), [False, True, False]),
        ((0.3, 0.85, 0.153), [False, False, None]),
    ],
)
def test_plain_networks_are_rescued_or_not(given, expected):
    assert verdicts(plain_rescue, rescued(*given)) == expected
    assert controls(plain_rescue, rescued(*given)) == [False, False, False]


def test_rescued_networks_have_neither_skips_nor_norms(options):
    runs = plain_rescue.plan(options(8, seeds_per_model=1))
    tat = next(run.config for run in runs if run.arm == "tat")
    assert (tat.norm.kind, tat.model.skip, tat.model.activation) == ("none", "none", "tat")
    linear = next(run.config for run in runs if run.arm == "looks-linear")
    assert (linear.norm.kind, linear.model.kernel_start) == ("none", "looks_linear")


def identity(plain, residual, dirac):
    """Return rows of losses at depths 4 and 64 with both optimizers."""
    ends = {"plain": plain, "residual": residual, "dirac": dirac}
    return [
        row
        for optimizer in learn_identity.RATES
        for name, losses in ends.items()
        for depth, loss in zip((4, 64), losses, strict=True)
        for row in rows(f"{name}-{optimizer}", depth, unexplained=loss)
    ]


@pytest.mark.parametrize(
    "plain,residual,dirac,expected",
    [
        ((0.1, 0.97), (0.1, 0.1), (0.01, 0.01), True),
        ((0.1, 0.12), (0.1, 0.1), (0.01, 0.01), False),
        ((0.1, 0.97), (0.1, 0.9), (0.01, 0.01), False),
        ((0.1, 0.35), (0.1, 0.1), (0.01, 0.01), None),
    ],
)
def test_plain_networks_have_trouble_with_the_identity(plain, residual, dirac, expected):
    given = identity(plain, residual, dirac)
    assert verdicts(learn_identity, given) == [expected, expected]
    assert controls(learn_identity, given) == [False, False]
    assert "dirac 0.01 to 0.01" in learn_identity.CLAIM.judge(given).says


def test_networks_that_learn_the_identity_have_as_many_units(options):
    networks = (("highway", 4), ("highway", 6))
    given = {"recipe": CONFIGS / "reconstruction.py", "steps": learn_identity.CLAIM.steps}
    runs = learn_identity.plan(options(networks=networks, seeds_per_model=2, **given))
    assert len(runs) == 2 * 3 * 6 and {run.config.steps for run in runs} == {1500}
    assert {run.config.replicas for run in runs} == {2}
    count = {run.arm: results.parameters(run.config) for run in runs if run.config.model.depth == 6}
    assert len(count) == 6 and len(set(count.values())) == 1
    residual = [run.config.model.gains for run in runs if run.arm == "residual-sgd"]
    assert {gains[1] for gains in residual} == {1 / 4, 1 / 6}
    assert {run.config.optimizer.name for run in runs if "adamw" in run.arm} == {"adamw"}


def test_a_loss_above_that_of_predicting_zero_counts_as_that(options, finish):
    networks = (("highway", 4), ("highway", 6))
    given = options(networks=networks, recipe=CONFIGS / "reconstruction.py", seeds_per_model=1)
    run = learn_identity.plan(given)[0]
    finish(run, 2.5)
    (row,) = learn_identity.CLAIM.measure(run)
    assert row["unexplained"] == 1
