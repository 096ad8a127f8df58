"""Depth makes the loss surface rougher without skip connections, and less so with them.

Li et al. 2018 (arXiv:1712.09913), Fig. 5: the surface of a plain network of 20 layers is a bowl,
and that of a plain network of 56 layers is chaotic; with skip connections depth changes little. The
measure is that of `loss_landscape`, with the batch's statistics: with running statistics a trend
over depth is that of the distance from the statistics, too.

    python -m experiments.depth_roughens --workdir=runs/depth_roughens --runs=runs/shared
"""

from statistics import fmean

from matplotlib.figure import Figure

from experiments import claim, loss_landscape
from experiments.claim import Claim, Verdict
from experiments.results import Row
from experiments.rows import by_depth, lacking, unfitted
from resnet_jax import command
from resnet_jax.analysis.statistics import every, interaction, rises
from resnet_jax.reporting import points


def judge(rows: list[Row]) -> Verdict:
    """Test whether depth roughens the surface of plain networks more than of residual ones."""
    deepest = max(row["depth"] for row in rows)
    if idle := lacking(rows, "log_rise_batch") or unfitted(rows, loss_landscape.FITTED):
        return Verdict(None, idle)
    plain, residual = (by_depth(rows, "log_rise_batch", arm=name) for name in loss_landscape.ARMS)
    ends = [
        f"{10 ** (fmean(arm[deepest]) - fmean(arm[min(arm)])):.2g} in {name} networks"
        for name, arm in (("plain", plain), ("residual", residual))
    ]
    return Verdict.of(
        every(rises(plain, 0.0), interaction(plain, residual, loss_landscape.FACTOR)),
        f"From the shallowest to the deepest the rise of the loss is multiplied by {ends[0]} and "
        f"by {ends[1]}.",
    )


def rise(rows: list[Row]) -> Figure:
    """Draw the rise of the loss against the depth."""
    return points.figure(rows, "depth", "rise_batch", log_y=True)


CLAIM = Claim(
    name="depth_roughens",
    says="Depth makes the loss rise more along random directions without skip connections, and "
    "by more than with them.",
    source=loss_landscape.LI + "Fig. 5",
    rule="the rise of the loss at a distance of 0.25, with the batch's statistics, as a line in "
    "log2(depth), grows over the depths in plain networks, and is multiplied by more than twice as "
    "much as in residual networks of the same seed, "
    + loss_landscape.TESTS.format("t tests", " for both"),
    plan=loss_landscape.plan,
    measure=loss_landscape.measure,
    judge=judge,
    columns={"rise_batch": ".3g", "train_error": ".2%"},
    examples=loss_landscape.CLAIM.examples,
    depths=lambda dataset, full: (20, 56, 110) if full else (8, 32),
    figures=(rise,),
    control=loss_landscape.control,
    against=loss_landscape.AGAINST,
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
