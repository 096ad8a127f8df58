"""A signal is always sent directly from any layer l to any deeper layer L.

He et al. 2016 (arXiv:1603.05027), eq. 4: with identity skips and no activation after the sum, x_L =
x_l + sum_i F(x_i), and eq. 6-7: with gains a < 1 on the skips x_l arrives as a^(L-l) x_l. The term
x_l is always there; the question is how much of x_L it still is: |x_l| / |x_L|, for each l of a
run of pre-activation blocks of one shape (a stage without its first block), L being its end.

If bodies are as large as x_0 and independent, then x_L is a sum of m + 1 equal terms, and x_0 is a
share of 1 / sqrt(m + 1) of it: the signal is diluted as a power of the depth, not exponentially.
`dilution_trained` measures the shares after training.

    python -m experiments.dilution --workdir=runs/dilution
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
from resnet_jax.analysis import signal
from resnet_jax.analysis.statistics import above, every, interaction, no_rise
from resnet_jax.reporting import points

HALF = 0.5  # of the equal share
IDENTITY = {"skip": "A", "block": "preact_basic"}
ARMS = {
    "identity": IDENTITY,
    "gains-0.5": {**IDENTITY, "merge": "add", "model.gains": (0.5, 0.5)},
}


def plan(options: Options) -> list[Run]:
    """Return networks with identity skips and with gains, untrained.

    Raises: ValueError for one depth, and for a network without two neighbouring equal blocks.
    """
    options.refuse_one_depth()
    runs = options.arms(ARMS, 5, trained=False)
    for family, depth in options.networks:
        blocks = (depth - 2) // 6
        if family != "resnet" or blocks < 2:
            raise ValueError(
                f"{family}:{depth} has no two neighbouring pre-activation blocks of one shape, "
                "between which the share of a signal is measured; use --depths=20,56 or deeper"
            )
    return runs


def measure(run: Run) -> list[Row]:
    """Return the smallest share of an x_l in its x_L, over the stages; and all of one stage."""
    shares = [np.asarray(share) for share in opened(run).measured(of_stages)]
    least = min(shares, key=min)
    equal = 1 / np.sqrt(len(least) + 1)
    return [
        {
            "seed": run.config.seed,
            "share": float(least.min()),
            "of_equal_share": float(least.min() / equal),
            "log2_share": float(np.log2(least.min())),
            "shares": least.tolist(),
        }
    ]


def of_stages(apply, variables, x, loss):
    """Return the shares of each stage, normalised by the batch."""
    return signal.dilution(apply, variables, x, train=True)


def direct(rows: list[Row]) -> Verdict:
    """Test whether no share is less than half the equal share, at any depth."""
    shares = by_depth(rows, "of_equal_share", arm="identity")
    said = by_depth(rows, "share", arm="identity")
    told = ", ".join(f"{fmean(values):.2f} ({depth} layers)" for depth, values in said.items())
    return Verdict.of(
        every(*(above(values, HALF) for values in shares.values())),
        f"The smallest share of an x_l in x_L is {told}.",
    )


def exponential(rows: list[Row]) -> Verdict:
    """Test whether gains of 0.5 halve the share at least once more for each added block."""
    arms = [by_depth(rows, "log2_share", arm=name) for name in ARMS]
    falls = [{depth: [-v for v in values] for depth, values in arm.items()} for arm in arms]
    ends = [min(falls[0]), max(falls[0])]
    added = (ends[1] - ends[0]) // 6
    test = every(no_rise(falls[0], added / 2), interaction(falls[1], falls[0], added / 2))
    told = [", ".join(f"2^{fmean(arm[depth]):.1f}" for depth in ends) for arm in arms]
    return Verdict.of(
        test,
        f"Shares with {ends[0]} and {ends[1]} layers: {told[0]} with identity skips, {told[1]} "
        "with gains of 0.5.",
    )


def halved(rows: list[Row]) -> list[Row]:
    """Return the networks with gains of 0.5 in the place of those with identity skips."""
    gained = where(rows, arm="gains-0.5")
    return gained + relabelled(gained, arm="identity")


def share(rows: list[Row]) -> Figure:
    """Draw the smallest share against the depth."""
    return points.figure(rows, "depth", "share", log_y=True)


def by_block(rows: list[Row]) -> Figure:
    """Draw the share of each x_l of a stage of the deepest networks, for the first seed."""
    chosen = {"depth": max(row["depth"] for row in rows), "seed": min(row["seed"] for row in rows)}
    label = "share of x_l in the stage's output"
    return points.by_block(where(rows, **chosen), "shares", label, log_y=True)


RULE = (
    "the smallest |x_l| / |x_L| in any stage of a pre-activation network {when} is more than half "
    "of 1 / sqrt(m + 1), the share of one of m + 1 equal and independent terms, with m blocks from "
    "l to L: one-sided t tests over seeds, p < 0.01 for each depth"
)
AGAINST = "networks with gains of 0.5 on skips and bodies in the place of those with identity skips"
CLAIM = Claim(
    name="dilution",
    says="At the start a signal is sent directly from any layer to any deeper one: its share in "
    "the sum falls as a power of the depth, and not exponentially.",
    source="He et al. 2016, arXiv:1603.05027, eq. 4 to 7",
    rule=RULE.format(when="at its start"),
    plan=plan,
    judge=direct,
    kind="init",
    measure=measure,
    columns={"share": ".3g", "of_equal_share": ".2f"},
    depths=lambda dataset, full: (20, 56, 110, 218, 434) if full else (20, 56, 110, 218),
    figures=(share, by_block),
    control=halved,
    against=AGAINST,
    further=(
        Statement(
            "gains_dilute",
            "With gains of 0.5 on the skips the share of a signal falls exponentially.",
            "He et al. 2016, arXiv:1603.05027, eq. 7",
            "the logarithm to base 2 of the smallest share, as a line in log2(depth), falls by "
            "less than half the number of blocks by which a stage of the deepest network exceeds "
            "one of the shallowest with identity skips, and by more than that number in addition "
            "with gains of 0.5: one-sided t tests over seeds, p < 0.01 for both",
            exponential,
            halved,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
