"""The error of a residual network grows with the number of deleted blocks.

Veit et al. 2016 (arXiv:1605.06431), sec. 4 and Fig. 5 (a), delete sets of random blocks of a
trained ResNet-110. Here 1, 2, 4 and 8 blocks are deleted, 16 random sets of each size, in the
networks of `lesion`.

    python -m experiments.lesions_add_up --workdir=runs/lesions_add_up
"""

from statistics import fmean

import numpy as np
from matplotlib.figure import Figure

from experiments import claim, lesion
from experiments.claim import Claim, Verdict
from experiments.network import opened
from experiments.plan import Options, Run
from experiments.results import Row, divergence, scores
from experiments.rows import lacking, learned_nothing, where
from resnet_jax import command
from resnet_jax.analysis.lesions import deletable
from resnet_jax.analysis.observe import blocks_of
from resnet_jax.analysis.statistics import every, larger, no_worse
from resnet_jax.reporting import points

DELETED = (1, 2, 4, 8)
SETS = 16  # random sets of blocks for each number of deleted blocks


def plan(options: Options) -> list[Run]:
    """Return a plain and a residual network. Raises: ValueError for several, and for few blocks."""
    return lesion.plan(options, max(DELETED))


def measure(run: Run) -> list[Row]:
    """Return the mean test error without 1, 2, 4 and 8 random blocks."""
    (row,) = scores(run)
    if divergence(run):
        return [row]
    network = opened(run, examples=256, split="test")
    chosen = deletable(blocks_of(network.net.apply, network.variables, network.x))
    random = np.random.default_rng(run.config.seed)
    draw = lambda count: random.choice(chosen, count, replace=False).tolist()
    sets = [draw(count) for count in DELETED for _ in range(SETS)]
    means = lesion.errors_without(network, sets).reshape(len(DELETED), SETS).mean(1)
    return [row | {f"without_{n}": float(mean) for n, mean in zip(DELETED, means, strict=True)}]


def judge(rows: list[Row]) -> Verdict:
    """Test whether each doubling of the deleted blocks raises the error, to 8, below chance."""
    own = where(rows, arm="resnet")
    if idle := lacking(own, f"without_{DELETED[0]}") or learned_nothing(own):
        return Verdict(None, idle)
    columns = [[row[f"without_{count}"] for row in own] for count in DELETED]
    chance = [row["chance_error"] - 0.1 for row in own]
    steps = zip(columns[1:], columns, strict=False)
    test = every(
        *(larger(more, fewer, 0.0, paired=True) for more, fewer in steps),
        no_worse(columns[-1], chance, 0.0, paired=True),
    )
    said = ", ".join(f"{fmean(c):.1%} without {n}" for n, c in zip(DELETED, columns, strict=True))
    return Verdict.of(test, f"The test error of residual networks is {said} blocks.")


def by_count(rows: list[Row]) -> Figure:
    """Draw the test error against the number of deleted blocks."""
    shown = [
        row | {"deleted blocks": count, "test error": row.get(f"without_{count}")}
        for row in rows
        for count in DELETED
    ]
    return points.figure(shown, "deleted blocks", "test error", ".0%")


CLAIM = Claim(
    name="lesions_add_up",
    says="The error of a residual network grows with the number of deleted blocks, and is still "
    "far below chance with 8 of them.",
    source="Veit et al. 2016, arXiv:1605.06431, Fig. 5 (a)",
    rule="each doubling of the number of deleted blocks, from 1 to 8 random ones, raises the "
    "mean test error, and with 8 it is more than 10 points below chance: one-sided t "
    "tests paired by seed, p < 0.01 for each. Not decided if the network is at chance",
    plan=plan,
    measure=measure,
    judge=judge,
    columns={f"without_{count}": ".1%" for count in DELETED},
    examples=lesion.CLAIM.examples,
    depths=lesion.CLAIM.depths,
    figures=(by_count,),
    control=lesion.control,
    against=lesion.AGAINST,
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
