"""A residual network whose blocks share their weights is an unrolled recurrent network.

Liao & Poggio 2016 (arXiv:1604.03640): a residual network with one set of weights for all blocks of
a stage is a recurrent network that sees its input in the first step, x' = x + F(x), and trains
nearly as well as without sharing, with far fewer parameters. They keep statistics of the norms for
each step, as this network does. Residual and plain networks are tied at all depths and compared
with the untied residual network.

    python -m experiments.tied_depth --workdir=runs/tied_depth
"""

from statistics import fmean

from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import by_depth, learned_nothing, relabelled, where
from resnet_jax import command
from resnet_jax.analysis.statistics import every, no_worse
from resnet_jax.reporting import points

MARGIN = 0.05
ARMS = {
    "untied": {"skip": "A"},
    "tied": {"skip": "A", "model.tied": True},
    "tied-plain": {"skip": "none", "model.tied": True},
}


def plan(options: Options) -> list[Run]:
    """Return the three arms at every depth. Raises: ValueError for one depth."""
    options.refuse_one_depth()
    return options.arms(ARMS)


def judge(rows: list[Row]) -> Verdict:
    """Test whether tied networks have nearly the test error of untied ones at each depth."""
    if idle := learned_nothing(where(rows, arm="untied")):
        return Verdict(None, idle)
    of = {name: by_depth(rows, "test_error", arm=name) for name in ("tied", "untied")}
    tests = [no_worse(own, of["untied"][depth], MARGIN) for depth, own in of["tied"].items()]
    sizes = {(row["arm"], row["depth"]): row["parameters"] for row in rows}
    said = "; ".join(
        f"{depth} layers: tied {fmean(own):.1%} with {sizes['tied', depth]:,} parameters, untied "
        f"{fmean(of['untied'][depth]):.1%} with {sizes['untied', depth]:,}"
        for depth, own in of["tied"].items()
    )
    return Verdict.of(every(*tests), f"Test errors with {said}.")


def control(rows: list[Row]) -> list[Row]:
    """Return the tied plain networks in the place of the tied residual ones."""
    return where(rows, arm="untied") + relabelled(where(rows, arm="tied-plain"), arm="tied")


def test_error(rows: list[Row]) -> Figure:
    """Draw the test error against the depth."""
    return points.figure(rows, "depth", "test_error", ".0%")


CLAIM = Claim(
    name="tied_depth",
    says="A residual network whose blocks share their weights, which is a recurrent network, has "
    "nearly the test error of a residual network without sharing, at any depth.",
    source="Liao & Poggio 2016, arXiv:1604.03640",
    rule="the test error of the residual network with one set of weights for the equal blocks of a "
    "stage exceeds that of the network without sharing by less than 5 points, at each depth: "
    "one-sided Welch tests over seeds, p < 0.01 for each. Not decided if a network without sharing "
    "is at chance",
    plan=plan,
    judge=judge,
    depths=lambda dataset, full: (20, 56, 110) if full else (20, 56),
    figures=(test_error,),
    control=control,
    against="tied plain networks in the place of the tied residual ones",
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
