"""Pre-activation: norm and ReLU before the convolutions leave the sum untouched.

He et al. 2016 (arXiv:1603.05027), Table 3: on CIFAR-10 the original and the pre-activation networks
of 110 layers have test errors of 6.61 and 6.37 %, those of 164 layers 5.93 and 5.46 %, those of
1001 layers 7.61 and 4.92 %. Fig. 1: the training loss of the original ResNet-1001 falls slowly at
first. With --full all networks have bottlenecks, also those of 110 layers, which have basic blocks
in the table.

    python -m experiments.preactivation --workdir=runs/preactivation
    python -m experiments.preactivation --dataset=cifar10_any --data_dir=DIR --full --workdir=DIR
"""

from statistics import fmean

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row, curves, divergence, scores
from experiments.rows import by_depth, learned_nothing, sample, where, with_other_seeds
from resnet_jax import command
from resnet_jax.analysis.statistics import interaction, larger
from resnet_jax.reporting import points

MARGIN = 0.01


def depths(dataset: str, full: bool) -> tuple[int, ...]:
    """Return the depths of Table 3, or few enough for minutes."""
    return (110, 164, 1001) if full else (20, 56, 110)


def plan(options: Options) -> list[Run]:
    """Return the original and the pre-activation network of every depth, with blocks alike.

    Raises: ValueError for one depth.
    """
    options.refuse_one_depth()
    shape = "bottleneck" if options.full else "basic"
    skip = "B" if options.full else "A"
    arms = {
        "original": {"block": shape, "skip": skip},
        "preactivation": {"block": f"preact_{shape}", "skip": skip},
    }
    return options.arms(arms)


def measure(run: Run) -> list[Row]:
    """Return the scores, and the mean training loss of the first tenth of the steps."""
    early = {
        curve["seed"]: fmean(
            loss
            for step, loss in zip(curve["step"], curve["loss"], strict=True)
            if step <= max(run.config.steps // 10, curve["step"][0])
        )
        for curve in curves(run)
        if curve["split"] == "train" and curve["step"] and not divergence(run)
    }
    return [row | {"early_loss": early.get(row["seed"], row["train_loss"])} for row in scores(run)]


def judge(rows: list[Row]) -> Verdict:
    """Test whether depth costs the original network more test error."""
    original, pre = (
        by_depth(rows, "test_error", arm=name) for name in ("original", "preactivation")
    )
    if idle := learned_nothing(where(rows, depth=min(original))):
        return Verdict(None, idle)
    test = interaction(original, pre, MARGIN)
    ends = lambda arm: f"{fmean(arm[min(arm)]):.1%} to {fmean(arm[max(arm)]):.1%}"
    return Verdict.of(
        test,
        f"From {min(pre)} to {max(pre)} layers the test error of the original networks goes "
        f"from {ends(original)}, that of the pre-activation networks from {ends(pre)}.",
    )


def starts(rows: list[Row]) -> Verdict:
    """Test whether the deepest original network has a higher loss in the first steps."""
    depth = max(row["depth"] for row in rows)
    original, pre = (
        sample(rows, "early_loss", arm=name, depth=depth) for name in ("original", "preactivation")
    )
    test = larger(original, pre, 0.1, paired=True)
    said = f"{fmean(original):.3f} nats with the original order, {fmean(pre):.3f} with the other"
    return Verdict.of(test, f"Mean training loss of the first tenth, {depth} layers: {said}.")


def control(rows: list[Row]) -> list[Row]:
    """Return pre-activation networks of other seeds in the place of the original ones."""
    pre = where(rows, arm="preactivation")
    return pre + with_other_seeds(pre, arm="original")


def test_error(rows: list[Row]):
    """Draw the test error against the depth."""
    return points.figure(rows, "depth", "test_error", ".0%")


def early_loss(rows: list[Row]):
    """Draw the training loss of the first steps against the depth."""
    return points.figure(rows, "depth", "early_loss", ".2f")


AGAINST = "pre-activation networks of other seeds in the place of the original ones"
CLAIM = Claim(
    name="preactivation",
    says="Depth costs a residual network less test error if norm and ReLU come before the "
    "convolutions.",
    source="He et al. 2016, arXiv:1603.05027, Table 3",
    rule="the test error, as a line in log2(depth) through all depths for each seed: the rise of "
    "the original networks exceeds that of the pre-activation networks of the same seed by more "
    "than 1 point: one-sided t test, p < 0.01. Not decided if a shallowest network is at chance",
    plan=plan,
    measure=measure,
    judge=judge,
    columns={"train_error": ".2%", "test_error": ".2%", "early_loss": ".3f"},
    depths=depths,
    figures=(test_error, early_loss),
    control=control,
    against=AGAINST,
    further=(
        Statement(
            "preactivation_starts_faster",
            "The training loss of a very deep residual network falls faster at first if norm and "
            "ReLU come before the convolutions.",
            "He et al. 2016, arXiv:1603.05027, Fig. 1 (1001 layers)",
            "the mean training loss of the first tenth of the steps, of the deepest network, is "
            "larger by more than 0.1 nats with the original order, paired by seed: one-sided t "
            "test, p < 0.01",
            starts,
            control,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
