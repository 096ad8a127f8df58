"""Arms at several learning rates, and the best rate of each."""

from experiments import rates


def test_every_arm_has_every_rate_and_one_group(options):
    runs = rates.arms(options(8, 20), {"plain-a": {"skip": "none"}}, (0.01, 0.1), 1)
    assert [(run.model, run.group) for run in runs] == [
        ("plain-a-0.01-8", "plain-a"), ("plain-a-0.1-8", "plain-a"),
        ("plain-a-0.01-20", "plain-a"), ("plain-a-0.1-20", "plain-a"),
    ]  # fmt: skip
    assert [run.config.optimizer.learning_rate for run in runs] == [0.01, 0.1, 0.01, 0.1]
    assert len({run.workdir for run in runs}) == 4


def test_a_row_has_its_rate(options, finish):
    (run,) = rates.arms(options(8), {"plain": {"skip": "none"}}, (0.1,), 1)
    finish(run, 0.25)
    assert [(row["rate"], row["train_error"]) for row in rates.measured(run)] == [(0.1, 0.25)]


def row(family, depth, rate, loss):
    return {"family": family, "depth": depth, "rate": rate, "train_loss": loss, "b": -loss}


def test_each_arm_and_depth_has_its_own_best_rate():
    rows = [row("a", 8, 0.1, 1.0), row("a", 8, 0.1, 1.2), row("a", 8, 0.01, 0.1)]
    rows += [row("a", 8, 0.01, 2.5), row("a", 20, 0.01, 0.5), row("a", 20, 0.1, 0.7)]
    rows += [row("b", 8, 0.1, 0.5), row("b", 8, 0.01, 0.5)]
    assert rates.best(rows) == [rows[0], rows[1], rows[4], rows[7]]
    assert rates.best(rows, "b") == [rows[2], rows[3], rows[5], rows[7]]
