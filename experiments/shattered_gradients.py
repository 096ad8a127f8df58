"""Gradients shatter: in deep plain networks they are as unlike for neighbouring inputs as noise.

Balduzzi et al. 2017 (arXiv:1702.08591): the correlation between gradients of two inputs falls as
2^-L with depth in plain ReLU networks, as (3/4)^L in residual ones, and as 1/sqrt(L) in residual
networks with batch norm; their Fig. 3 shows autocorrelations along a line of inputs. Here the line
leads from one digit to another in 64 steps, and the gradient is that of one logit of a network at
its start, normalised by the batch of the 64 inputs. All arms but the last have batch norm, so that
the skip connection is all that differs.

The measure is the autocorrelation at lag 1, because it was about 0 from lag 16 on in all networks
of a pilot (8 and 56 layers, seed 0). Differs from the paper: convolutions, with poolings; inputs
that are near, and not far apart, so that the published rates are not tested.

    python -m experiments.shattered_gradients --workdir=runs/shattered_gradients
"""

from statistics import fmean

import numpy as np
from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.network import opened
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import by_depth, relabelled, where
from resnet_jax import command
from resnet_jax.analysis import shattering
from resnet_jax.analysis.statistics import every, interaction, no_rise, rises
from resnet_jax.reporting import points

MARGIN = 0.1
POINTS, LAGS = 64, 16
ARMS = {
    "plain": {"skip": "none"},
    "resnet": {"skip": "A"},
    "plain-no-norm": {"skip": "none", "norm": "none"},
}


def plan(options: Options) -> list[Run]:
    """Return every arm at every depth, untrained. Raises: ValueError for one depth."""
    options.refuse_one_depth()
    return options.arms(ARMS, 5, trained=False)


def measure(run: Run) -> list[Row]:
    """Return the autocorrelation of the gradient along the line, at lag 1 and at every lag."""
    network = opened(run)
    labels = np.asarray(network.batch.target)
    other = int(np.argmax(labels != labels[0]))  # the first image of another class
    of_lags = np.asarray(network.measured(along, other=other))
    row = {"seed": run.config.seed, "autocorrelation": float(of_lags[1])}
    return [row | {"autocorrelations": of_lags.tolist()}]


def along(apply, variables, x, loss, other):
    """Return the autocorrelation of the first logit's gradient, from image 0 to image `other`."""
    line = shattering.line(x[0], x[other], POINTS)
    gradients = shattering.input_gradients(apply, variables, line, lambda y: y[:, 0], train=True)
    return shattering.autocorrelation(gradients, LAGS)


def falls(rows: list[Row], arm: str) -> dict[int, list[float]]:
    """Return minus the autocorrelation of an arm, which rises if the gradients shatter."""
    own = by_depth(rows, "autocorrelation", arm=arm)
    return {depth: [-value for value in values] for depth, values in own.items()}


def shatters(arm: str, rows: list[Row]) -> Verdict:
    """Test whether the autocorrelation falls in an arm, and by more than in residual networks."""
    plain, residual = falls(rows, arm), falls(rows, "resnet")
    told = (
        ", ".join(f"{-fmean(values):.2f} ({depth} layers)" for depth, values in arm.items())
        for arm in (plain, residual)
    )
    return Verdict.of(
        every(rises(plain, MARGIN), interaction(plain, residual, MARGIN)),
        "Autocorrelations of the gradient at lag 1: plain {}; residual {}.".format(*told),
    )


def with_norm(rows: list[Row]) -> Verdict:
    """Test plain networks with batch norm against residual ones."""
    return shatters("plain", rows)


def without_norm(rows: list[Row]) -> Verdict:
    """Test plain networks without norms against residual ones with batch norm."""
    return shatters("plain-no-norm", rows)


def whole(rows: list[Row]) -> Verdict:
    """Test whether the gradients of residual networks do not shatter at all."""
    residual = falls(rows, "resnet")
    said = ", ".join(f"{-fmean(of):.2f} ({depth} layers)" for depth, of in residual.items())
    return Verdict.of(
        no_rise(residual, MARGIN), f"Autocorrelations of residual networks at lag 1: {said}."
    )


def control(rows: list[Row]) -> list[Row]:
    """Return the plain networks in the place of all."""
    plain = where(rows, arm="plain")
    return [row for name in ARMS for row in relabelled(plain, arm=name)]


def autocorrelation(rows: list[Row]) -> Figure:
    """Draw the autocorrelation at lag 1 against the depth."""
    return points.figure(rows, "depth", "autocorrelation")


def by_lag(rows: list[Row]) -> Figure:
    """Draw the autocorrelation against the lag for the deepest networks of the first seed."""
    chosen = {"depth": max(row["depth"] for row in rows), "seed": min(row["seed"] for row in rows)}
    return points.by_block(where(rows, **chosen), "autocorrelations", "autocorrelation", x="lag")


AGAINST = "the plain networks with batch norm in the place of all"
SIZE = (
    "the autocorrelation at lag 1 of the gradient along a line of 64 inputs, as a line in "
    "log2(depth) through all depths for each seed, "
)
MORE = (
    f"{SIZE}falls by more than 0.1 over the depths in {{arm}}, and by more than 0.1 more than in "
    "residual networks with batch norm of the same seed: one-sided t tests, p < 0.01 for both"
)
BALDUZZI = "Balduzzi et al. 2017, arXiv:1702.08591, "
CLAIM = Claim(
    name="shattered_gradients",
    says="With depth the gradients of neighbouring inputs become less alike in plain networks with "
    "batch norm, and more so than in residual ones.",
    source=BALDUZZI + "Fig. 3",
    rule=MORE.format(arm="plain networks with batch norm"),
    plan=plan,
    judge=with_norm,
    kind="init",
    measure=measure,
    columns={"autocorrelation": ".3f"},
    depths=lambda dataset, full: (8, 20, 32, 44, 56, 110) if full else (8, 20, 56),
    figures=(autocorrelation, by_lag),
    control=control,
    against=AGAINST,
    further=(
        Statement(
            "shattered_without_norm",
            "The gradients of plain networks without any norm shatter, too.",
            BALDUZZI + "theorem 1",
            MORE.format(arm="plain networks without norms"),
            without_norm,
            control,
            AGAINST,
        ),
        Statement(
            "residual_gradients_whole",
            "The gradients of residual networks with batch norm do not shatter.",
            BALDUZZI + "theorem 3 (against it: they do, slowly)",
            f"in residual networks {SIZE}falls by less than 0.1 over the depths: one-sided t test, "
            "p < 0.01",
            whole,
            control,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
