"""A highway network whose two gates start open trains as the residual network does.

Srivastava et al. 2015 (arXiv:1505.00387), eq. 2, have x' = T F(x) + C x; a residual network has
T = C = 1 (`open_gates` tests that as an equation). Here both gates' biases start at 8, which opens
them to 0.9997 for a signal of 0, and training may move them. The training error at the end and the
mean training loss over the whole run are compared. In the coupled form, T = 1 - C, a bias that
opens the carry shuts the body.

    python -m experiments.open_gates_train --workdir=runs/open_gates_train
"""

from statistics import fmean

from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row, curves, scores
from experiments.rows import learned_nothing, relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import every, no_worse
from resnet_jax.reporting import points

BIAS = 8.0
ERROR, LOSS = 0.02, 0.1
ARMS = {
    "residual": {"skip": "A"},
    "two-gates": {
        "skip": "A", "merge": "two_gate", "model.gate_bias": BIAS, "model.carry_bias": BIAS,
    },
    "coupled": {"skip": "A", "merge": "exclusive_gate", "model.gate_bias": -BIAS},
}  # fmt: skip


def plan(options: Options) -> list[Run]:
    """Return the residual network and both gated ones. Raises: ValueError for several networks."""
    options.refuse_several()
    return options.arms(ARMS)


def measure(run: Run) -> list[Row]:
    """Return the scores, and the mean training loss over all records of the run."""
    over = {
        curve["seed"]: fmean(curve["loss"])
        for curve in curves(run)
        if curve["split"] == "train" and curve["loss"]
    }
    # A run that diverged before its first record has the loss of equal probabilities throughout.
    return [row | {"curve_loss": over.get(row["seed"], row["train_loss"])} for row in scores(run)]


def alike(rows: list[Row], column: str, margin: float, shown: str, what: str) -> Verdict:
    """Test whether a column of the two networks differs by less than the margin."""
    residual, gated = (sample(rows, column, arm=name) for name in ("residual", "two-gates"))
    if idle := learned_nothing(where(rows, arm="residual")):
        return Verdict(None, idle)
    test = every(no_worse(gated, residual, margin), no_worse(residual, gated, margin))
    said = f"{fmean(residual):{shown}} in residual networks, and {fmean(gated):{shown}}"
    return Verdict.of(test, f"The {what} is {said} with two gates that start open.")


def ends(rows: list[Row]) -> Verdict:
    """Compare the training errors of the last epoch."""
    return alike(rows, "train_error", ERROR, ".2%", "training error")


def coincide(rows: list[Row]) -> Verdict:
    """Compare the training losses over the whole run."""
    return alike(rows, "curve_loss", LOSS, ".3f", "mean training loss over the run, in nats,")


def coupled(rows: list[Row]) -> list[Row]:
    """Return the coupled gates in the place of the two free ones."""
    own = relabelled(where(rows, arm="coupled"), arm="two-gates")
    return where(rows, arm="residual") + own


def training_error(rows: list[Row]) -> Figure:
    """Draw the training error of each network."""
    return points.by_group(rows, "train_error", ".1%")


AGAINST = "the coupled gate whose carry starts open, in the place of the two gates"
SOURCE = (
    "ours; Srivastava et al. 2015, arXiv:1505.00387, eq. 2, and He et al. 2015, arXiv:1512.03385"
)
CLAIM = Claim(
    name="open_gates_train",
    says="A highway network whose two gates start open trains to the residual network's training "
    "error.",
    source=SOURCE,
    rule="with both biases at 8, neither network's training error of the last epoch exceeds the "
    "other's by 2 points or more: two non-inferiority tests over seeds, p < 0.01 for both. Not "
    "decided if the residual network is at chance",
    plan=plan,
    measure=measure,
    judge=ends,
    columns={"train_error": ".2%", "clean_error": ".2%", "test_error": ".2%", "curve_loss": ".3f"},
    depths=lambda dataset, full: (110,) if full else (20,),
    figures=(training_error,),
    control=coupled,
    against=AGAINST,
    further=(
        Statement(
            "open_gates_curves",
            "Their training curves coincide.",
            SOURCE,
            "with both biases at 8, neither network's mean training loss over all records of the "
            "run exceeds the other's by 0.1 nats or more: two non-inferiority tests over seeds, "
            "p < 0.01 for both. Not decided if the residual network is at chance",
            coincide,
            coupled,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
