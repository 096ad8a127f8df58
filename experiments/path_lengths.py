"""The short paths of a residual network carry its gradient.

Veit et al. 2016 (arXiv:1605.06431), Fig. 6: of the 2^54 paths of a trained ResNet-110 of 54 blocks,
the lengths are binomial around 27; the gradient along a path falls exponentially with its length,
and almost all of the gradient comes from paths of 5 to 17 blocks.

    python -m experiments.path_lengths --workdir=runs/path_lengths
"""

import math
from statistics import fmean

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.network import opened
from experiments.plan import Options, Run
from experiments.results import Row, divergence, scores
from experiments.rows import lacking, learned_nothing, relabelled, where
from resnet_jax import command
from resnet_jax.analysis.observe import blocks_of
from resnet_jax.analysis.paths import contributions, path_gradients, path_lengths, random_paths
from resnet_jax.analysis.statistics import above, opposite
from resnet_jax.reporting import points

ARMS = {"plain": {"skip": "none"}, "resnet": {"skip": "A"}}
PATHS = 16  # random paths of each length


def plan(options: Options) -> list[Run]:
    """Return a residual and a plain network. Raises: ValueError for several networks."""
    options.refuse_several()
    options.refuse_replicas()
    return options.arms(ARMS)


def measure(run: Run) -> list[Row]:
    """Return the mean gradient by length, each length's share, and the mean length by share."""
    if divergence(run):
        return scores(run)
    network = opened(run)
    blocks = len(blocks_of(network.net.apply, network.variables, network.x))
    keys = jax.random.split(jax.random.key(0), blocks + 1)
    paths = np.concatenate(
        [np.asarray(random_paths(keys[k], blocks, k, PATHS)) for k in range(blocks + 1)]
    )
    norms = network.measured(path_gradients, paths=paths)
    by_length = np.asarray(norms, np.float64).reshape(blocks + 1, PATHS).mean(1)
    total = by_length.sum()
    share = contributions(by_length) if total > 0 else path_lengths(blocks)
    (row,) = scores(run)
    return [
        row
        | {
            "blocks": blocks,
            "effective_length": float(share @ np.arange(blocks + 1)),
            "relative_length": float(share @ np.arange(blocks + 1)) / (blocks / 2),
            "decades_a_block": slope(by_length),
            "shares": share.tolist(),
        }
    ]


def slope(norms: np.ndarray) -> float | None:
    """Return the slope of log10(norm) over the length, of the lengths that carry a gradient."""
    lengths = np.flatnonzero(norms > 0)
    if len(lengths) < 3:
        return None
    return float(np.polyfit(lengths, np.log10(norms[lengths]), 1)[0])


def short(rows: list[Row]) -> Verdict:
    """Test whether the paths that carry the gradient are shorter than most paths."""
    own = where(rows, arm="resnet")
    if idle := lacking(own, "relative_length") or learned_nothing(own):
        return Verdict(None, idle)
    lengths = [row["relative_length"] for row in own]
    blocks = own[0]["blocks"]
    said = (
        f"Of {blocks} blocks, paths pass {blocks / 2:g} bodies on average, and those that carry "
        f"the gradient {fmean(row['effective_length'] for row in own):.1f}."
    )
    return Verdict.of(opposite(above(lengths, 0.9)), said)


def exponential(rows: list[Row]) -> Verdict:
    """Test whether the gradient along a path falls with its length."""
    own = where(rows, arm="resnet")
    if idle := lacking(own, "decades_a_block") or learned_nothing(own):
        return Verdict(None, idle)
    slopes = [row["decades_a_block"] for row in own]
    factor = 10 ** fmean(slopes)
    said = f"One more body multiplies the gradient along a path by {factor:.2f} on average."
    return Verdict.of(opposite(above(slopes, math.log10(0.9))), said)


def control(rows: list[Row]) -> list[Row]:
    """Return the plain networks in the place of the residual ones."""
    return relabelled(where(rows, arm="plain"), arm="resnet")


def shares(rows: list[Row]) -> Figure:
    """Draw each length's share of the gradient and of the paths, for the first seed."""
    own = [row for row in where(rows, arm="resnet") if "shares" in row][:1]
    every_path = [
        row | {"model": "all paths", "shares": path_lengths(row["blocks"]).tolist()} for row in own
    ]
    return points.by_block([*own, *every_path], "shares", "share", x="bodies on the path")


AGAINST = "the plain network, whose gradient comes along the one path through all bodies"
CLAIM = Claim(
    name="path_lengths",
    says="The gradient of a trained residual network comes from paths that are shorter than most.",
    source="Veit et al. 2016, arXiv:1605.06431, Fig. 6",
    rule="the mean length of paths, weighted by the gradient that all paths of a length carry "
    "together, is less than 0.9 of half the number of blocks, the mean length of all paths: "
    "one-sided t test over seeds, p < 0.01. Not decided if the network is at chance",
    plan=plan,
    measure=measure,
    judge=short,
    columns={"effective_length": ".1f", "relative_length": ".2f", "decades_a_block": ".3f"},
    examples={"train": 64},
    depths=lambda dataset, full: (110,) if full else (56,),
    figures=(shares,),
    control=control,
    against=AGAINST,
    further=(
        Statement(
            "long_paths_vanish",
            "The gradient along a path shrinks with each body that the path passes through.",
            "Veit et al. 2016, arXiv:1605.06431, Fig. 6 (b)",
            "the slope of the logarithm of the mean gradient norm over the length, by least "
            "squares over all lengths, is below that of a factor of 0.9 for each body: one-sided t "
            "test over seeds, p < 0.01. That the fall is exponential is not tested. Not decided if "
            "the network is at chance",
            exponential,
            control,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
