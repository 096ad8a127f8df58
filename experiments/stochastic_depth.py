"""Stochastic depth: a residual network trains with bodies left out at random.

Huang et al. 2016 (arXiv:1603.09382), Table 1 and sec. 4: on CIFAR-10, ResNet-110 has a test error
of 5.25 % with survival 0.5 at the last block (linear rule) and 6.41 % with constant depth, and its
training loss is higher. The training error is judged with all bodies in place: bodies that are
missing raise the error of the last epoch, whatever the network has learned.

    python -m experiments.stochastic_depth --workdir=runs/stochastic_depth
"""

from statistics import fmean

from experiments import claim
from experiments.claim import Claim, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import lacking, learned_nothing, relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import every, larger
from resnet_jax.reporting import points

ARMS = {
    "constant": {"skip": "A"},
    "dropped": {"skip": "A", "merge": "stochastic_depth", "model.survival": 0.5},
    "kept": {"skip": "A", "merge": "stochastic_depth", "model.survival": 1.0},
}


def plan(options: Options) -> list[Run]:
    """Return a network of constant depth, with dropped bodies, and with survival 1.

    Raises: ValueError for several networks.
    """
    options.refuse_several()
    return options.arms(ARMS)


def judge(rows: list[Row]) -> Verdict:
    """Test whether the training error is higher and the test error lower with dropped bodies."""
    if idle := lacking(rows, "clean_error") or learned_nothing(where(rows, arm="constant")):
        return Verdict(None, idle)
    of = lambda column, name: sample(rows, column, arm=name)
    test = every(
        larger(of("clean_error", "dropped"), of("clean_error", "constant"), 0.0),
        larger(of("test_error", "constant"), of("test_error", "dropped"), 0.0),
    )
    mean = lambda name: (
        f"{fmean(of('clean_error', name)):.2%} in training and {fmean(of('test_error', name)):.2%} "
        "in the test"
    )
    said = f"Errors: {mean('constant')} with constant depth, {mean('dropped')} with dropped bodies."
    return Verdict.of(test, said)


def never_dropped(rows: list[Row]) -> list[Row]:
    """Return the networks with survival 1 in the place of those with dropped bodies."""
    kept = relabelled(where(rows, arm="kept"), arm="dropped")
    return where(rows, arm="constant") + kept


def test_error(rows: list[Row]):
    """Draw the test error of each arm."""
    return points.by_group(rows, "test_error", ".1%")


AGAINST = "survival 1 in the place of 0.5"
CLAIM = Claim(
    name="stochastic_depth",
    says="Stochastic depth regularises: the training error is higher and the test error is lower.",
    source="Huang et al. 2016, arXiv:1603.09382, Table 1 and Fig. 3",
    rule="the clean training error, with all bodies in place, is larger with survival 0.5 than "
    "with constant depth, and the test error is smaller: one-sided Welch tests over seeds, p < "
    "0.01 for both. Not decided if constant depth is at chance",
    plan=plan,
    judge=judge,
    depths=lambda dataset, full: (110,) if full else (56,),
    recipe="cifar10_stochastic_depth",
    figures=(test_error,),
    control=never_dropped,
    against=AGAINST,
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
