"""The gradient survives along the skips, however small the bodies' own gradients are.

He et al. 2016 (arXiv:1603.05027), sec. 2 behind eq. 5: because of the 1 in the equation "the
gradient of a layer does not vanish even when the weights are arbitrarily small". All bodies of a
network are multiplied by e, and the gradient that enters a run of m blocks of one shape is compared
with the one that leaves it: their ratio tends to 1 in a residual network, and falls like e^m in its
plain twin. The networks have no norms: a batch norm divides a small body by its size, so that the
e of a plain network would have no effect on what follows it. The exponent is m in the limit alone:
the direction in which the loss changes depends on e, too (the first rule, m to 9 digits between all
scales, had overlooked that, and said no with 1.99999 for 2 blocks).

    python -m experiments.small_residuals --workdir=runs/small_residuals
"""

import jax
import numpy as np

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.network import opened
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import relabelled, where
from resnet_jax import command
from resnet_jax.analysis.jacobian import scaled_gradients
from resnet_jax.analysis.observe import blocks_of
from resnet_jax.reporting import points

SCALES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
NEAR, FALL, SLOPE, EXAMPLES = 1e-3, 5.0, 0.01, 16
BARE = {"block": "preact_basic", "norm": "none"}
ARMS = {"residual": {**BARE, "skip": "A"}, "plain": {**BARE, "skip": "none"}}


def plan(options: Options) -> list[Run]:
    """Return a residual network and its plain twin. Raises: ValueError for no run of blocks."""
    for family, depth in options.networks:
        if family not in ("resnet", "ladder") or depth < 14:
            raise ValueError(f"{family}:{depth} has no run of two blocks; use --models=resnet:20")
    return options.arms(ARMS, 1, trained=False)


def measure(run: Run) -> list[Row]:
    """Return the ratio of the gradients around the longest run of blocks, for every scale."""
    with jax.enable_x64(True):
        net = opened(run, EXAMPLES, wide=True)
        runs = blocks_of(net.net.apply, net.variables, net.x).segments()
        longest = max(range(len(runs)), key=lambda i: len(runs[i]))
        ratios = jax.jit(
            lambda v, x, e: scaled_gradients(net.net.apply, v, x, net.loss, e)[:, longest]
        )(net.variables, net.x, jax.numpy.array(SCALES))
    ratios = [float(ratio) for ratio in ratios]
    row = {"seed": run.config.seed, "blocks": len(runs[longest]), "ratios": ratios}
    return [row | {"ratio_at_1": ratios[0], "smallest_ratio": ratios[-1]}]


def survives(rows: list[Row]) -> Verdict:
    """Return whether the residual networks' ratio tends to 1."""
    own = where(rows, arm="residual")
    far = [np.abs(np.array(row["ratios"]) - 1) for row in own]
    # From 0.1 on; the first scale is the network as it is.
    falls = [all(a >= FALL * b for a, b in zip(d[1:-1], d[2:], strict=True)) for d in far]
    said = "; ".join(
        f"{row['model']} {row['ratios'][0]:.3g} with e = 1, and {abs(row['ratios'][-1] - 1):.1e} "
        f"from 1 with e = {SCALES[-1]:.0e}"
        for row in own
    )
    holds = bool(own) and all(falls) and all(d[-1] <= NEAR for d in far)
    return Verdict(holds, f"Ratios over {own[0]['blocks']} blocks: {said}." if own else "No rows.")


def vanishes(rows: list[Row]) -> Verdict:
    """Return whether the plain networks' ratio is proportional to e^m."""
    own = where(rows, arm="plain")
    slope = lambda ratios: np.diff(np.log10(ratios)) / np.diff(np.log10(SCALES))
    slopes = [slope(row["ratios"])[1:] for row in own]
    errors = [abs(s - row["blocks"]).max() for s, row in zip(slopes, own, strict=True)]
    said = "; ".join(
        f"{row['model']} {row['ratios'][0]:.3g} with e = 1, {row['ratios'][-1]:.1e} with e = "
        f"{SCALES[-1]:.0e}; the exponent is {s[-1]:.6g} for {row['blocks']} blocks"
        for row, s in zip(own, slopes, strict=True)
    )
    holds = bool(own) and all(error <= SLOPE for error in errors)
    return Verdict(holds, f"Ratios: {said}.")


def plain(rows: list[Row]) -> list[Row]:
    """Return the plain networks in the place of the residual ones."""
    return relabelled(where(rows, arm="plain"), arm="residual")


def residual(rows: list[Row]) -> list[Row]:
    """Return the residual networks in the place of the plain ones."""
    return relabelled(where(rows, arm="residual"), arm="plain")


def ratio(rows: list[Row]):
    """Draw the ratio of the gradients against the scale of the bodies."""
    shown = [
        row | {"scale of the bodies": scale, "gradient, first over last block": value}
        for row in where(rows, depth=max(row["depth"] for row in rows))
        for scale, value in zip(SCALES, row["ratios"], strict=True)
    ]
    return points.figure(
        shown, "scale of the bodies", "gradient, first over last block", log_y=True
    )


SOURCE = "He et al. 2016, arXiv:1603.05027, sec. 2"
CLAIM = Claim(
    name="small_residuals",
    says="The gradient of a residual network survives even if all bodies are arbitrarily small: "
    "what enters a run of blocks tends to what leaves it.",
    source=SOURCE,
    rule="in float64, with bodies times e = 0.1 to 1e-5, the distance of |dE/dx_l| / |dE/dx_L| "
    f"from 1 falls at least {FALL:g} times with every tenth of e, and ends within {NEAR}",
    plan=plan,
    measure=measure,
    judge=survives,
    kind="exact",
    depths=lambda dataset, full: (110,) if full else (56,),
    columns={"blocks": "g", "ratio_at_1": ".3g", "smallest_ratio": ".3g"},
    figures=(ratio,),
    control=plain,
    against="the plain networks in the place of the residual ones",
    further=(
        Statement(
            "small_residuals_plain",
            "The gradient of a plain network falls like the product of its bodies' scales.",
            SOURCE,
            "in float64 the slope of log |dE/dx_l| / |dE/dx_L| over log e is the number m of "
            f"blocks, within {SLOPE}, between every two scales from 0.1 to 1e-5",
            vanishes,
            residual,
            "the residual networks in the place of the plain ones",
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
