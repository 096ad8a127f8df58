"""Trained networks without skip connections are sharper: their Hessian has a larger eigenvalue.

The measure is the largest eigenvalue of the Hessian of the trained networks of `loss_landscape`, of
the loss on as many training images as a step has, with the batch's statistics, by Lanczos' method
of the library matfree. Li et al. 2018 (arXiv:1712.09913), sec. 6 and Fig. 7, map the ratio of its
extreme eigenvalues instead, to see whether slices that look convex are convex.

    python -m experiments.sharpness --workdir=runs/sharpness --runs=runs/shared
"""

import math
from functools import partial

import jax

from experiments import claim, loss_landscape
from experiments.claim import Claim
from experiments.loss_landscape import compared, objective
from experiments.network import opened
from experiments.plan import Run
from experiments.results import Row, divergence, scores
from resnet_jax import command
from resnet_jax.analysis.sharpness import largest_eigenvalues
from resnet_jax.reporting import points

PRODUCTS, BATCH = 8, 50  # with the Hessian of the loss of as many images as a step has


def measure(run: Run) -> list[Row]:
    """Return the scores and the largest eigenvalue of the Hessian."""
    (row,) = scores(run)
    if divergence(run):
        return [row]
    network = opened(run, examples=BATCH)
    start = jax.random.key(run.config.seed)
    largest = float(network.measured(sharpness, key=start))
    logarithm = math.log10(max(largest, loss_landscape.LEAST))
    return [row | {"eigenvalue": largest, "log_eigenvalue": logarithm}]


def sharpness(apply, variables, x, loss, key):
    """Return the largest eigenvalue of the Hessian, with the batch's statistics."""
    of = objective(apply, variables, x, loss, "batch")
    return largest_eigenvalues(of, variables["params"], key, steps=PRODUCTS)[0]


def eigenvalue(rows: list[Row]):
    """Draw the largest eigenvalue against the depth."""
    return points.figure(rows, "depth", "eigenvalue", log_y=True)


CLAIM = Claim(
    name="sharpness",
    says="Deep trained networks without skip connections are sharper.",
    source="ours, on the networks of Li et al. 2018, arXiv:1712.09913, Fig. 5",
    rule="the largest eigenvalue of the Hessian is more than twice as large in the deepest plain "
    "as in the deepest residual networks, " + loss_landscape.TESTS.format("Welch test", ""),
    plan=loss_landscape.plan,
    measure=measure,
    judge=partial(compared, ("eigenvalue",)),
    columns={"eigenvalue": ".3g", "train_error": ".2%"},
    examples={"train": BATCH},
    depths=loss_landscape.CLAIM.depths,
    figures=(eigenvalue,),
    control=loss_landscape.control,
    against=loss_landscape.AGAINST,
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
