"""Five orders of norm, ReLU and addition in a residual block.

He et al. 2016 (arXiv:1603.05027), Table 2, ResNet-110 on CIFAR-10: original 6.61 %, norm after the
addition 8.17 %, ReLU before the addition 7.84 %, ReLU-only pre-activation 6.71 %, full
pre-activation 6.37 %. All have one learning rate in the paper, and here without --full.

    python -m experiments.activations --workdir=runs/activations
"""

from statistics import fmean

from experiments import claim, rates
from experiments.claim import Claim, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import learned_nothing, relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import every, larger, no_worse
from resnet_jax.reporting import points

MARGIN = 0.01
ORDERS = {
    "original": "basic",
    "norm-after": "norm_after_basic",
    "relu-before": "relu_before_basic",
    "relu-preactivation": "relu_preact_basic",
    "preactivation": "preact_basic",
}
WORSE = ("norm-after", "relu-before")


def plan(options: Options) -> list[Run]:
    """Return every order at one depth. Raises: ValueError for several networks."""
    options.refuse_several()
    arms = {name: {"block": block, "skip": "A"} for name, block in ORDERS.items()}
    return rates.repeated_if_full(options, lambda options: options.arms(arms))


def judge(rows: list[Row]) -> Verdict:
    """Test the order of Table 2."""
    rows = rates.best(rows)
    if idle := learned_nothing(where(rows, arm="original")):
        return Verdict(None, idle)
    errors = {name: sample(rows, "test_error", arm=name) for name in ORDERS}
    original = errors["original"]
    test = every(
        *(larger(errors[name], original, 0.0) for name in WORSE),
        no_worse(errors["preactivation"], original, MARGIN),
    )
    said = ", ".join(f"{name.replace('-', ' ')} {fmean(of):.2%}" for name, of in errors.items())
    return Verdict.of(test, f"Test errors: {said}.")


def control(rows: list[Row]) -> list[Row]:
    """Return the original order in the place of all orders."""
    own = where(rows, arm="original")
    return [row for name in ORDERS for row in relabelled(own, arm=name, model=name)]


def test_error(rows: list[Row]):
    """Draw the test error of each order."""
    return points.by_group(rates.best(rows), "test_error", ".1%")


CLAIM = Claim(
    name="activations",
    says="A norm after the addition or a ReLU before it makes a residual network worse; full "
    "pre-activation does not.",
    source="He et al. 2016, arXiv:1603.05027, Table 2",
    rule=f"{rates.IF_FULL}: the test errors with the norm after the addition and with the ReLU "
    "before it each exceed the original's, and that of full pre-activation exceeds it by less than "
    "1 point: one-sided Welch tests over seeds, p < 0.01 for each of the three. Not decided if the "
    "original is at chance",
    plan=plan,
    measure=rates.measured,
    judge=judge,
    depths=lambda dataset, full: (110,) if full else (56,),
    figures=(test_error,),
    control=control,
    against="the original order in the place of all",
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
