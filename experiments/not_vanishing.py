"""Vanishing gradients are not the cause of the degradation problem: norms deal with them.

He et al. 2015 (arXiv:1512.03385), sec. 4.1: "We argue that this optimization difficulty is unlikely
to be caused by vanishing gradients. These plain networks are trained with BN". `healthy_gradients`
asks whether they have the same size at any depth.

The measure is log10 |dE/dx_first| / |dE/dx_last|, at the inputs of the first and the last block,
with l2 norms over 64 training images that are normalised by their own statistics, as in training;
at the start, and after training. The plain networks are those of experiments/degradation.py.

    python -m experiments.not_vanishing --workdir=runs/not_vanishing --runs=runs/shared
"""

from statistics import fmean

import numpy as np
from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Verdict
from experiments.network import Network, opened
from experiments.plan import Options, Run
from experiments.results import Row, divergence, parameters, scores
from experiments.rows import by_depth, lacking, learned_nothing, where
from resnet_jax import command
from resnet_jax.analysis.norms import gradient_norms
from resnet_jax.analysis.statistics import above, every, rises
from resnet_jax.reporting import points

ERROR, DECADES = 0.05, 1.0  # margins
SMALLEST = 1e-30  # a ratio that float32 cannot tell from 0
TIMES = ("start", "end")
ARMS = {"plain": {"skip": "none"}, "resnet": {"skip": "A"}}
NORMLESS = {"plain-no-norm": {"skip": "none", "norm": "none"}}


def plan(options: Options) -> list[Run]:
    """Return plain and residual networks to train, and plain ones without norms at their start.

    Raises: ValueError for one depth.
    """
    options.refuse_one_depth()
    options.refuse_replicas()
    return options.arms(ARMS) + options.arms(NORMLESS, trained=False)


def measure(run: Run) -> list[Row]:
    """Return the scores, if the run was trained, and the decades at the start and at the end."""
    if run.trained and divergence(run):
        return scores(run)
    start = {"seed": run.config.seed, "parameters": parameters(run.config)}
    (row,) = scores(run) if run.trained else [start]
    networks = {"start": opened(run, seed=run.config.seed)}
    if run.trained:
        networks["end"] = opened(run)
    for time, network in networks.items():
        ratios = of_blocks(network)
        row |= {f"decades_{time}": float(np.log10(ratios[0])), f"ratios_{time}": ratios.tolist()}
    return [row]


def of_blocks(network: Network) -> np.ndarray:
    """Return the gradient's norm at the input of each block over the last one's."""
    norms = np.asarray(network.measured(gradients), np.float64)
    return np.clip(norms / max(norms[-1], SMALLEST), SMALLEST, 1 / SMALLEST)


def gradients(apply, variables, x, loss):
    """Return the gradient's norm at the input of each block, normalised by the batch."""
    return gradient_norms(apply, variables, x, loss, train=True)


def arrives(rows: list[Row]) -> Verdict:
    """Test whether no gradient vanishes in plain networks, and they degrade all the same."""
    errors = by_depth(rows, "train_error", arm="plain")
    shallowest = where(rows, arm="plain", depth=min(errors))
    if idle := lacking(where(rows, arm="plain"), "decades_end") or learned_nothing(shallowest):
        return Verdict(None, idle)
    sizes = [by_depth(rows, f"decades_{time}", arm="plain") for time in TIMES]
    large = [above(values, -DECADES) for of_depth in sizes for values in of_depth.values()]
    least = min(fmean(values) for of_depth in sizes for values in of_depth.values())
    said = ", ".join(f"{fmean(values):.1%} ({depth} layers)" for depth, values in errors.items())
    return Verdict.of(
        every(rises(errors, ERROR), *large),
        f"The gradient at the first block of plain networks is {10**least:.3g} of the last block's "
        f"or more, at the start and after training. Training errors: {said}.",
    )


def control(rows: list[Row]) -> list[Row]:
    """Return plain networks whose gradients are those of the networks without norms."""
    return [
        row | {key: bare[key.replace("end", "start")] for key in row if key.startswith("decades")}
        for bare in where(rows, arm="plain-no-norm")
        for row in where(rows, arm="plain", depth=bare["depth"], seed=bare["seed"])
    ]


def by_time(time: str, rows: list[Row]) -> Figure:
    """Draw the decades at the start or the end of training against the depth."""
    return points.figure(rows, "depth", f"decades_{time}", "+.1f")


def start(rows: list[Row]) -> Figure:
    """Draw the decades at the start."""
    return by_time("start", rows)


def end(rows: list[Row]) -> Figure:
    """Draw the decades after training."""
    return by_time("end", rows)


def by_block(rows: list[Row]) -> Figure:
    """Draw the gradient of each block of the deepest networks at the start, for the first seed."""
    chosen = {"depth": max(row["depth"] for row in rows), "seed": min(row["seed"] for row in rows)}
    label = "gradient over the last block's"
    return points.by_block(where(rows, **chosen), "ratios_start", label, log_y=True)


AGAINST = "the gradients of plain networks without norms, at their start, in the place of the own"
CLAIM = Claim(
    name="not_vanishing",
    says="The gradients of plain networks with batch norm do not vanish at any depth, and these "
    "networks degrade all the same.",
    source="He et al. 2015, arXiv:1512.03385, sec. 4.1",
    rule="the gradient's norm at the input of the first block is more than a tenth of that of the "
    "last, at each depth, at the start and after training, and the training error of the last "
    "epoch, as a line in log2(depth), rises by more than 5 points: one-sided t tests over seeds, p "
    "< 0.01 for each. Not decided if the shallowest plain network is at chance",
    plan=plan,
    measure=measure,
    judge=arrives,
    columns={"decades_start": "+.2f", "decades_end": "+.2f", "train_error": ".2%"},
    examples={"train": 64},
    depths=lambda dataset, full: (20, 56, 110) if full else (8, 20, 56),
    figures=(start, end, by_block),
    control=control,
    against=AGAINST,
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
