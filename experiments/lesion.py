"""Lesions: a trained residual network loses little without one block, a plain network much.

Veit et al. 2016 (arXiv:1605.06431), sec. 4: deleting one block of a trained ResNet-110 leaves its
error nearly what it was (Fig. 3), and deleting one layer of VGG brings it to chance. A deleted
block passes its input on: the body's output is 0 in a residual network, and the whole block is left
out of a plain one. Blocks that change the shape cannot be left out of a plain network, and are kept
in both. The networks have 32 layers without --full, because a plain network of 56 layers learns too
little on digits to lose. `lesions_add_up` deletes several blocks at once.

    python -m experiments.lesion --workdir=runs/lesion
"""

from collections.abc import Sequence
from functools import partial
from statistics import fmean

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Verdict
from experiments.network import Network, opened
from experiments.plan import Options, Run
from experiments.results import Row, divergence, scores
from experiments.rows import lacking, learned_nothing, relabelled, sample, where
from resnet_jax import command, families
from resnet_jax.analysis.lesions import deletable, lesions
from resnet_jax.analysis.observe import blocks_of
from resnet_jax.analysis.statistics import every, larger, no_worse
from resnet_jax.reporting import points

ARMS = {"plain": {"skip": "none"}, "resnet": {"skip": "A"}}
SMALL, LARGE = 0.05, 0.2


def plan(options: Options, fewest: int = 2) -> list[Run]:
    """Return a plain and a residual network.

    Raises: ValueError for several networks, and if fewer than `fewest` blocks keep the shape.
    """
    options.refuse_several()
    options.refuse_replicas()
    runs = options.arms(ARMS)
    config = runs[0].config
    image = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.float32)
    blocks = blocks_of(families.build(config).apply, families.shapes(config), image)
    if (count := len(deletable(blocks))) < fewest:
        raise ValueError(
            f"{runs[0].model}: {count} of its blocks keep the shape; the claim needs "
            f"{fewest} or more; use a deeper network, such as --models=resnet:26"
        )
    return runs


def measure(run: Run) -> list[Row]:
    """Return the test error of the network, and without each block that can be left out."""
    (row,) = scores(run)
    if divergence(run):
        return [row]
    network = opened(run, examples=256, split="test")
    chosen = deletable(blocks_of(network.net.apply, network.variables, network.x))
    whole, *single = errors_without(network, [[], *([block] for block in chosen)]).tolist()
    return [row | {"whole_error": whole, "lesion_error": fmean(single), "lesion_errors": single}]


def errors_without(network: Network, sets: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the error of the batch without each set of blocks."""
    blocks = len(blocks_of(network.net.apply, network.variables, network.x))
    masks = np.ones((len(sets), blocks), np.float32)
    for mask, off in zip(masks, sets, strict=True):
        mask[list(off)] = 0
    return np.asarray(jax.jit(partial(errors_of, network))(jnp.asarray(masks)))


def errors_of(network: Network, masks: jax.Array) -> jax.Array:
    """Return the error of the batch under each mask of kept blocks."""
    wrong = partial(error_of, network)
    part = "block" if network.config.model.skip == "none" else "body"
    return lesions(network.net.apply, network.variables, network.x, wrong, masks, part=part)


def error_of(network: Network, output: jax.Array) -> jax.Array:
    """Return the share of the batch that an output has wrong."""
    return (output.argmax(-1) != network.batch.target).mean()


def judge(rows: list[Row]) -> Verdict:
    """Test whether one lesion costs the residual network little, and the plain one much."""
    return costs(rows, "lesion_error", SMALL, "Without one block")


def costs(rows: list[Row], column: str, small: float, when: str) -> Verdict:
    """Test whether damage costs a residual network less than `small`, and a plain one over LARGE.

    The cost is what the error in `column` exceeds the whole network's error by, paired by seed.
    """
    own = where(rows, arm="resnet")
    if idle := lacking(rows, column) or learned_nothing(own):
        return Verdict(None, idle)
    of = lambda column, arm: sample(rows, column, arm=arm)
    plain = of("whole_error", "plain")
    if fmean(plain) > own[0]["chance_error"] - LARGE:
        return Verdict(None, f"A plain error of {fmean(plain):.1%} cannot rise by {LARGE:.0%}.")
    test = every(
        no_worse(of(column, "resnet"), of("whole_error", "resnet"), small, paired=True),
        larger(of(column, "plain"), plain, LARGE, paired=True),
    )
    ends = lambda name: (
        f"from {fmean(of('whole_error', name)):.1%} to {fmean(of(column, name)):.1%}"
    )
    return Verdict.of(
        test,
        f"{when} the test error goes {ends('resnet')} in residual networks and {ends('plain')} in "
        "plain ones, on average.",
    )


def control(rows: list[Row]) -> list[Row]:
    """Return the plain networks in the place of the residual ones."""
    plain = where(rows, arm="plain")
    return plain + relabelled(plain, arm="resnet")


def by_block(rows: list[Row]) -> Figure:
    """Draw the test error without each block, for the first seed."""
    first = min(row["seed"] for row in rows)
    return points.by_block(where(rows, seed=first), "lesion_errors", "test error without it")


AGAINST = "the plain networks in the place of the residual ones"
CLAIM = Claim(
    name="lesion",
    says="A trained residual network loses little, on average, if one of its blocks is deleted; a "
    "plain network loses much.",
    source="Veit et al. 2016, arXiv:1605.06431, Fig. 3",
    rule="the mean test error over the deletions of one block exceeds that of the whole network by "
    "less than 5 points in residual networks, and by more than 20 points in plain networks, paired "
    "by seed: one-sided t tests, p < 0.01 for both. Blocks that change the shape stay. Not decided "
    "if the residual network is at chance, or the plain one within 20 points of it",
    plan=plan,
    measure=measure,
    judge=judge,
    columns={"whole_error": ".1%", "lesion_error": ".1%"},
    examples={"test": 256},
    depths=lambda dataset, full: (110,) if full else (32,),
    figures=(by_block,),
    control=control,
    against=AGAINST,
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
