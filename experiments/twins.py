"""Plain and residual twins: two networks of each depth that differ in the skip connection alone.

The plain twin of a residual network has no skip connections and as many parameters, if the
shortcuts have none (option A, which CIFAR's networks and imagenet_18_34.py have); projections are
left out of it. The plain twin of a highway network has no gates, and wider layers instead.
"""

from collections.abc import Sequence

from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import where, with_other_seeds
from resnet_jax.families import FAMILIES

# What `residual_for_plain` makes, in words.
AGAINST = "the residual networks in the place of the plain ones"


def runs(options: Options, seeds: int) -> list[Run]:
    """Return a plain and a residual network of each depth, with `seeds` seeds without --seeds.

    The residual network has the recipe's skip, or A if the recipe's network is plain. The seeds are
    the outermost loop, so that n grows evenly.
    Raises: ValueError for a family that has no twin.
    """
    if options.switches.get("skip") == "none":
        raise ValueError("skip=none is the plain twin, which is trained anyway; use skip=A or B")
    own = {network: options.config(network).model.skip for network in options.networks}
    skips = {network: ("none", "A" if skip == "none" else skip) for network, skip in own.items()}
    return [
        options.run(f"{arm}-{network[1]}", network, seed, arm=arm, switches={"skip": skip})
        for seed in options.seeds(seeds)
        for network in options.networks
        for arm, skip in zip(arms(network[0]), skips[network], strict=True)
    ]


def arms(family: str) -> tuple[str, str]:
    """Return what the plain and the residual networks of a family are called.

    A family that was published without skip connections (VGG) has a residual twin of ours.
    """
    known = FAMILIES.get(family)
    residual = f"residual-{family}" if known is not None and known.plain else family
    return ("plain" if family == "resnet" else f"plain-{family}"), residual


def pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the names of the plain and the residual networks of each family in the rows."""
    named = {row["arm"] for row in rows}
    return [pair for pair in map(arms, FAMILIES) if named & set(pair)]


def residual_for_plain(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the residual networks, and those of other seeds as the plain twins'.

    In this control the skip connection has no effect, because both arms have it.
    """
    return [
        row
        for plain, residual in pairs(rows)
        for row in (
            *with_other_seeds(where(rows, arm=residual), arm=plain),
            *where(rows, arm=residual),
        )
    ]
