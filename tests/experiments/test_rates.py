"""Arms at several learning rates, and the best rate of each."""

from experiments import best_rates, rates, twins


def test_every_arm_has_every_rate_and_one_group(options):
    runs = rates.arms(options(8, 20), {"plain-a": {"skip": "none"}}, (0.01, 0.1), 1)
    assert [(run.model, run.arm) for run in runs] == [
        ("plain-a-0.01-8", "plain-a"), ("plain-a-0.1-8", "plain-a"),
        ("plain-a-0.01-20", "plain-a"), ("plain-a-0.1-20", "plain-a"),
    ]  # fmt: skip
    assert [run.config.optimizer.learning_rate for run in runs] == [0.01, 0.1, 0.01, 0.1]
    assert len({run.workdir for run in runs}) == 4


def test_a_row_has_its_rate(options, finish):
    (run,) = rates.arms(options(8), {"plain": {"skip": "none"}}, (0.1,), 1)
    finish(run, 0.25)
    assert [(row["rate"], row["train_error"]) for row in rates.measured(run)] == [(0.1, 0.25)]


def test_a_plan_is_repeated_at_multiples_of_the_recipes_rate(options):
    plan = lambda options: twins.runs(options, 1)
    runs = rates.repeated(options(8), plan)
    assert [run.model for run in runs] == [
        "plain-0.003-8", "resnet-0.003-8", "plain-8", "resnet-8", "plain-0.03-8", "resnet-0.03-8",
    ]  # fmt: skip
    assert [run.arm for run in runs] == ["plain", "resnet"] * 3
    tried = [run.config.optimizer.learning_rate for run in runs]
    assert tried == [0.003, 0.003, 0.01, 0.01, 0.03, 0.03]
    assert [run.workdir for run in runs[2:4]] == [run.workdir for run in plan(options(8))]
    assert runs[0].chosen[-1] == "optimizer.learning_rate=0.003"
    asked = options(8, overrides={"optimizer.learning_rate": "0.2"})
    assert {run.config.optimizer.learning_rate for run in rates.repeated(asked, plan)} == {
        0.06, 0.2, 0.6,
    }  # fmt: skip
    assert rates.repeated_if_full(options(8), plan) == plan(options(8))
    assert len(rates.repeated_if_full(options(8, full=True), plan)) == 6


def test_degradation_at_one_rate_may_be_none_at_the_best_rates():
    def of(arm, depth, rate, error, seed):
        common = {"model": f"{arm}-{rate}-{depth}", "chance_error": 0.9, "test_error": error}
        own = row(arm, depth, rate, error) | common
        return own | {"seed": seed, "train_error": error + 0.001 * seed}

    def rows(of_plain):
        return [
            of(arm, depth, rate, error, seed)
            for seed in range(5)
            for rate, plain_56 in of_plain.items()
            for arm, depth, error in [
                ("plain", 8, 0.1), ("plain", 56, plain_56), ("resnet", 8, 0.1), ("resnet", 56, 0.1),
            ]
        ]  # fmt: skip

    judge, control = best_rates.CLAIM.judge, best_rates.CLAIM.control
    degraded = rows({0.01: 0.7, 0.03: 0.8})
    assert judge(degraded).holds is True and "plain-56 0.01" in judge(degraded).says
    assert judge(rows({0.01: 0.7, 0.03: 0.1})).holds is False
    assert control is not None and judge(control(degraded)).holds is False


def row(arm, depth, rate, loss):
    return {"arm": arm, "depth": depth, "rate": rate, "train_loss": loss, "b": -loss}


def test_each_arm_and_depth_has_its_own_best_rate():
    rows = [row("a", 8, 0.1, 1.0), row("a", 8, 0.1, 1.2), row("a", 8, 0.01, 0.1)]
    rows += [row("a", 8, 0.01, 2.5), row("a", 20, 0.01, 0.5), row("a", 20, 0.1, 0.7)]
    rows += [row("b", 8, 0.1, 0.5), row("b", 8, 0.01, 0.5)]
    assert rates.best(rows) == [rows[0], rows[1], rows[4], rows[7]]
    assert rates.best(rows, "b") == [rows[2], rows[3], rows[5], rows[7]]
    # A run that diverged counts with its loss, that of equal probabilities.
    lost = row("a", 20, 0.01, 2.3) | {"note": "diverged"}
    good, poor = row("a", 20, 0.01, 0.0), row("a", 20, 0.1, 1.2)
    assert rates.best([lost, good, poor]) == [lost, good]
    assert rates.best([lost, poor]) == [poor]
    with_bias = [
        rows[0] | {"bias": -1},
        rows[0] | {"bias": -2, "train_loss": 0.9},
        rows[4] | {"bias": 0},
    ]
    assert rates.best(with_bias, by=("bias", "rate")) == with_bias[1:]
