"""Does it need a skip connection in the graph, or a kernel that contains the identity?

Zagoruyko & Komodakis 2017 (arXiv:1706.00388, DiracNet): a plain network whose kernels are
W = a I + b V / |V|, with learned a, b and V, trains about as well as a residual network, although
its graph has no skip connection. All networks have batch norms and the same depth. The network
"dirac start" has ordinary kernels that start as the identity: it shows what the start alone does.

    python -m experiments.reparameterise --workdir=runs/reparameterise
"""

from statistics import fmean

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import learned_nothing, relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import every, larger, no_worse
from resnet_jax.reporting import points

MARGIN = 0.05
ARMS = {
    "plain": {"skip": "none"},
    "residual": {"skip": "A"},
    "dirac": {"skip": "none", "model.dirac": True},
    "dirac-start": {"skip": "none", "model.kernel_start": "dirac"},
}


def plan(options: Options) -> list[Run]:
    """Return every arm at one depth. Raises: ValueError for several networks."""
    if len(options.networks) > 1:
        raise ValueError("the claim compares networks of one depth; give one network")
    return options.arms(ARMS, 5)


def judge(name: str, rows: list[Row]) -> Verdict:
    """Test whether the network `name` is better than plain and no worse than residual."""
    if idle := learned_nothing(where(rows, arm="residual")):
        return Verdict(None, idle)
    errors = {arm: sample(rows, "train_error", arm=arm) for arm in ARMS}
    test = every(
        larger(errors["plain"], errors[name], MARGIN),
        no_worse(errors[name], errors["residual"], MARGIN),
    )
    said = ", ".join(f"{arm.replace('-', ' ')} {fmean(of):.1%}" for arm, of in errors.items())
    return Verdict.of(test, f"Training errors: {said}.")


def kernels(rows: list[Row]) -> Verdict:
    """Test whether kernels that contain an identity replace the skip connection."""
    return judge("dirac", rows)


def start(rows: list[Row]) -> Verdict:
    """Test whether a start at the identity replaces the skip connection."""
    return judge("dirac-start", rows)


def control(rows: list[Row]) -> list[Row]:
    """Return the plain network in the place of both that begin with an identity."""
    plain = where(rows, arm="plain")
    others = [row for row in rows if row["arm"] in ("plain", "residual")]
    return others + [
        row for name in ("dirac", "dirac-start") for row in relabelled(plain, arm=name)
    ]


def training_error(rows: list[Row]):
    """Draw the training error of each network."""
    return points.by_group(rows, "train_error", ".0%")


RULE = (
    "the training error of the plain network exceeds that of the network {what} by more than 5 "
    "points, and the latter exceeds the residual network's by less than 5 points: one-sided Welch "
    "tests over seeds, p < 0.01 for both. Not decided if the residual network is at chance"
)
AGAINST = "the plain network, which learns V alone, in the place of the network {what}"
SOURCE = "Zagoruyko & Komodakis 2017, arXiv:1706.00388"
KERNELS, START = "with kernels W = a I + b V / |V|", "whose kernels start as the identity"
CLAIM = Claim(
    name="reparameterise",
    says="Residual learning is a re-parameterisation: a plain network whose kernels contain an "
    "identity trains as well as a residual network, without a skip connection in its graph.",
    source=SOURCE,
    rule=RULE.format(what=KERNELS),
    plan=plan,
    judge=kernels,
    depths=lambda dataset, full: (110,) if full else (56,),
    figures=(training_error,),
    control=control,
    against=AGAINST.format(what=KERNELS),
    further=(
        Statement(
            "identity_at_the_start",
            "The identity is needed at the start alone: a plain network whose ordinary kernels "
            "start as the identity trains as well as a residual network.",
            f"{SOURCE}, sec. 3 (they let the identity stay)",
            RULE.format(what=START),
            start,
            control,
            AGAINST.format(what=START),
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
