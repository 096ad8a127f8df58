"""Blocks in another order: a residual network loses little, a plain network much.

Veit et al. 2016 (arXiv:1605.06431), sec. 4.3 and Fig. 5 (b): the error of a trained ResNet-110
grows smoothly with the disorder of its blocks, as Kendall's tau measures it. Here two random blocks
of one stage change places, because blocks that change places must have one shape. The networks are
those of `lesion`.

    python -m experiments.reorder --workdir=runs/reorder
"""

from functools import partial
from statistics import fmean
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments import claim, lesion
from experiments.claim import Claim
from experiments.network import Network, opened
from experiments.plan import Options, Run
from experiments.results import Row, divergence, scores
from resnet_jax import command, families
from resnet_jax.analysis.lesions import permuted, swapped
from resnet_jax.reporting import points

SMALL, DRAWS = 0.1, 16


def plan(options: Options) -> list[Run]:
    """Return the networks of `lesion`.

    Raises: ValueError as its plan does, and for a network without two equal blocks in a stage.
    """
    runs = lesion.plan(options)
    if not stacks(families.shapes(runs[0].config)["params"]):
        raise ValueError(
            f"{runs[0].model}: no stage has two equal blocks that could change places; use a "
            "deeper network, such as --models=resnet:26"
        )
    return runs


def stacks(params: Any) -> dict[str, int]:
    """Return the number of layers of each Stack of two or more, by its name."""
    layers = {
        name: jax.tree.leaves(own["layers"])[0].shape[0]
        for name, own in params.items()
        if "layers" in own
    }
    return {name: depth for name, depth in layers.items() if depth > 1}


def measure(run: Run) -> list[Row]:
    """Return the test error of the network, and its mean over DRAWS exchanges of two blocks."""
    (row,) = scores(run)
    if divergence(run):
        return [row]
    network = opened(run, examples=256, split="test")
    whole, *errors = errors_of(network)
    return [row | {"whole_error": whole, "swap_error": fmean(errors), "swap_errors": errors}]


def errors_of(network: Network) -> list[float]:
    """Return the error of the batch, and those after each of DRAWS exchanges of two blocks.

    Each exchange is of two layers of a Stack, which is drawn first.
    """
    layers = stacks(network.variables["params"])
    error = jax.jit(
        lambda variables: lesion.error_of(network, network.net.apply(variables, network.x))
    )
    seed, errors = network.config.seed, [float(error(network.variables))]
    random = np.random.default_rng(seed)
    for key in jax.random.split(jax.random.key(seed), DRAWS):
        name = list(layers)[random.integers(len(layers))]
        order = swapped(key, layers[name], 1)
        errors.append(float(error(permuted(network.variables, (name,), order))))
    return errors


def swaps(rows: list[Row]) -> Figure:
    """Draw the mean error after an exchange of two blocks."""
    return points.by_group(rows, "swap_error", ".0%")


CLAIM = Claim(
    name="reorder",
    says="A trained residual network loses little, on average, if two of its blocks change places; "
    "a plain network loses much.",
    source="Veit et al. 2016, arXiv:1605.06431, sec. 4.3 and Fig. 5 (b)",
    rule="the mean test error over 16 exchanges of two random blocks of one stage exceeds that of "
    "the whole network by less than 10 points in residual networks, and by more than 20 points in "
    "plain networks, paired by seed: one-sided t tests, p < 0.01 for both. Not decided if the "
    "residual network is at chance, or the plain one within 20 points of it",
    plan=plan,
    measure=measure,
    judge=partial(
        lesion.costs, column="swap_error", small=SMALL, when="If two blocks change places"
    ),
    columns={"whole_error": ".1%", "swap_error": ".1%"},
    examples=lesion.CLAIM.examples,
    depths=lesion.CLAIM.depths,
    figures=(swaps,),
    control=lesion.control,
    against=lesion.AGAINST,
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
