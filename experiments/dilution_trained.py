"""Training leaves a signal its direct way from any layer to any deeper one.

`dilution` measures, at the start, which share |x_l| / |x_L| of a stage's output x_L the output x_l
of an earlier block is (He et al. 2016, arXiv:1603.05027, eq. 4). Here the same shares are measured
in trained networks of pre-activation blocks. Training may enlarge the bodies, which dilutes the
signal, or shrink them.

    python -m experiments.dilution_trained --workdir=runs/dilution_trained
"""

from experiments import claim, dilution
from experiments.claim import Claim, Verdict
from experiments.plan import Options, Run
from experiments.results import Row, divergence, scores
from experiments.rows import lacking, learned_nothing, where
from resnet_jax import command


def plan(options: Options) -> list[Run]:
    """Return the networks of `dilution`, trained. Raises: ValueError as its plan does."""
    options.refuse_replicas()
    return [run._replace(trained=True) for run in dilution.plan(options)]


def measure(run: Run) -> list[Row]:
    """Return the scores, and the shares of `dilution` in the trained network."""
    (row,) = scores(run)
    return [row] if divergence(run) else [row | dilution.measure(run)[0]]


def direct(rows: list[Row]) -> Verdict:
    """Apply the rule of `dilution`, if the networks have learned something."""
    own = where(rows, arm="identity")
    if idle := lacking(own, "share") or learned_nothing(own):
        return Verdict(None, idle)
    return dilution.direct(rows)


def control(rows: list[Row]) -> list[Row]:
    """Return the networks with gains of 0.5, as identities, at the depths at which they trained."""
    halved = dilution.halved(rows)
    depths = sorted({row["depth"] for row in halved})
    own = [where(halved, depth=depth) for depth in depths]
    return [row for of_depth in own if not learned_nothing(of_depth) for row in of_depth]


CLAIM = Claim(
    name="dilution_trained",
    says="In a trained network a signal is sent directly from any layer to any deeper one: its "
    "share in the sum falls as a power of the depth, and not exponentially.",
    source="He et al. 2016, arXiv:1603.05027, eq. 4 to 7",
    rule=dilution.RULE.format(when="after training") + ". Not decided if a network is at chance",
    plan=plan,
    measure=measure,
    judge=direct,
    columns={"train_error": ".2%", "test_error": ".2%", "share": ".3g", "of_equal_share": ".2f"},
    examples={"train": 64},
    depths=lambda dataset, full: (20, 56, 110),
    figures=(dilution.share, dilution.by_block),
    control=control,
    against=f"{dilution.AGAINST}, at the depths at which they trained",
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
