"""The gradients of plain networks with batch norm are healthy: alike in all blocks, at any depth.

He et al. 2015 (arXiv:1512.03385), sec. 4.1: "We also verify that the backward propagated gradients
exhibit healthy norms with BN." They show no numbers. Yang et al. 2019 (arXiv:1902.08129) prove that
batch norm makes the gradients of plain networks explode with depth at the start: by a factor of
about 1.2 for each ReLU layer. So the first statement is expected to be false. The networks and the
measure are those of `not_vanishing`.

    python -m experiments.healthy_gradients --workdir=runs/healthy_gradients --runs=runs/shared
"""

from functools import partial
from statistics import fmean

from experiments import claim, not_vanishing
from experiments.claim import Claim, Statement, Verdict
from experiments.not_vanishing import DECADES
from experiments.results import Row
from experiments.rows import by_depth, lacking, learned_nothing, where
from resnet_jax import command
from resnet_jax.analysis.statistics import above, every, no_rise, opposite


def healthy(time: str, rows: list[Row]) -> Verdict:
    """Test whether the gradients of plain networks are alike in all blocks, at every depth."""
    own = where(rows, arm="plain")
    if idle := lacking(own, f"decades_{time}") or (time == "end" and learned_nothing(own)):
        return Verdict(None, idle)
    sizes = by_depth(rows, f"decades_{time}", arm="plain")
    falls = {depth: [-value for value in values] for depth, values in sizes.items()}
    ends = [values for both in (sizes, falls) for values in both.values()]
    said = ", ".join(f"{10 ** fmean(of):.3g} ({depth} layers)" for depth, of in sizes.items())
    return Verdict.of(
        every(
            *(opposite(above(values, DECADES)) for values in ends),
            *(no_rise(of_depth, DECADES) for of_depth in (sizes, falls)),
        ),
        f"The gradient at the first block of plain networks over that at the last: {said}.",
    )


SOURCE = "He et al. 2015, arXiv:1512.03385, sec. 4.1; against it Yang et al. 2019, arXiv:1902.08129"
HEALTHY = (
    "the logarithm to base 10 of the gradient's norm at the input of the first block over that of "
    "the last, in plain networks with batch norm {time}, lies between -1 and 1 at each depth, and "
    "as a line in log2(depth) through all depths for each seed neither rises nor falls by 1 decade "
    "over the depths: one-sided t tests over seeds, p < 0.01 for each"
)
CLAIM = Claim(
    name="healthy_gradients",
    says="The gradients of plain networks with batch norm are healthy at the start.",
    source=SOURCE,
    rule=HEALTHY.format(time="at the start"),
    plan=not_vanishing.plan,
    measure=not_vanishing.measure,
    judge=partial(healthy, "start"),
    columns={"decades_start": "+.2f", "decades_end": "+.2f", "train_error": ".2%"},
    examples=not_vanishing.CLAIM.examples,
    depths=not_vanishing.CLAIM.depths,
    figures=(not_vanishing.start, not_vanishing.end),
    control=not_vanishing.control,
    against=not_vanishing.AGAINST,
    further=(
        Statement(
            "healthy_after_training",
            "The gradients of plain networks with batch norm are healthy after training.",
            SOURCE,
            f"{HEALTHY.format(time='after training')}. Not decided if a plain network is at chance",
            partial(healthy, "end"),
            not_vanishing.control,
            not_vanishing.AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
