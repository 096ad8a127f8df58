"""Stochastic depth against the probability with which a body survives.

Huang et al. 2016 (arXiv:1603.09382), Fig. 8, show the test error of ResNet-110 on CIFAR-10 against
the survival at the last block. The training error is judged with all bodies in place: bodies that
are missing raise the error of the last epoch, whatever the network has learned. `stochastic_depth`
shares some of the networks: it compares survival 0.5 with constant depth.

    python -m experiments.survival --workdir=runs/survival
"""

from statistics import fmean

from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import lacking, learned_nothing, relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import no_rise, rises
from resnet_jax.reporting import points

SURVIVALS = (1.0, 0.75, 0.5)
NAMES = {f"survival-{survival:g}": survival for survival in SURVIVALS}


def plan(options: Options) -> list[Run]:
    """Return a network of each survival. Raises: ValueError for several networks."""
    options.refuse_several()
    of = lambda survival: {"skip": "A", "merge": "stochastic_depth", "model.survival": survival}
    return options.arms({name: of(survival) for name, survival in NAMES.items()})


def by_survival(rows: list[Row], column: str) -> dict[float, list[float]]:
    """Return {1 / survival: a column of the rows, ordered by seed}."""
    return {1 / survival: sample(rows, column, arm=name) for name, survival in NAMES.items()}


def told(rows: list[Row], column: str) -> str:
    """Return the mean of a column with each survival, in words."""
    means = {survival: fmean(of) for survival, of in by_survival(rows, column).items()}
    return ", ".join(f"{mean:.2%} with {1 / inverse:g}" for inverse, mean in means.items())


def damages(rows: list[Row]) -> Verdict:
    """Test whether the training error rises as the survival falls."""
    if idle := lacking(rows, "clean_error") or learned_nothing(where(rows, arm="survival-1")):
        return Verdict(None, idle)
    said = f"Training errors by survival: {told(rows, 'clean_error')}."
    return Verdict.of(rises(by_survival(rows, "clean_error"), 0.0), said)


def regularises(rows: list[Row]) -> Verdict:
    """Test whether the test error falls as the survival falls."""
    if idle := learned_nothing(where(rows, arm="survival-1")):
        return Verdict(None, idle)
    said = f"Test errors by survival: {told(rows, 'test_error')}."
    return Verdict.of(no_rise(by_survival(rows, "test_error"), 0.0), said)


def control(rows: list[Row]) -> list[Row]:
    """Return the networks with survival 1 in the place of those of every survival."""
    kept = where(rows, arm="survival-1")
    return [row for name in NAMES for row in relabelled(kept, arm=name, model=name)]


def errors(rows: list[Row]) -> Figure:
    """Draw the training and the test error against the survival."""
    shown = [
        row | {"arm": f"{split} error", "survival": NAMES[row["arm"]], "error": error}
        for row in rows
        for split, error in (("training", row["clean_error"]), ("test", row["test_error"]))
    ]
    return points.figure(shown, "survival", "error", ".0%", log_x=False)


FITTED = (
    "with survivals 1, 0.75 and 0.5 at the last block, as a line in the logarithm of 1 / survival "
    "for each seed"
)
SOURCE = "Huang et al. 2016, arXiv:1603.09382, Fig. 8"
IDLE, AGAINST = "Not decided if survival 1 is at chance", "survival 1 in the place of all three"
CLAIM = Claim(
    name="survival",
    says="The test error falls as fewer bodies survive, down to a half.",
    source=SOURCE,
    rule=f"the test error {FITTED}, falls: one-sided t test over seeds, p < 0.01. {IDLE}",
    plan=plan,
    judge=regularises,
    depths=lambda dataset, full: (110,) if full else (56,),
    figures=(errors,),
    control=control,
    against=AGAINST,
    further=(
        Statement(
            "survival_damages",
            "The training error rises as fewer bodies survive.",
            f"{SOURCE} and sec. 4 (they show test errors)",
            f"the clean training error, with all bodies in place, {FITTED}, rises: one-sided t "
            f"test over seeds, p < 0.01. {IDLE}",
            damages,
            control,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
