"""Does the optimiser have trouble finding the identity?

He et al. 2015 (arXiv:1512.03385), sec. 3.1, suspect "that the solvers might have difficulties in
approximating identity mappings by multiple nonlinear layers". The task is to regress 25 random
numbers on themselves: behind a first layer, every layer should be the identity, which ReLUs can
pass on exactly. All networks have dense layers of 50 units without norms, and ReLUs.

The bodies of the residual networks are scaled by 1 / depth, because the sum of as many bodies as
layers would otherwise grow exponentially with the depth at the start. The network "dirac" is the
plain one from a start at the identity: it shows what a plain network can represent and keep. The
runs have 1,500 steps, because in a pilot plain networks of 4 layers ended above a loss of 0.3 after
the recipe's 300. The share itself is judged and not its logarithm, in which plain networks that
learn nothing are hardly worse than shallow ones.

    python -m experiments.learn_identity --workdir=runs/learn_identity
"""

from statistics import fmean

from experiments import claim, rates
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run, Values
from experiments.results import Row
from experiments.rows import by_depth, relabelled, where
from resnet_jax import command
from resnet_jax.analysis.statistics import every, interaction, no_rise, rises
from resnet_jax.models.highway import plain_width
from resnet_jax.reporting import points

MARGIN = 0.25
SEEDS = 5
ARMS = ("plain", "residual", "dirac")
RATES = {"sgd": (0.005, 0.02, 0.1), "adamw": (0.0003, 0.001, 0.003)}
# The plain twin of a highway network of 35 units has 50, as many as the residual network.
WIDTH = 35
PLAIN = {"block": "dense", "skip": "none", "model.width": WIDTH}


def arms(depth: int, optimizer: str) -> dict[str, Values]:
    """Return the arms of a depth and an optimizer."""
    residual = {"block": "dense", "skip": "A", "merge": "add", "model.width": plain_width(WIDTH)}
    own = {
        "plain": PLAIN,
        "residual": residual | {"model.gains": (1.0, 1 / depth)},
        "dirac": PLAIN | {"model.kernel_start": "dirac"},
    }
    # Decay would pull the kernels of a plain network away from the identity.
    of_all = {"optimizer": optimizer, "optimizer.weight_decay": 0.0}
    return {name: arm | of_all for name, arm in own.items()}


def plan(options: Options) -> list[Run]:
    """Return every arm at every depth, with both optimizers and their rates.

    Raises: ValueError for one depth.
    """
    options.refuse_one_depth()
    # The seeds of a network are one run: that is one program, and small networks train together.
    replicas = {"replicas": str(options.seeds_per_model or SEEDS), **options.overrides}
    return [
        run
        for network in options.networks
        for optimizer, tried in RATES.items()
        for run in rates.arms(
            options._replace(networks=(network,), overrides=replicas),
            {f"{arm}-{optimizer}": of for arm, of in arms(network[1], optimizer).items()},
            tried,
            SEEDS,
        )
    ]


def measure(run: Run) -> list[Row]:
    """Return the scores with the unexplained share of the variance: the loss, and at most all."""
    share = lambda row: min(row["train_loss"] / row["chance_loss"], 1.0)
    return [row | {"unexplained": share(row)} for row in rates.measured(run)]


def judge(optimizer: str, rows: list[Row]) -> Verdict:
    """Test whether the loss of plain networks rises with depth, and that of residual ones not."""
    chosen = rates.best([row for row in rows if row["arm"].endswith(optimizer)], "unexplained")
    of = {name: by_depth(chosen, "unexplained", arm=f"{name}-{optimizer}") for name in ARMS}
    plain, residual = of["plain"], of["residual"]
    tests = rises(plain, MARGIN), no_rise(residual, MARGIN), interaction(plain, residual, MARGIN)
    ends = lambda arm: " to ".join(f"{fmean(arm[end(arm)]):.2g}" for end in (min, max))
    said = ", ".join(f"{name} {ends(arm)}" for name, arm in of.items() if arm)
    return Verdict.of(
        every(*tests),
        f"Unexplained shares of the variance from {min(plain)} to {max(plain)} layers: {said}.",
    )


def with_sgd(rows: list[Row]) -> Verdict:
    """Judge the networks trained by SGD."""
    return judge("sgd", rows)


def with_adam(rows: list[Row]) -> Verdict:
    """Judge the networks trained by Adam."""
    return judge("adamw", rows)


def control(rows: list[Row]) -> list[Row]:
    """Return the plain networks that start as the identity in the place of the usual start."""
    others = [row for row in rows if not row["arm"].startswith("plain")]
    return others + [
        row
        for optimizer in RATES
        for row in relabelled(where(rows, arm=f"dirac-{optimizer}"), arm=f"plain-{optimizer}")
    ]


def loss_with(optimizer: str):
    """Return a function that draws the loss against the depth, at the best rates."""

    def loss(rows: list[Row]):
        own = [row for row in rows if row["arm"].endswith(optimizer)]
        named = [row | {"arm": row["arm"].rpartition("-")[0]} for row in own]
        return points.figure(rates.best(named, "unexplained"), "depth", "unexplained", log_y=True)

    loss.__name__, loss.__doc__ = f"loss_{optimizer}", f"Draw the loss with {optimizer}."
    return loss


RULE = (
    "the unexplained share of the variance (the training loss, at most 1), at the rate that is "
    "best for each arm and depth, as a line in log2(depth) for each seed, rises by more than 0.25 "
    "over the depths for plain networks, and by less than that for residual networks, and the "
    "first rise exceeds the second of the same seed by more than 0.25: one-sided t tests over "
    "seeds, p < 0.01 for each of the three. {}: rates {}"
)
SAYS = (
    "{} has trouble finding the identity in deep plain networks, and not in residual ones whose "
    "bodies are scaled by 1 / depth."
)
SOURCE = "He et al. 2015, arXiv:1512.03385, sec. 3.1 (a conjecture)"
AGAINST = "plain networks that start as the identity in the place of those with the usual start"
TRIED = {name: ", ".join(map(str, tried)) for name, tried in RATES.items()}
CLAIM = Claim(
    name="learn_identity",
    says=SAYS.format("SGD"),
    source=SOURCE,
    rule=RULE.format("SGD with momentum", TRIED["sgd"]),
    plan=plan,
    measure=measure,
    judge=with_sgd,
    columns={"rate": ".3g", "unexplained": ".2g"},
    depths=lambda dataset, full: (2, 4, 8, 16, 32, 64) if full else (4, 16, 64),
    dataset="reconstruction",
    steps=1_500,
    task="reconstruction",
    figures=tuple(loss_with(optimizer) for optimizer in RATES),
    control=control,
    against=AGAINST,
    further=(
        Statement(
            "learn_identity_with_adam",
            SAYS.format("Adam"),
            SOURCE,
            RULE.format("Adam", TRIED["adamw"]),
            with_adam,
            control,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
