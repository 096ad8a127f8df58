"""Stochastic depth saves time, because a body that is dropped is not computed.

Huang et al. 2016 (arXiv:1603.09382), sec. 4, save 25 % of the training time of ResNet-110 with
survival 0.5 at the last block (linear rule). A step's time is that of the gradient of 16 batches
with 16 draws, at the network's start; it does not depend on what was learned. Both networks take
turns seven times, and the medians are compared.

    python -m experiments.stochastic_depth_saves_time --workdir=runs/stochastic_depth_saves_time
"""

import time
from collections.abc import Callable
from statistics import fmean, median
from typing import Any

import jax

from experiments import claim, stochastic_depth
from experiments.claim import Claim, Verdict
from experiments.network import Network, opened
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import sample
from resnet_jax import command
from resnet_jax.analysis.statistics import above, opposite
from resnet_jax.keys import Config
from resnet_jax.reporting import points

SAVED = 0.1
ROUNDS, DRAWS = 7, 16


def plan(options: Options) -> list[Run]:
    """Return the networks of `stochastic_depth` at their start.

    Raises: ValueError for several networks.
    """
    return [run._replace(trained=False) for run in stochastic_depth.plan(options)]


def measure(run: Run) -> list[Row]:
    """Return the time of a step over that of the network of constant depth."""
    constant = run._replace(config=constant_depth(run.config))
    return [{"seed": run.config.seed, "time": ratio(run, constant)}]


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
    steps = [compiled(opened(r), run.config.seed) for r in (run, other)]
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for step, own in zip(steps, times, strict=True):
            began = time.perf_counter()
            step()
            own.append(time.perf_counter() - began)
    return median(times[0]) / median(times[1])


def compiled(network: Network, seed: int) -> Callable[[], Any]:
    """Return the compiled gradient of the loss under DRAWS draws of a seed, one after another."""

    def loss(params: Any, key: Any) -> Any:
        variables = {**network.variables, "params": params}
        options = {"mutable": ["batch_stats"], "rngs": {"drop": key}}
        # In another order for each draw: the compiler would compute equal batches once.
        x = jax.random.permutation(key, network.x)
        return network.loss(network.net.apply(variables, x, **options)[0])

    step = jax.jit(lambda params, keys: jax.lax.map(lambda k: jax.grad(loss)(params, k), keys))
    keys = jax.random.split(jax.random.key(seed), DRAWS)
    run = lambda: jax.block_until_ready(step(network.variables["params"], keys))
    run()
    return run


def judge(rows: list[Row]) -> Verdict:
    """Test whether a step takes less than 1 - SAVED of the time."""
    times = sample(rows, "time", arm="dropped")
    said = f"A step with dropped bodies takes {fmean(times):.2f} of the time."
    return Verdict.of(opposite(above(times, 1 - SAVED)), said)


def step_time(rows: list[Row]):
    """Draw the time of each arm."""
    return points.by_group(rows, "time", ".2f")


CLAIM = Claim(
    name="stochastic_depth_saves_time",
    says="Bodies that are dropped save time: a training step takes less than 0.9 of the time.",
    source="Huang et al. 2016, arXiv:1603.09382, sec. 4 (25 % with survival 0.5)",
    rule="the time of a gradient with survival 0.5 over that of constant depth, the median of "
    "seven rounds in one process, is below 0.9: one-sided t test over seeds, p < 0.01",
    plan=plan,
    measure=measure,
    judge=judge,
    kind="init",
    columns={"time": ".2f"},
    depths=stochastic_depth.CLAIM.depths,
    figures=(step_time,),
    control=stochastic_depth.never_dropped,
    against=stochastic_depth.AGAINST,
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)
