"""ReLU speeds up training.

Krizhevsky et al. 2012 ("ImageNet classification with deep convolutional neural networks"), Fig. 1,
from memory: a network of four convolutions without norms reaches 25 % training error on CIFAR-10
about six times faster with ReLUs than with tanh; the rate of each was chosen to make training as
fast as possible.

Here: a plain network of 8 layers without norms, a constant learning rate, and records of 5 steps.
The kernels start with the variance that keeps the signal's scale: 2 / n before a ReLU, 1 / n before
tanh. A run that never reaches 25 % counts with its length, which is a lower bound of its steps. A
pilot of one seed chose the rates: the ReLU is fastest at 0.1 and learns nothing at 0.3.

    python -m experiments.relu_vs_tanh --workdir=runs/relu_vs_tanh
"""

import math
from statistics import fmean, geometric_mean

from experiments import claim, rates
from experiments.claim import Claim, Verdict
from experiments.plan import Options, Run
from experiments.results import Row, curves, divergence
from experiments.rows import relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import larger
from resnet_jax.reporting import points

ERROR, RATIO = 0.25, 1.5
RATES = (0.03, 0.1, 0.3)
BARE = {"skip": "none", "norm": "none", "schedule.boundaries": ()}
ARMS = {name: {**BARE, "model.activation": name} for name in ("relu", "tanh")}


def plan(options: Options) -> list[Run]:
    """Return both activations at every rate. Raises: ValueError for several networks."""
    network, *others = options.networks
    if others:
        raise ValueError("the claim compares activations in one network; give one")
    chunk = options.config(network).chunk_steps
    # A record of a whole epoch could not tell the two apart.
    each = next(n for n in range(max(1, chunk // 6), 0, -1) if chunk % n == 0)
    often = {"chunk_steps": str(each), **options.overrides}
    return rates.arms(options._replace(overrides=often), ARMS, RATES, 5)


def measure(run: Run) -> list[Row]:
    """Return the scores, and the steps after which the training error was first at most 25 %."""
    lines = {row["seed"]: row for row in curves(run) if row["split"] == "train"}
    if divergence(run):  # what it reached before, it did not keep
        lines = {seed: {"step": [], "error": []} for seed in lines}
    return [row | reached(lines[row["seed"]], row["steps"]) for row in rates.measured(run)]


def reached(line: Row, steps: int) -> Row:
    """Return the columns of one seed's curve; a run that never gets there counts with `steps`."""
    pairs = zip(line["step"], line["error"], strict=True)
    first = next((step for step, error in pairs if error <= ERROR), None)
    known = {"steps_to_25": first or steps, "log_steps": math.log(first or steps)}
    return known | {"reached": first is not None}


def judge(rows: list[Row]) -> Verdict:
    """Test whether tanh takes more than 1.5 times the steps of the ReLU."""
    chosen = rates.best(rows, "log_steps")
    logs = {name: sample(chosen, "log_steps", arm=name) for name in ARMS}
    said = "; ".join(f"{name} {words(where(chosen, arm=name))}" for name in ARMS)
    ratio = math.exp(fmean(logs["tanh"]) - fmean(logs["relu"]))
    says = f"Steps to 25 % training error: {said}. Tanh takes {ratio:.2f} times as many."
    if not all(row["reached"] for row in where(chosen, arm="relu")):
        return Verdict(None, f"{says} Some runs with ReLUs never get there.")
    test = larger(logs["tanh"], logs["relu"], math.log(RATIO))
    bounded = all(row["reached"] for row in where(chosen, arm="tanh"))
    if not bounded:
        says += " That is a lower bound: some runs with tanh never get there."
    if test.holds is False and not bounded:
        return Verdict(None, says)
    return Verdict.of(test, says)


def words(rows: list[Row]) -> str:
    """Return the mean number of steps and the rate of an arm's rows, in words."""
    steps = geometric_mean(row["steps_to_25"] for row in rows)
    return f"{steps:.0f} at a rate of {rows[0]['rate']:g}"


def control(rows: list[Row]) -> list[Row]:
    """Return the ReLU in the place of tanh."""
    relu = where(rows, arm="relu")
    return relu + relabelled(relu, arm="tanh")


def steps(rows: list[Row]):
    """Draw the steps to 25 % training error against the rate."""
    return points.figure(rows, "rate", "steps_to_25", ".0f")


CLAIM = Claim(
    name="relu_vs_tanh",
    says="ReLU speeds up training: tanh needs more than 1.5 times as many steps to 25 % training "
    "error, each at its best learning rate.",
    source="Krizhevsky et al. 2012, Fig. 1",
    rule="the best rate of each activation, of 0.03, 0.1 and 0.3, is that with the least mean "
    "logarithm of the steps to 25 % training error. At these, the logarithm with tanh exceeds that "
    "with the ReLU by more than log(1.5): one-sided Welch test over seeds, p < 0.01. A run that "
    "never reaches 25 % counts with its length. Not decided if such a run has ReLUs, and not a no "
    "if such a run has tanh",
    plan=plan,
    measure=measure,
    judge=judge,
    columns={"steps_to_25": ".0f", "train_error": ".1%"},
    depths=lambda dataset, full: (8,),
    figures=(steps,),
    control=control,
    against="the ReLU in the place of tanh",
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
