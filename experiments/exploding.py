"""With batch norm gradients do not vanish but explode with depth in plain networks.

Yang et al. 2019 (arXiv:1902.08129) prove that batch norm makes the gradients of plain networks grow
by a factor of about 1.2 for each ReLU layer at the start. The networks and the measure are those of
`vanishing`: log10 of the gradient's norm at the input of the first block over that at the last.
Networks with batch norm start from fan-out, which makes no difference to them, and are normalised
by the batch of 64 images, as in the first step of training.

    python -m experiments.exploding --workdir=runs/exploding
"""

from functools import partial

from experiments import claim, vanishing
from experiments.claim import Claim, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from resnet_jax import command
from resnet_jax.analysis.statistics import every, interaction, rises

ARMS = {"plain": {"skip": "none"}, "resnet": {"skip": "A"}}


def plan(options: Options) -> list[Run]:
    """Return both networks at every depth, untrained.

    Raises: ValueError for one depth.
    """
    options.refuse_one_depth()
    return options.arms(ARMS, 5, trained=False)


def judge(rows: list[Row]) -> Verdict:
    """Test whether gradients grow with depth in plain networks with norms, and less with skips."""
    plain, residual = (vanishing.of(rows, arm, "he") for arm in ARMS)
    return Verdict.of(
        every(rises(plain, vanishing.MARGIN), interaction(plain, residual, vanishing.MARGIN)),
        f"Decades with batch norm: plain {vanishing.ends(rows, 'plain', 'he')}, residual "
        f"{vanishing.ends(rows, 'resnet', 'he')}.",
    )


CLAIM = Claim(
    name="exploding",
    says="With batch norm gradients do not vanish but explode with depth in plain networks, and "
    "less in residual ones.",
    source="Yang et al. 2019, arXiv:1902.08129",
    rule=f"with batch norm, {vanishing.SIZE}rises by more than 1 decade in plain networks, and by "
    "more than 1 decade more than in residual networks of the same seed: one-sided t tests over "
    "seeds, p < 0.01 for both",
    plan=plan,
    measure=partial(vanishing.measure, starts={"he": 1.0}),
    judge=judge,
    kind="init",
    columns={"decades_he": "+.2f"},
    depths=vanishing.CLAIM.depths,
    figures=(vanishing.he, vanishing.by_block),
    control=vanishing.control,
    against=vanishing.AGAINST,
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
