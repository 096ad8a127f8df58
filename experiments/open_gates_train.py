"""A highway network whose two gates start open trains as the residual network does.

Srivastava et al. 2015 (arXiv:1505.00387), eq. 2, have x' = T F(x) + C x; a residual network has
T = C = 1 (`open_gates` tests that as an equation). Here both gates' biases start at 8, which opens
them to 0.9997 for a signal of 0, and training may move them. The training error at the end and the
training losses of all records of the run are compared. In the coupled form, T = 1 - C, a bias that
opens the carry shuts the body.

    python -m experiments.open_gates_train --workdir=runs/open_gates_train
"""

from statistics import fmean

import numpy as np
from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row, curves, divergence, scores
from experiments.rows import learned_nothing, relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import above, every, no_worse, opposite
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
    """Return the scores, and the training loss of each record of the run.

    A run that diverged has the loss of equal probabilities throughout.
    """
    if divergence(run):
        return [row | {"losses": [row["train_loss"]]} for row in scores(run)]
    losses = {curve["seed"]: curve["loss"] for curve in curves(run) if curve["split"] == "train"}
    return [row | {"losses": losses[row["seed"]]} for row in scores(run)]


def ends(rows: list[Row]) -> Verdict:
    """Test whether the training errors of the last epoch differ by less than the margin."""
    if idle := learned_nothing(where(rows, arm="residual")):
        return Verdict(None, idle)
    residual, gated = (sample(rows, "train_error", arm=name) for name in ("residual", "two-gates"))
    test = every(no_worse(gated, residual, ERROR), no_worse(residual, gated, ERROR))
    said = f"{fmean(residual):.2%} in residual networks, and {fmean(gated):.2%}"
    return Verdict.of(test, f"The training error is {said} with two gates that start open.")


def coincide(rows: list[Row]) -> Verdict:
    """Test whether the losses of all records differ by less than the margin, on average."""
    if idle := learned_nothing(where(rows, arm="residual")):
        return Verdict(None, idle)
    residual, gated = (sample(rows, "losses", arm=name) for name in ("residual", "two-gates"))
    apart = [
        float(np.abs(np.array(a) - np.array(b)).mean())
        for a, b in zip(residual, gated, strict=True)
    ]
    return Verdict.of(
        opposite(above(apart, LOSS)),
        f"The training losses of the two networks differ by {fmean(apart):.3f} nats on average.",
    )


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
    columns={"train_error": ".2%", "clean_error": ".2%", "test_error": ".2%"},
    depths=lambda dataset, full: (110,) if full else (20,),
    figures=(training_error,),
    control=coupled,
    against=AGAINST,
    further=(
        Statement(
            "open_gates_curves",
            "Their training curves coincide.",
            SOURCE,
            "with both biases at 8, the mean absolute difference between the training losses of "
            "the two networks, over all records of the runs of a seed, is below 0.1 nats: "
            "one-sided t test over seeds, p < 0.01. Not decided if the residual network is at "
            "chance",
            coincide,
            coupled,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
