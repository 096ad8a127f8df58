"""A residual network's signal and gradient are sums; a factor on the skips makes them products.

He et al. 2016 (arXiv:1603.05027): if the skip is the identity and nothing follows the sum,

    x_L     = x_l + sum_i F(x_i)                                    eq. 4
    dE/dx_l = dE/dx_L (1 + d/dx_l sum_i F(x_i))                     eq. 5

and with a factor on each skip, x_L has the share prod_i lambda_i of x_l (eq. 7), which vanishes
exponentially with depth if the factors are below 1. Both equations are looked at term by term in
float64, in every run of blocks that keep the shape, as the network starts and after training. The
control is the original block (2015), whose ReLU follows the sum. A gate counts with its mean over
units, places and examples; its bias is 0 here, so that it is half open. (With a bias of -6, the
best of Table 1, the exclusive gate keeps 0.998 of the skip, and little vanishes in 54 blocks.)
Running statistics are used.

    python -m experiments.signal --workdir=runs/signal
"""

from functools import partial
from math import log2

import jax
import numpy as np

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.network import opened
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import relabelled, where
from resnet_jax import command
from resnet_jax.analysis.gains import carried, gains
from resnet_jax.analysis.observe import blocks_of
from resnet_jax.analysis.signal import gradient_errors, sum_errors
from resnet_jax.reporting import points

ROUNDING, BOUND, EXAMPLES = 1e-10, 0.9, 16
START = {
    "v2-start": {"block": "preact_basic", "skip": "A"},
    "v1-start": {"skip": "A"},
    "scaled-0.5": {"skip": "A", "model.gains": (0.5, 0.5)},
    "shortcut-gate": {"skip": "A", "merge": "shortcut_gate", "model.gate_bias": 0.0},
    "exclusive-gate": {"skip": "A", "merge": "exclusive_gate", "model.gate_bias": 0.0},
}
SUMS, FACTORS = ("v2-start", "v2-trained"), ("scaled-0.5", "shortcut-gate", "exclusive-gate")


def plan(options: Options) -> list[Run]:
    """Return the networks as they start, and one trained. Raises: ValueError for others."""
    for family, depth in options.networks:
        if family not in ("resnet", "ladder") or depth < 14:
            raise ValueError(
                f"{family}:{depth} has no pre-activation blocks of one shape behind the first of a "
                "stage; use --models=resnet:20"
            )
    trained = {"v2-trained": START["v2-start"]}
    return options.arms(START, 1, trained=False) + options.arms(trained, 1)


def measure(run: Run) -> list[Row]:
    """Return the largest errors of both equations, and the product of the skips' factors."""
    with jax.enable_x64(True):
        net = opened(run, EXAMPLES, wide=True)
        apply, given = net.net.apply, (net.variables, net.x)
        row = {"seed": run.config.seed, "eq4": None, "eq5": None}
        if run.arm not in FACTORS:
            both = jax.jit(partial(errors, apply, net.loss))(*given)
            row |= {name: float(error) for name, error in both.items()}
        blocks = blocks_of(apply, *given)
        kept = np.array([block for block in range(len(blocks)) if blocks.keeps(block)])
        carry = jax.jit(partial(gains, apply))(*given).carry[kept]
        left = carried(carry)[::-1].tolist()
    return [row | {"factors": carry.tolist(), "log2_product": log2(left[-1]), "left": left}]


def errors(apply, loss, variables, x):
    """Return the largest error of eq. 4 and of eq. 5 over all runs of blocks."""
    largest = lambda runs: jax.numpy.concatenate(runs).max()
    return {
        "eq4": largest(sum_errors(apply, variables, x)),
        "eq5": largest(gradient_errors(apply, variables, x, loss)),
    }


def within(column: str, rows: list[Row]) -> Verdict:
    """Return whether the errors of an equation are rounding in all pre-activation networks."""
    own = [row for row in rows if row["arm"] in SUMS]
    said = "; ".join(f"{row['model']} {row[column]:.1e}" for row in rows if row[column] is not None)
    return Verdict(
        bool(own) and all(row[column] <= ROUNDING for row in own), f"Largest errors: {said}."
    )


def vanish(rows: list[Row]) -> Verdict:
    """Return whether factors below 1 leave an exponentially small share, and identities all."""
    own = [row for row in rows if row["arm"] in FACTORS]
    sums = [row for row in rows if row["arm"] in (*SUMS, "v1-start")]
    holds = bool(own) and all(max(row["factors"]) <= BOUND for row in own)
    holds &= all(row["log2_product"] == 0 for row in sums)
    said = "; ".join(
        f"{row['model']} 2^{row['log2_product']:.3g} in {len(row['factors'])} blocks "
        f"(factors {min(row['factors']):.2f} to {max(row['factors']):.2f})"
        for row in own
    )
    return Verdict(holds, f"Products: {said}; 1 with identities.")


def original(rows: list[Row]) -> list[Row]:
    """Return the original block in the place of the pre-activation blocks."""
    return [row for name in SUMS for row in relabelled(where(rows, arm="v1-start"), arm=name)]


def identities(rows: list[Row]) -> list[Row]:
    """Return the identity in the place of all factors."""
    own = where(rows, arm="v2-start")
    return [row for name in FACTORS for row in relabelled(own, arm=name)]


def product(rows: list[Row]):
    """Draw what the skips leave of a signal against the number of blocks."""
    shown = [
        row | {"blocks": n, "left of the signal": share}
        for row in where(rows, depth=max(row["depth"] for row in rows))
        if row["arm"] in ("v2-start", *FACTORS)
        for n, share in enumerate(row["left"], 1)
    ]
    return points.figure(shown, "blocks", "left of the signal", log_x=False, log_y=True)


SOURCE = "He et al. 2016, arXiv:1603.05027, eq. {}"
RULE = (
    "in float64 the largest difference between the two sides, over all blocks and over the largest "
    f"number of the left side, is at most {ROUNDING:.0e} in pre-activation networks at the start "
    "and after training"
)
AGAINST = "the original block, with a ReLU after the sum"
CLAIM = Claim(
    name="signal",
    says="In a pre-activation network the signal of a deep block is that of any shallower block "
    "plus the sum of the bodies between them.",
    source=SOURCE.format(4),
    rule=RULE,
    plan=plan,
    measure=measure,
    judge=partial(within, "eq4"),
    kind="exact",
    columns={"eq4": ".1e", "eq5": ".1e", "log2_product": ".3g"},
    figures=(product,),
    control=original,
    against=AGAINST,
    further=(
        Statement(
            "signal_of_the_gradient",
            "The gradient at a block is the gradient at any deeper block plus a term of the bodies "
            "between them.",
            SOURCE.format(5),
            RULE,
            partial(within, "eq5"),
            original,
            AGAINST,
        ),
        Statement(
            "signal_vanishes_behind_gates",
            "Factors of 0.5 and half-open gates on the skips make the direct signal vanish "
            "exponentially with the number of blocks, in both directions.",
            SOURCE.format("7 and Table 1"),
            f"every factor of the scaled and the two gated skips (initial bias 0) is at most "
            f"{BOUND}, so that n blocks leave at most {BOUND}^n of the signal and of the gradient "
            "along the skips; the product of identity skips is exactly 1",
            vanish,
            identities,
            "the identity in the place of the factors",
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
