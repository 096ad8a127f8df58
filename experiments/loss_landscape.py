"""Skip connections smooth the loss surface of deep networks.

Li et al. 2018 (arXiv:1712.09913), Fig. 1, 5 and 6: without skip connections the loss of ResNet-56
and ResNet-110 along random directions, scaled filter by filter to the weights, becomes sharp and
chaotic; with them, or with 20 layers, it is a wide bowl. Here the loss of trained networks on 128
training images is taken along 4 such directions to both sides. The measure is the mean rise at a
distance of 0.25 (each filter is moved by a quarter of its norm).

Surfaces can be compared only if all networks have fitted their data. At a higher loss less rise is
possible, and the Hessian keeps terms that vanish with the loss. On digits plain networks of 56
layers do not fit, so that without --full the networks have 20 and 32 layers. `depth_roughens`
compares depths, and `sharpness` has the Hessian of these networks.

With running statistics, as in the authors' code, weights move away from the statistics, which alone
raises the loss of deep networks; with the batch's statistics, as in training, they do not. The rule
asks for both.

    python -m experiments.loss_landscape --workdir=runs/loss_landscape --runs=runs/shared
"""

import math
from functools import partial
from statistics import fmean

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Verdict
from experiments.network import opened
from experiments.plan import Options, Run
from experiments.results import Row, divergence, scores
from experiments.rows import lacking, relabelled, unfitted, where
from resnet_jax import command
from resnet_jax.analysis.landscape import random_direction, slice_1d
from resnet_jax.analysis.statistics import every, larger
from resnet_jax.models.residual import stacked_axes
from resnet_jax.reporting import points

FACTOR = math.log10(2)  # the margin: twice as large
FITTED = 0.1  # the largest training error of a network whose surface counts
LEAST = 1e-4  # nats: smaller rises count as this
NUMBERS = (-0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5)
DISTANCE = 0.25
DIRECTIONS, EXAMPLES = 4, 128
STATISTICS = ("running", "batch")
ARMS = {"plain": {"skip": "none"}, "resnet": {"skip": "A"}}


def plan(options: Options) -> list[Run]:
    """Return a plain and a residual network of every depth.

    Raises: ValueError for one depth.
    """
    options.refuse_one_depth()
    options.refuse_replicas()
    return options.arms(ARMS)


def measure(run: Run) -> list[Row]:
    """Return the loss along directions, and the rises at the distance."""
    if divergence(run):
        return scores(run)
    network = opened(run, examples=EXAMPLES)
    params = network.variables["params"]
    axes = stacked_axes(network.net, params)
    keys = jax.random.split(jax.random.key(run.config.seed), DIRECTIONS)
    drawn = [random_direction(key, params, axes) for key in keys]
    directions = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
    losses = network.measured(slices, directions=directions, numbers=jnp.array(NUMBERS))
    (row,) = scores(run)
    for name, of in zip(STATISTICS, np.asarray(losses, np.float64), strict=True):
        rise = float(rises_of(of).mean())
        row |= {f"rise_{name}": rise, f"log_rise_{name}": math.log10(max(rise, LEAST))}
        row |= {f"losses_{name}": of.mean(0).tolist()}
    return [row]


def rises_of(losses: np.ndarray) -> np.ndarray:
    """Return the rise of the loss at the distance to both sides, for each direction."""
    sides = [NUMBERS.index(-DISTANCE), NUMBERS.index(DISTANCE)]
    return losses[:, sides].mean(1) - losses[:, NUMBERS.index(0.0)]


def slices(apply, variables, x, loss, directions, numbers):
    """Return the loss for each kind of statistics, direction and number."""
    one = lambda of, direction: slice_1d(of, variables["params"], direction, numbers)
    kinds = [objective(apply, variables, x, loss, kind) for kind in STATISTICS]
    return jnp.stack([lax.map(partial(one, of), directions) for of in kinds])


def objective(apply, variables, x, loss, statistics):
    """Return the function from parameters to the loss."""
    mutable = ["batch_stats"] if statistics == "batch" else []

    def of(params):
        return loss(apply({**variables, "params": params}, x, mutable=mutable)[0])

    return of


def compared(columns: tuple[str, ...], rows: list[Row]) -> Verdict:
    """Test whether the columns of the deepest plain networks exceed twice the residual ones'."""
    deepest = max(row["depth"] for row in rows)
    rows = where(rows, depth=deepest)
    if idle := lacking(rows, f"log_{columns[0]}") or unfitted(rows, FITTED):
        return Verdict(None, idle)
    of = lambda column, name: [row[column] for row in where(rows, arm=name)]
    test = every(
        *(larger(of(f"log_{c}", "plain"), of(f"log_{c}", "resnet"), FACTOR) for c in columns)
    )
    said = "; ".join(
        f"{c.replace('_', ' with ')} plain {fmean(of(c, 'plain')):.3g}, residual "
        f"{fmean(of(c, 'resnet')):.3g}"
        for c in columns
    )
    return Verdict.of(test, f"Means with {deepest} layers: {said}.")


def control(rows: list[Row]) -> list[Row]:
    """Return the plain networks in the place of the residual ones."""
    plain = where(rows, arm="plain")
    return plain + relabelled(plain, arm="resnet")


def slice_of(statistics: str, rows: list[Row]) -> Figure:
    """Draw the mean loss along the directions, for the first seed."""
    first = where(rows, seed=min(row["seed"] for row in rows))
    label = f"loss, {statistics} statistics"
    # With running statistics losses reach hundreds of nats.
    log_y = statistics == "running"
    drawn = points.by_block(first, f"losses_{statistics}", label, log_y=log_y)
    axes = drawn.axes[0]
    axes.set_xticks(range(len(NUMBERS)), [f"{number:g}" for number in NUMBERS])
    axes.set_xlabel("distance along filter-normalised directions")
    return drawn


def batch(rows: list[Row]) -> Figure:
    """Draw the loss with the batch's statistics."""
    return slice_of("batch", rows)


def running(rows: list[Row]) -> Figure:
    """Draw the loss with running statistics."""
    return slice_of("running", rows)


AGAINST = "the plain networks in the place of the residual ones"
LI = "Li et al. 2018, arXiv:1712.09913, "
TESTS = (
    "on a log scale: one-sided {} over seeds, p < 0.01{}. Not decided if the mean training error "
    "of a network exceeds 10 %"
)
CLAIM = Claim(
    name="loss_landscape",
    says="Skip connections smooth the loss surface: close to a deep trained network, the loss "
    "rises less along random directions with them.",
    source=LI + "Fig. 5",
    rule="the mean rise of the loss at a distance of 0.25 along filter-normalised random "
    "directions is more than twice as large in the deepest plain as in the deepest residual "
    "networks, with running statistics and with the batch's, "
    + TESTS.format("Welch tests", " for both"),
    plan=plan,
    measure=measure,
    judge=partial(compared, ("rise_running", "rise_batch")),
    columns={"rise_running": ".3g", "rise_batch": ".3g", "train_error": ".2%"},
    examples={"train": EXAMPLES},
    depths=lambda dataset, full: (20, 56, 110) if full else (20, 32),
    figures=(batch, running),
    control=control,
    against=AGAINST,
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
