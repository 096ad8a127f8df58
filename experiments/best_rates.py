"""Degradation and the gain of depth at the best learning rate of each network.

`degradation` and `depth_pays` train all networks by one recipe, so that what they see could be the
work of one learning rate: deep plain networks might need a smaller rate than shallow ones. Here
each network of each depth has three rates, 0.3, 1 and 3 times the recipe's, and is judged at the
rate with its least mean training loss. The rules, margins and controls are those of the two claims.

The rate is chosen by the seeds that are judged, so that the least of three means is a little too
small; this is the same for all arms.

    python -m experiments.best_rates --workdir=runs/best_rates
"""

from matplotlib.figure import Figure

from experiments import claim, degradation, depth_pays, rates, twins
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import noted, where
from resnet_jax import command
from resnet_jax.reporting import points


def plan(options: Options) -> list[Run]:
    """Return the runs of `degradation` at each rate. Raises: ValueError as its plan does."""
    return rates.repeated(options, degradation.plan)


def measure(run: Run) -> list[Row]:
    """Return the scores of a run with its rate, and a note if it has learned nothing."""
    return noted(rates.measured(run))


def degrades(rows: list[Row]) -> Verdict:
    """Apply the rule of `degradation` to the best rates, and name them."""
    chosen = rates.best(rows)
    verdict = degradation.CLAIM.judge(chosen)
    return verdict._replace(says=f"{verdict.says} Best rates: {rates.told(chosen)}.")


def pays(rows: list[Row]) -> Verdict:
    """Apply the rule of `depth_pays` to the residual networks of each family, at best rates."""
    chosen = rates.best(rows)
    residual = {name: where(chosen, arm=name) for _, name in twins.pairs(rows)}
    return Verdict.of_each({name: depth_pays.judge(own) for name, own in residual.items()})


def shallowest(rows: list[Row]) -> list[Row]:
    """Return the shallowest networks in the place of all networks, at their best rates."""
    return depth_pays.same(rates.best(rows))


def training_error(rows: list[Row]) -> Figure:
    """Draw the training error at the best rates against the depth."""
    return points.figure(rates.best(rows), "depth", "train_error", ".0%")


def every_rate(rows: list[Row]) -> Figure:
    """Draw the training error of the deepest networks against the rate."""
    deepest = max(row["depth"] for row in rows)
    own = [row for row in rows if row["depth"] == deepest]
    return points.figure(own, "rate", "train_error", ".0%")


CLAIM = Claim(
    name="best_rates",
    says="Plain networks get worse on their own training data as they get deeper, and residual "
    "networks do not, if each network has the best of three learning rates.",
    source="ours; He et al. 2015, arXiv:1512.03385, Fig. 1 and 6, have one rate for all",
    rule=f"{rates.BEST}: {degradation.CLAIM.rule}",
    plan=plan,
    measure=measure,
    judge=degrades,
    depths=degradation.depths,
    figures=(training_error, every_rate),
    control=twins.residual_for_plain,
    against=twins.AGAINST,
    further=(
        Statement(
            "depth_pays_at_best_rates",
            "The test error of residual networks falls with depth, if each network has the best of "
            "three learning rates.",
            "ours; He et al. 2015, arXiv:1512.03385, Table 6, has one rate for all",
            f"{rates.BEST}: {depth_pays.CLAIM.rule}",
            pays,
            shallowest,
            depth_pays.CLAIM.against,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
