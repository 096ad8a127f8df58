"""Stochastic depth: a residual network trains with bodies left out at random.

Huang et al. 2016 (arXiv:1603.09382), Table 1 and sec. 4: on CIFAR-10, ResNet-110 has a test error
of 5.25 % with survival 0.5 at the last block (linear rule) and 6.41 % with constant depth; its
training loss is higher, and it takes 25 % less time, because a dropped body is not computed.

A step's time is that of the gradient of 16 batches with 16 draws, CPU time of this process; both
networks take turns seven times, and the medians are compared.

    python -m experiments.stochastic_depth --workdir=runs/stochastic_depth
"""

import time
from collections.abc import Callable
from statistics import fmean, median
from typing import Any

import jax

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.network import Network, opened
from experiments.plan import Options, Run
from experiments.results import Row, scores
from experiments.rows import learned_nothing, relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import above, every, larger, opposite
from resnet_jax.keys import Config
from resnet_jax.reporting import points

SAVED = 0.1
ROUNDS, DRAWS = 7, 16
ARMS = {
    "constant": {"skip": "A"},
    "dropped": {"skip": "A", "merge": "stochastic_depth", "model.survival": 0.5},
    "kept": {"skip": "A", "merge": "stochastic_depth", "model.survival": 1.0},
}


def plan(options: Options) -> list[Run]:
    """Return a network of constant depth, with dropped bodies, and with survival 1.

    Raises: ValueError for several networks.
    """
    options.refuse_several()
    options.refuse_replicas()
    return options.arms(ARMS)


def measure(run: Run) -> list[Row]:
    """Return the scores, and the time of a step over that of the network of constant depth."""
    (row,) = scores(run)
    return [row | {"time": ratio(run, run._replace(config=constant_depth(run.config)))}]


def constant_depth(config: Config) -> Config:
    """Return the config of the same network with the addition as its merge."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for key in {"survival", "survival_rule"} & set(config.model):
            del config.model[key]
        config.model.merge, config.model.gains = "add", (1.0, 1.0)
    return config.lock()


def ratio(run: Run, other: Run) -> float:
    """Return the median time of a run's gradient over that of the other's, in turns."""
    steps = [compiled(opened(r._replace(trained=False))) for r in (run, other)]
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for step, own in zip(steps, times, strict=True):
            began = time.process_time()
            step()
            own.append(time.process_time() - began)
    return median(times[0]) / median(times[1])


def compiled(network: Network) -> Callable[[], Any]:
    """Return the compiled gradient of the loss under DRAWS draws, one after another."""

    def loss(params: Any, key: Any) -> Any:
        variables = {**network.variables, "params": params}
        options = {"mutable": ["batch_stats"], "rngs": {"drop": key}}
        # In another order for each draw: the compiler would compute equal batches once.
        x = jax.random.permutation(key, network.x)
        return network.loss(network.net.apply(variables, x, **options)[0])

    step = jax.jit(lambda params, keys: jax.lax.map(lambda k: jax.grad(loss)(params, k), keys))
    keys = jax.random.split(jax.random.key(0), DRAWS)
    run = lambda: jax.block_until_ready(step(network.variables["params"], keys))
    run()
    return run


def regularises(rows: list[Row]) -> Verdict:
    """Test whether the training error is higher and the test error lower with dropped bodies."""
    if idle := learned_nothing(where(rows, family="constant")):
        return Verdict(None, idle)
    of = lambda column, name: sample(rows, column, family=name)
    test = every(
        larger(of("train_error", "dropped"), of("train_error", "constant"), 0.0),
        larger(of("test_error", "constant"), of("test_error", "dropped"), 0.0),
    )
    mean = lambda name: (
        f"{fmean(of('train_error', name)):.2%} in training and {fmean(of('test_error', name)):.2%} "
        "in the test"
    )
    said = f"Errors: {mean('constant')} with constant depth, {mean('dropped')} with dropped bodies."
    return Verdict.of(test, said)


def saves(rows: list[Row]) -> Verdict:
    """Test whether a step takes less than 1 - SAVED of the time."""
    times = sample(rows, "time", family="dropped")
    said = f"A step with dropped bodies takes {fmean(times):.2f} of the time."
    return Verdict.of(opposite(above(times, 1 - SAVED)), said)


def never_dropped(rows: list[Row]) -> list[Row]:
    """Return the networks with survival 1 in the place of those with dropped bodies."""
    kept = relabelled(where(rows, family="kept"), family="dropped")
    return where(rows, family="constant") + kept


def test_error(rows: list[Row]):
    """Draw the test error of each arm."""
    return points.by_group(rows, "test_error", ".1%")


AGAINST = "survival 1 in the place of 0.5"
CLAIM = Claim(
    name="stochastic_depth",
    says="Stochastic depth regularises: the training error is higher and the test error is lower.",
    source="Huang et al. 2016, arXiv:1603.09382, Table 1 and Fig. 3",
    rule="the training error with survival 0.5 exceeds that of constant depth, and the test error "
    "of constant depth exceeds that with survival 0.5: one-sided Welch tests over seeds, p < 0.01 "
    "for both. Not decided if constant depth is at chance",
    plan=plan,
    measure=measure,
    judge=regularises,
    columns={"train_error": ".2%", "test_error": ".2%", "time": ".2f"},
    depths=lambda dataset, full: (110,) if full else (56,),
    recipe="cifar10_stochastic_depth",
    figures=(test_error,),
    control=never_dropped,
    against=AGAINST,
    further=(
        Statement(
            "stochastic_depth_saves_time",
            "Bodies that are dropped save time: a training step takes less than 0.9 of the time.",
            "Huang et al. 2016, arXiv:1603.09382, sec. 4 (25 % with survival 0.5)",
            "the time of a gradient with survival 0.5 over that of constant depth, the median of "
            "seven rounds in one process, is below 0.9: one-sided t test over seeds, p < 0.01",
            saves,
            never_dropped,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
