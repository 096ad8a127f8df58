"""Layers of a residual network learn small corrections, and smaller ones the deeper it is.

He et al. 2015 (arXiv:1512.03385), Fig. 7: on CIFAR-10 the standard deviations of the responses of
each layer, after its norm and before the ReLU or the addition, are smaller in residual than in
plain networks, and smaller in ResNet-110 than in ResNet-56 and ResNet-20. Here each body has one
number, that of its last layer, on training images and with the statistics of the batch. After a
norm it is mostly the norm's scale, which starts at 1 and moves little in a few hundred steps.

    python -m experiments.layer_responses --workdir=runs/layer_responses
"""

from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.network import opened
from experiments.plan import Options, Run
from experiments.results import Row, divergence, scores
from experiments.rows import by_depth, lacking, learned_nothing, relabelled, where
from resnet_jax import command
from resnet_jax.analysis.norms import responses
from resnet_jax.analysis.statistics import every, larger, opposite, rises
from resnet_jax.reporting import points

MARGIN = 0.1
ARMS = {"plain": {"skip": "none"}, "resnet": {"skip": "A"}}


def plan(options: Options) -> list[Run]:
    """Return a plain and a residual network of every depth. Raises: ValueError for one depth."""
    options.refuse_one_depth()
    options.refuse_replicas()
    return options.arms(ARMS)


def measure(run: Run) -> list[Row]:
    """Return the standard deviation of each body's output, and their mean over the blocks."""
    if divergence(run):
        return scores(run)
    of_blocks = np.asarray(opened(run).measured(of_bodies))
    (row,) = scores(run)
    return [row | {"response": float(of_blocks.mean()), "responses": of_blocks.tolist()}]


def of_bodies(apply: Any, variables: Any, x: Any, loss: Any) -> Any:
    """Return the responses with the statistics of the batch."""
    return responses(apply, variables, x, train=True)


def smaller(rows: list[Row]) -> Verdict:
    """Test whether the bodies of residual networks respond less, at each depth."""
    if idle := lacking(rows, "response") or learned_nothing(rows):
        return Verdict(None, idle)
    plain, residual = (by_depth(rows, "response", arm=name) for name in ARMS)
    logs = lambda values: np.log2(values).tolist()
    margin = float(np.log2(1 + MARGIN))
    test = every(*(larger(logs(plain[d]), logs(residual[d]), margin) for d in plain))
    return Verdict.of(
        test, f"Mean deviations: {told(plain, 'plain')}; {told(residual, 'residual')}."
    )


def told(arm: dict[int, list[float]], name: str) -> str:
    """Return the mean responses of an arm in words."""
    return f"{name} " + ", ".join(f"{fmean(arm[depth]):.3g} ({depth} layers)" for depth in arm)


def shrink(rows: list[Row]) -> Verdict:
    """Test whether the responses of residual networks fall with depth."""
    own = where(rows, arm="resnet")
    if idle := lacking(own, "response") or learned_nothing(own):
        return Verdict(None, idle)
    residual = by_depth(own, "response")
    logs = {depth: np.log2(values).tolist() for depth, values in residual.items()}
    test = opposite(rises(logs, 0.0))
    said = f"Mean deviations of {told(residual, 'residual networks')}; a factor of "
    return Verdict.of(test, f"{said}{2**test.effect:.2f} from the shallowest to the deepest.")


def plain_again(rows: list[Row]) -> list[Row]:
    """Return the plain networks in the place of the residual ones."""
    plain = where(rows, arm="plain")
    return plain + relabelled(plain, arm="resnet")


def one_depth(rows: list[Row]) -> list[Row]:
    """Return the shallowest networks in the place of all."""
    shallowest = where(rows, depth=min(row["depth"] for row in rows))
    return [
        copy
        for depth in {row["depth"] for row in rows}
        for copy in relabelled(shallowest, depth=depth)
    ]


def response(rows: list[Row]) -> Figure:
    """Draw the mean response against the depth."""
    return points.figure(rows, "depth", "response")


def by_layer(rows: list[Row]) -> Figure:
    """Draw the response of each block of the first seed."""
    first = min(row["seed"] for row in rows)
    return points.by_block(where(rows, seed=first), "responses", "deviation of the body's output")


CLAIM = Claim(
    name="layer_responses",
    says="The layers of residual networks respond less than those of plain networks: they learn "
    "corrections.",
    source="He et al. 2015, arXiv:1512.03385, Fig. 7",
    rule="the standard deviation of a body's output, after its norm and before the sum, averaged "
    "over the blocks of a trained network, is larger by more than 10 % in plain than in residual "
    "networks at each depth: one-sided Welch tests over seeds, p < 0.01 for each. Not decided if a "
    "network is at chance",
    plan=plan,
    measure=measure,
    judge=smaller,
    columns={"response": ".3f", "train_error": ".2%"},
    examples={"train": 64},
    depths=lambda dataset, full: (20, 56, 110) if full else (8, 20, 56),
    figures=(response, by_layer),
    control=plain_again,
    against="the plain networks in the place of the residual ones",
    further=(
        Statement(
            "corrections_shrink",
            "The deeper a residual network, the smaller are the responses of its layers.",
            "He et al. 2015, arXiv:1512.03385, Fig. 7",
            "the logarithm of the mean response, as a line in log2(depth) through all depths for "
            "each seed, falls: one-sided t test over seeds, p < 0.01. Not decided if a residual "
            "network is at chance",
            shrink,
            one_depth,
            "the shallowest networks in the place of all",
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
