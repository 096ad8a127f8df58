"""Highway networks: gated skip connections train networks of hundreds of layers.

Srivastava et al. 2015 (arXiv:1505.00387), Fig. 1: on MNIST, the best highway networks of 10 to 100
layers end with training losses that hardly depend on the depth, and plain networks end higher with
every depth; with 10 and 20 layers they are as good. Training up to 900 layers is reported as
preliminary. Each network of the figure has the best of a random search over rates and, for highway
networks, over the bias at which the gates start; here each has the best of four settings. With a
bias of -3 a gate lets 5 % of the body in: all networks of 100 layers diverged in a pilot, and those
of 200 stayed at chance. With -6 a gate lets 0.25 % in, and they train. Plain networks need small
rates: of 0.003 to 0.1 the smallest was the best in the pilot, so that smaller ones are tried here.
At the single rate of configs/digits.py and in its 300 steps no highway network learned anything:
the runs have 900 steps.

Each network is a plain layer, highway layers of 50 units and the classifier; its plain twin has
wider layers and about as many parameters.

    python -m experiments.highway_depth --workdir=runs/highway_depth
    python -m experiments.highway_depth --dataset=mnist --data_dir=DIR --full --workdir=DIR
"""

from statistics import fmean

from experiments import claim, rates
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import by_depth, learned_nothing, relabelled, where
from resnet_jax import command
from resnet_jax.analysis.statistics import every, interaction, larger, no_rise, no_worse, rises
from resnet_jax.reporting import points

MARGIN, HUNDREDS = 0.05, 100
PLAIN = {"block": "dense", "skip": "none"}
HIGHWAY = {"block": "dense", "skip": "A", "merge": "exclusive_gate"}
# Four settings of each: rates of the plain networks; biases and rates of the highway networks.
PLAIN_RATES = (0.0003, 0.001, 0.003, 0.01)
BIASES, HIGHWAY_RATES = (-3.0, -6.0), (0.1, 0.3)


def depths(dataset: str, full: bool) -> tuple[int, ...]:
    """Return the depths of the paper, or few enough for minutes."""
    return (10, 20, 50, 100, 200, 500, 900) if full else (20, 50, 100, 200)


def plan(options: Options) -> list[Run]:
    """Return the highway network and its plain twin of every depth.

    A recipe's own family is ResNet, and --depths alone means highway networks of these depths.
    Raises: ValueError for one depth, and for another family.
    """
    for family, depth in options.networks:
        if family not in ("highway", "resnet"):
            raise ValueError(f"{family}:{depth} is no highway network; use --models=highway:N")
    highways = [("highway", depth) for _, depth in options.networks]
    options = options._replace(networks=tuple(highways))
    options.refuse_one_depth()
    highway = {f"highway{bias:g}": {**HIGHWAY, "model.gate_bias": bias} for bias in BIASES}
    return rates.arms(options, {"plain": PLAIN}, PLAIN_RATES, 5) + [
        run._replace(arm="highway") for run in rates.arms(options, highway, HIGHWAY_RATES, 5)
    ]


def measure(run: Run) -> list[Row]:
    """Return the scores of a run with its rate, and the bias of its gates, or 0 without gates."""
    return [
        row | {"gate_bias": run.config.model.get("gate_bias", 0.0)} for row in rates.measured(run)
    ]


def best(rows: list[Row]) -> list[Row]:
    """Return the rows of the best setting of each network."""
    return rates.best(rows, by=("gate_bias", "rate"))


def trains(rows: list[Row]) -> Verdict:
    """Test whether the training error of highway networks stays and that of plain ones rises."""
    rows = best(rows)
    highway, plain = (by_depth(rows, "train_error", arm=name) for name in ("highway", "plain"))
    if max(plain) < HUNDREDS:
        return Verdict(None, f"The statement is about {HUNDREDS} layers and more.")
    if idle := learned_nothing(where(rows, depth=min(plain))):
        return Verdict(None, idle)
    tests = no_rise(highway, MARGIN), rises(plain, MARGIN), interaction(plain, highway, MARGIN)
    ends = lambda arm: f"{fmean(arm[min(arm)]):.1%} to {fmean(arm[max(arm)]):.1%}"
    return Verdict.of(
        every(*tests),
        f"From {min(plain)} to {max(plain)} layers the training error of highway networks goes "
        f"from {ends(highway)}, that of plain networks from {ends(plain)}.",
    )


def below(rows: list[Row]) -> Verdict:
    """Test whether highways end below plain networks with 50 and 100 layers and not with 20."""
    rows = best(rows)
    highway, plain = (by_depth(rows, "train_loss", arm=name) for name in ("highway", "plain"))
    if not {20, 50, 100} <= highway.keys():
        return Verdict(None, "The statement is about 20, 50 and 100 layers.")
    if idle := learned_nothing(where(rows, depth=20)):
        return Verdict(None, idle)
    test = every(
        *(larger(plain[depth], highway[depth], 0.01) for depth in (50, 100)),
        no_worse(plain[20], highway[20], 0.01),
    )
    said = "; ".join(
        f"{depth} layers: highway {fmean(highway[depth]):.3g}, plain {fmean(plain[depth]):.3g}"
        for depth in (20, 50, 100)
    )
    return Verdict.of(test, f"Training losses in nats: {said}.")


def control(rows: list[Row]) -> list[Row]:
    """Return the plain networks in the place of the highway networks."""
    plain = where(rows, arm="plain")
    return plain + relabelled(plain, arm="highway")


def training_error(rows: list[Row]):
    """Draw the training error against the depth, at the best settings."""
    return points.figure(best(rows), "depth", "train_error", ".0%")


BEST = (
    "each network at the setting with its least mean training loss, of the rates 0.0003, 0.001, "
    "0.003 and 0.01 for plain networks, and of the rates 0.1 and 0.3 and the biases -3 and -6 for "
    "highway networks"
)
AGAINST = "the plain networks in the place of the highway networks"
CLAIM = Claim(
    name="highway_depth",
    says="Highway networks of hundreds of layers train as well as shallow ones; plain networks do "
    "not.",
    source="Srivastava et al. 2015, arXiv:1505.00387 and 1507.06228, Fig. 1",
    rule=f"{BEST}: the training error, as a line in log2(depth) through all depths for each "
    "seed, rises by less than 5 points for highway networks and by more than 5 points for plain "
    "ones, and by more than 5 points more for the latter: one-sided t tests over seeds, p < 0.01 "
    "for each. Not decided if a network of the least depth is at chance, or without a network of "
    "100 layers",
    plan=plan,
    measure=measure,
    judge=trains,
    depths=depths,
    steps=900,
    figures=(training_error,),
    control=control,
    against=AGAINST,
    further=(
        Statement(
            "highway_not_below_at_20",
            "Highway networks of 50 and 100 layers end with a lower training loss than plain "
            "networks; those of 20 layers do not.",
            "Srivastava et al. 2015, arXiv:1505.00387, Fig. 1 (the best of a search for each)",
            f"{BEST}: the plain networks' training loss exceeds the highway networks' by more than "
            "0.01 nats with 50 and with 100 layers, and by less than 0.01 nats with 20: one-sided "
            "Welch tests over seeds, p < 0.01 for each of the three. Not decided if a network of "
            "20 layers is at chance",
            below,
            control,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
