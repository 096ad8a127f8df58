"""Pre-activation: norm and ReLU before the convolutions leave the sum untouched.

He et al. 2016 (arXiv:1603.05027), Table 3: on CIFAR-10 the original and the pre-activation networks
of 110 layers have test errors of 6.61 and 6.37 %, those of 164 layers 5.93 and 5.46 %, those of
1001 layers 7.61 and 4.92 %. Fig. 6: the training loss of the original ResNet-1001 falls slowly at
first. With --full all networks have bottlenecks, also those of 110 layers, which have basic blocks
in the table.

    python -m experiments.preactivation --workdir=runs/preactivation
    python -m experiments.preactivation --dataset=cifar10_any --data_dir=DIR --full --workdir=DIR
"""

from statistics import fmean

from experiments import claim
from experiments.claim import Claim, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import by_depth, learned_nothing, relabelled, where
from resnet_jax import command
from resnet_jax.analysis.statistics import interaction
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


def judge(rows: list[Row]) -> Verdict:
    """Test whether depth costs the original network more training error."""
    original, pre = (
        by_depth(rows, "train_error", family=name) for name in ("original", "preactivation")
    )
    if idle := learned_nothing(where(rows, depth=min(original))):
        return Verdict(None, idle)
    test = interaction(original, pre, MARGIN)
    ends = lambda arm: f"{fmean(arm[min(arm)]):.1%} to {fmean(arm[max(arm)]):.1%}"
    return Verdict.of(
        test,
        f"From {min(pre)} to {max(pre)} layers the training error of the original networks goes "
        f"from {ends(original)}, that of the pre-activation networks from {ends(pre)}.",
    )


def control(rows: list[Row]) -> list[Row]:
    """Return the pre-activation networks in the place of the original ones."""
    pre = where(rows, family="preactivation")
    return pre + relabelled(pre, family="original")


def training_error(rows: list[Row]):
    """Draw the training error against the depth."""
    return points.figure(rows, "depth", "train_error", ".0%")


CLAIM = Claim(
    name="preactivation",
    says="Depth costs a residual network less training error if norm and ReLU come before the "
    "convolutions.",
    source="He et al. 2016, arXiv:1603.05027, Table 3 and Fig. 6 (they show test errors)",
    rule="the training error of the last epoch, as a line in log2(depth) through all depths for "
    "each seed: the rise of the original networks exceeds that of the pre-activation networks of "
    "the same seed by more than 1 point: one-sided t test, p < 0.01. Not decided if a "
    "network of the least depth is at chance",
    plan=plan,
    judge=judge,
    depths=depths,
    figures=(training_error,),
    control=control,
    against="the pre-activation networks in the place of the original ones",
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
