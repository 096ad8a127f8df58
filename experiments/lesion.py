"""Lesions: a trained residual network loses little without one block, a plain network much.

Veit et al. 2016 (arXiv:1605.06431), sec. 4: deleting one block of a trained ResNet-110 leaves its
error nearly what it was (Fig. 3), deleting one layer of VGG brings it to chance, and the error
grows smoothly with the number of deleted blocks (Fig. 5). A deleted block passes its input on: the
body's output is 0 in a residual network, and the whole block is left out of a plain one. Blocks
that change the shape cannot be left out of a plain network, and are kept in both. The networks have
32 layers without --full, because a plain network of 56 layers learns too little on digits to lose.

    python -m experiments.lesion --workdir=runs/lesion
"""

import functools
from statistics import fmean

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
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
DELETED = (1, 2, 4, 8)
SETS = 16  # random sets of blocks for each number of deleted blocks


def plan(options: Options) -> list[Run]:
    """Return a plain and a residual network. Raises: ValueError for several, and for few blocks."""
    options.refuse_several()
    options.refuse_replicas()
    runs = options.arms(ARMS)
    config = runs[0].config
    image = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.float32)
    blocks = blocks_of(families.build(config).apply, families.shapes(config), image)
    if (count := len(deletable(blocks))) < max(DELETED):
        raise ValueError(
            f"{runs[0].model}: {count} of its blocks keep the shape; the claim deletes up to "
            f"{max(DELETED)}; use a deeper network, such as --models=resnet:26"
        )
    return runs


def measure(run: Run) -> list[Row]:
    """Return the test error without each block, and without random sets of blocks."""
    if divergence(run):
        return scores(run)
    network = opened(run, examples=256, split="test")
    blocks = blocks_of(network.net.apply, network.variables, network.x)
    chosen = np.array(deletable(blocks))
    random = np.random.default_rng(0)
    sets = [random.choice(chosen, count, replace=False) for count in DELETED for _ in range(SETS)]
    masks = np.ones((len(chosen) + len(sets) + 1, len(blocks)), np.float32)
    for mask, off in zip(masks[1:], [*chosen[:, None], *sets], strict=True):
        mask[off] = 0
    errors = np.asarray(jax.jit(lambda masks: errors_of(network, masks))(jnp.asarray(masks)))
    whole, single, several = np.split(errors, [1, 1 + len(chosen)])
    (row,) = scores(run)
    return [
        row
        | {
            "whole_error": float(whole[0]),
            "lesion_error": float(single.mean()),
            "lesion_errors": single.tolist(),
            **{
                f"without_{count}": float(of.mean())
                for count, of in zip(DELETED, several.reshape(len(DELETED), SETS), strict=True)
            },
        }
    ]


def errors_of(network: Network, masks: jax.Array) -> jax.Array:
    """Return the error of the batch under each mask of kept blocks."""
    wrong = functools.partial(error_of, network)
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
    own = where(rows, family="resnet")
    if idle := lacking(rows, column) or learned_nothing(own):
        return Verdict(None, idle)
    of = lambda column, family: sample(rows, column, family=family)
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


def graceful(rows: list[Row]) -> Verdict:
    """Test whether each doubling of the deleted blocks raises the error, to 8, below chance."""
    own = where(rows, family="resnet")
    if idle := lacking(own, "lesion_error") or learned_nothing(own):
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


def control(rows: list[Row]) -> list[Row]:
    """Return the plain networks in the place of the residual ones."""
    plain = where(rows, family="plain")
    return plain + relabelled(plain, family="resnet")


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
    columns={
        "whole_error": ".1%",
        "lesion_error": ".1%",
        **{f"without_{count}": ".1%" for count in DELETED},
    },
    depths=lambda dataset, full: (110,) if full else (32,),
    figures=(by_block,),
    control=control,
    against=AGAINST,
    further=(
        Statement(
            "lesions_add_up",
            "The error of a residual network grows smoothly with the number of deleted blocks.",
            "Veit et al. 2016, arXiv:1605.06431, Fig. 5 (a)",
            "each doubling of the number of deleted blocks, from 1 to 8 random ones, raises the "
            "mean test error, and with 8 it is more than 10 points below chance: one-sided t "
            "tests paired by seed, p < 0.01 for each. Not decided if the network is at chance",
            graceful,
            control,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
