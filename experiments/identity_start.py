"""If the layers of a plain network start as the identity, training does not lose by depth.

He et al. 2015 (arXiv:1512.03385), sec. 1: a deeper plain network could be as good as a shallow one,
because its added layers could be the identity; that it trains worse says that the optimiser does
not find this solution. Here it need not be found: plain networks without norms start with Dirac
kernels (identity_construction.py), the stem and the classifier at random.

    python -m experiments.identity_start --workdir=runs/identity_start
"""

from statistics import fmean

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.identity_construction import ARMS
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import by_depth, learned_nothing, relabelled, where
from resnet_jax import command
from resnet_jax.analysis.statistics import no_rise, rises
from resnet_jax.reporting import points

MARGIN = 0.05


def plan(options: Options) -> list[Run]:
    """Return plain networks of both starts at every depth. Raises: ValueError for one depth."""
    options.refuse_one_depth()
    return options.arms(ARMS)


def kept(rows: list[Row]) -> Verdict:
    """Test whether the training error of the identity start does not rise with depth."""
    errors = by_depth(rows, "train_error", arm="identity")
    if idle := learned_nothing(where(rows, arm="identity", depth=min(errors))):
        return Verdict(None, idle)
    return Verdict.of(no_rise(errors, MARGIN), told(errors, "that start as the identity"))


def lost(rows: list[Row]) -> Verdict:
    """Test whether the training error of the random start rises with depth."""
    errors = by_depth(rows, "train_error", arm="random")
    if idle := learned_nothing(where(rows, arm="random", depth=min(errors))):
        return Verdict(None, idle)
    return Verdict.of(rises(errors, MARGIN), told(errors, "that start at random"))


def told(errors: dict[int, list[float]], which: str) -> str:
    """Return the training errors by depth in words."""
    said = ", ".join(f"{fmean(errors[depth]):.1%} with {depth}" for depth in errors)
    return f"Plain networks {which} end with training errors of {said} layers."


def swapped(rows: list[Row]) -> list[Row]:
    """Return each start in the place of the other."""
    both = {"identity": "random", "random": "identity"}
    return [row for a, b in both.items() for row in relabelled(where(rows, arm=a), arm=b)]


def training_error(rows: list[Row]):
    """Draw the training error against the depth."""
    return points.figure(rows, "depth", "train_error", ".0%")


CLAIM = Claim(
    name="identity_start",
    says="A plain network whose layers start as the identity does not train worse as it gets "
    "deeper.",
    source="ours, after He et al. 2015, arXiv:1512.03385, sec. 1",
    rule="the training error of plain networks without norms and with Dirac kernels, as a line in "
    "log2(depth) through all depths for each seed, rises by less than 5 points from the shallowest "
    "to the deepest: one-sided t test over seeds, p < 0.01. Not decided if the "
    "shallowest is at chance",
    plan=plan,
    judge=kept,
    depths=lambda dataset, full: (8, 20, 56, 110) if full else (8, 20, 56),
    figures=(training_error,),
    control=swapped,
    against="the random start in the place of the identity",
    further=(
        Statement(
            "plain_random_start",
            "A plain network whose layers start at random trains worse as it gets deeper.",
            "ours, after He et al. 2015, arXiv:1512.03385, sec. 1 (there with batch norm)",
            "the same of He's start, without norms: the training error rises by more than 5 "
            "points: one-sided t test over seeds, p < 0.01. Not decided if the "
            "shallowest is at chance",
            lost,
            swapped,
            "the identity in the place of the random start",
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
