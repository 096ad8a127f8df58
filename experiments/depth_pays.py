"""Depth pays: more layers give a lower test error, and past some depth they do not.

He et al. 2015 (arXiv:1512.03385), Table 6: on CIFAR-10 the test error falls from 8.75 % with 20
layers to 6.61 % with 110, and is 7.93 % again with 1202. Networks of several families are compared
by their depths alone, under one recipe; `best_rates` gives each the best of three rates.

    python -m experiments.depth_pays --workdir=runs/depth_pays
    python -m experiments.depth_pays --models=alexnet:8,vgg:11,vgg:16 --dataset=cifar10 \
        --data_dir=DIR --workdir=DIR
"""

from collections import Counter
from statistics import fmean

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import by_depth, learned_nothing, relabelled, where
from resnet_jax import command
from resnet_jax.analysis.statistics import every, no_rise, no_worse, opposite
from resnet_jax.reporting import points

MARGIN = 0.01


def depths(dataset: str, full: bool) -> tuple[int, ...]:
    """Return the depths of the paper's Table 6, or few enough for minutes."""
    return (20, 32, 44, 56, 110, 1202) if full else (8, 20, 56, 110)


def plan(options: Options) -> list[Run]:
    """Return the networks, five seeds of each.

    Raises: ValueError for one depth, and for two networks of the same depth.
    """
    times = Counter(depth for _, depth in options.networks)
    if len(times) < 2:
        options.refuse_one_depth()
    if twice := [f"{f}:{depth}" for f, depth in options.networks if times[depth] > 1]:
        raise ValueError(f"{', '.join(twice)} have one depth; give one network for each depth")
    return options.each()


def judge(rows: list[Row]) -> Verdict:
    """Test whether the test error falls over all depths."""
    if idle := learned_nothing(rows):
        return Verdict(None, idle)
    errors = by_depth(rows, "test_error")
    test = no_rise(errors, -MARGIN)
    said = ", ".join(f"{fmean(errors[depth]):.2%} with {depth}" for depth in errors)
    return Verdict.of(test, f"The test error is {said} layers; fitted rise {test.effect:.2%}.")


def saturates(rows: list[Row]) -> Verdict:
    """Test whether the deepest network has a higher test error than some shallower network."""
    if idle := learned_nothing(rows):
        return Verdict(None, idle)
    errors = by_depth(rows, "test_error")
    *shallower, deepest = sorted(errors)
    best = min(shallower, key=lambda depth: fmean(errors[depth]))
    as_good = lambda depth: no_worse(errors[deepest], errors[depth], 0.0, paired=True)
    test = opposite(every(*map(as_good, shallower)))
    said = (
        f"{fmean(errors[deepest]):.2%} with {deepest} layers, and {fmean(errors[best]):.2%} with "
    )
    return Verdict.of(test, f"The test error is {said}{best}, the best shallower depth.")


def same(rows: list[Row]) -> list[Row]:
    """Return the shallowest networks in the place of all networks."""
    shallowest = where(rows, depth=min(row["depth"] for row in rows))
    return [
        copy
        for depth in {row["depth"] for row in rows}
        for copy in relabelled(shallowest, depth=depth, model=f"same-{depth}")
    ]


def test_error(rows: list[Row]):
    """Draw the test error against the depth."""
    return points.figure(rows, "depth", "test_error", ".1%")


CLAIM = Claim(
    name="depth_pays",
    says="The test error falls with depth.",
    source="He et al. 2015, arXiv:1512.03385, Table 6",
    rule="the test error, as a line in log2(depth) through all depths for each seed, falls by more "
    "than 1 point from the shallowest to the deepest network: one-sided t test over seeds, "
    "p < 0.01. Not decided if a network is at chance",
    plan=plan,
    judge=judge,
    depths=depths,
    recipe="cifar10",
    published={"resnet-20": 0.0875, "resnet-110": 0.0661, "resnet-1202": 0.0793},
    figures=(test_error,),
    control=same,
    against="the shallowest network in the place of all",
    further=(
        Statement(
            "depth_stops_paying",
            "The deepest network has a higher test error than some shallower one.",
            "He et al. 2015, arXiv:1512.03385, Table 6 (1202 against 110 layers)",
            "the test error of the deepest network exceeds that of at least one shallower network: "
            "one-sided t tests paired by seed, p < 0.01 after Bonferroni's correction for their "
            "number. No, if it is shown to be below that of each. Not decided if a network is at "
            "chance",
            saturates,
            same,
            "the shallowest network in the place of all",
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
