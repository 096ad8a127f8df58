"""Without norms, plain networks of some 20 to 30 layers were the deepest that trained.

He et al. 2015 (arXiv:1502.01852), sec. 2.2 and Fig. 2 and 3, from memory: networks of 22 layers
without norms train with Xavier's start and with He's; of 30 layers only with He's. Batch norm
(Ioffe & Szegedy 2015, arXiv:1502.03167) was the next trick. The third, to grow a trained shallow
network (VGG's A to E), is not tested here: nothing in the codebase grows a network.

A network trains if its training error is below half that of chance. All have plain 3x3 layers, the
same budget of steps, and the best of two learning rates.

    python -m experiments.no_norm_depth --workdir=runs/no_norm_depth
"""

import math
from itertools import pairwise
from statistics import fmean

from experiments import claim, rates
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import Test, above, every, larger
from resnet_jax.reporting import points

RATES = (0.01, 0.03)
MARGIN, OCTAVES = 0.05, 0.3
BARE = {"skip": "none", "norm": "none"}
ARMS = {"xavier": {**BARE, "model.kernel_start": "xavier"}, "he": BARE}
NORM = {"batch-norm": {"skip": "none"}}


def depths(dataset: str, full: bool) -> tuple[int, ...]:
    """Return depths around the published limits."""
    return (8, 14, 20, 26, 32, 38, 44, 56) if full else (8, 20, 32, 56)


def plan(options: Options) -> list[Run]:
    """Return both starts at all depths, and the deepest network with batch norm.

    Raises: ValueError for one depth.
    """
    options.refuse_one_depth()
    deepest = options._replace(networks=(max(options.networks, key=lambda network: network[1]),))
    return [
        *rates.arms(options, ARMS, RATES, 5),
        *rates.arms(deepest, NORM, RATES, 5),
    ]


def trains(row: Row) -> bool:
    """Return whether a network has learned half of what there is to learn."""
    return row["train_error"] < row["chance_error"] / 2


def bounds(rows: list[Row]) -> tuple[list[float], list[float]]:
    """Return log2 of the deepest network that trains and of the next depth, for each seed.

    The depth at which training ends lies between the two. If no network trains, the first is half
    the least depth; after the greatest depth comes infinity.
    """
    depths = sorted({row["depth"] for row in rows})
    grid = [depths[0] / 2, *depths, math.inf]
    seeds = sorted({row["seed"] for row in rows})
    trained = [[row["depth"] for row in where(rows, seed=seed) if trains(row)] for seed in seeds]
    places = [grid.index(max(own, default=grid[0])) for own in trained]
    return [math.log2(grid[i]) for i in places], [math.log2(grid[i + 1]) for i in places]


def start(rows: list[Row]) -> Verdict:
    """Test whether He's start trains deeper networks than Xavier's, wherever in their bounds."""
    chosen = rates.best(rows)
    (he, above_he), (xavier, above_xavier) = (
        bounds(where(chosen, arm=name)) for name in ("he", "xavier")
    )
    says = (
        f"The deepest network without norm that trains has {2 ** fmean(he):.0f} layers with He's "
        f"start and {2 ** fmean(xavier):.0f} with Xavier's (geometric means)."
    )
    if math.inf in above_xavier:
        return Verdict(None, f"{says} Nothing deeper was trained.")
    tried = sorted({row["depth"] for row in rows})
    step = max(math.log2(more / fewer) for fewer, more in pairwise(tried))
    least = larger(he, above_xavier, OCTAVES, resolution=step)
    if math.inf in above_he:  # the difference has no upper bound
        unbounded = least._replace(holds=least.holds or None, interval=None, p_opposite=1.0)
        return Verdict.of(unbounded, says)
    return Verdict.of(between(least, larger(above_he, xavier, OCTAVES, resolution=step)), says)


def between(least: Test, most: Test) -> Test:
    """Return the test of a difference that lies between those of two tests: yes to both, or no."""
    holds = True if least.holds else False if most.holds is False else None
    interval = (least.interval[0], most.interval[1]) if least.interval and most.interval else None
    return least._replace(holds=holds, interval=interval, p_opposite=most.p_opposite)


def norm(rows: list[Row]) -> Verdict:
    """Test whether He's start fails to train the deepest plain network, and batch norm helps."""
    most = max(row["depth"] for row in rows)
    chosen = rates.best(where(rows, depth=most))
    of = {name: sample(chosen, "train_error", arm=name) for name in (*ARMS, *NORM)}
    said = ", ".join(f"{name.replace('-', ' ')} {fmean(own):.1%}" for name, own in of.items())
    half = chosen[0]["chance_error"] / 2
    test = every(above(of["he"], half), larger(of["he"], of["batch-norm"], MARGIN))
    return Verdict.of(test, f"Training errors of plain networks of {most} layers: {said}.")


def same_start(rows: list[Row]) -> list[Row]:
    """Return Xavier's start in the place of He's."""
    xavier = where(rows, arm="xavier")
    return xavier + relabelled(xavier, arm="he")


def without_norm(rows: list[Row]) -> list[Row]:
    """Return the networks without norm in the place of those with batch norm."""
    he = where(rows, arm="he")
    return where(rows, arm="xavier") + he + relabelled(he, arm="batch-norm")


def training_error(rows: list[Row]):
    """Draw the training error against the depth, at the best rates."""
    return points.figure(rates.best(rows), "depth", "train_error", ".0%")


BEST = "each arm and depth at the rate, 0.01 or 0.03, with the least mean training loss"
CLAIM = Claim(
    name="no_norm_depth",
    says="Without norms, He's start trains deeper plain networks than Xavier's.",
    source="He et al. 2015, arXiv:1502.01852, Fig. 2 and 3 (22 and 30 layers)",
    rule=f"{BEST}: the deepest network without norm whose training error is below half of chance. "
    "The logarithm of its depth with He's start exceeds that with Xavier's by more than 0.3 "
    "octaves (1.23 times as deep): one-sided Welch test over seeds, p < 0.01, with the variance "
    "of rounding to the widest step between the depths added to each sample's. The depth at which "
    "training ends lies between two depths that were tried: a yes takes the next depth for "
    "Xavier's start, and a no the next depth for He's. If none trains, half of the least depth "
    "counts. Not decided if Xavier's start trains the deepest network that was tried",
    plan=plan,
    measure=rates.measured,
    judge=start,
    depths=depths,
    figures=(training_error,),
    control=same_start,
    against="Xavier's start in the place of He's",
    further=(
        Statement(
            "batch_norm_trains_plain",
            "Batch norm lowers the training error of a plain network that is too deep to train "
            "with He's start.",
            "Ioffe & Szegedy 2015, arXiv:1502.03167 (they show shallower networks)",
            f"{BEST}: the training error of the deepest plain network without norm is above half "
            "of chance, and exceeds that of the same network with batch norm by more than 5 "
            "points: one-sided t test and Welch test over seeds, p < 0.01 for both",
            norm,
            without_norm,
            "the network without norm in the place of the network with batch norm",
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
