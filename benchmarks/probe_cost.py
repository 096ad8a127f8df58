"""What the probe costs in training: a step that also measures every block, against the same step.

    python -m benchmarks.probe_cost [--depths=20,56] [--rounds=9] [--json=FILE]

`step` is the gradient of a ResNet on a batch of 64 in float32, and its update. `probed` is the same
step under the probe, which also returns the size of each block's output (the root mean square) and
of the gradient at each block's input (the l2 norm). Both programs are compiled in the same way and
take turns. temp_mb is what XLA allocates for a step beside its arguments and results.

Without the probe a step costs nothing more: the probe is an interceptor of `apply`, and leaves the
network's program as it is if it is absent.
"""

import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax

from benchmarks import common
from resnet_jax import families
from resnet_jax.analysis.norms import size
from resnet_jax.analysis.observe import blocks_of
from resnet_jax.analysis.probe import INPUT, OUTPUT, probed, sown_at
from resnet_jax.command import whole
from resnet_jax.keys import Config
from resnet_jax.tasks import TASKS
from resnet_jax.training.compile import program
from resnet_jax.training.optimizer import optimizer
from resnet_jax.training.state import variables

BATCH = 64


def training_step(config: Config, state: Any, batch: Any, with_probe: bool) -> Callable:
    """Return the function (state, batch) -> (state, what was measured) of a network."""
    net, optim = families.build(config), optimizer(config)
    task, apply, reports = TASKS[config.task], net.apply, {}
    blocks = blocks_of(net.apply, variables(state), batch.input, train=True)
    gradient = functools.partial(size, kind="l2")
    if with_probe:
        see = {OUTPUT: functools.partial(size, kind="rms")}
        apply = probed(net.apply, see, report={INPUT: gradient})
        reports = blocks.zeros(INPUT, gradient)

    def step(state: Any, batch: Any) -> tuple[Any, Any]:
        def objective(params: Any, reports: Any) -> tuple[Any, Any]:
            given = {"params": params, "batch_stats": state.batch_stats, "reports": reports}
            output, changed = apply(given, batch.input, mutable=["batch_stats"])
            return task.measure(output, batch)["loss"] / batch.row.size, changed

        (grads, taps), changed = jax.grad(objective, (0, 1), has_aux=True)(state.params, reports)
        updates, opt_state = optim.update(grads, state.opt_state, state.params)
        measured = None
        if with_probe:
            of_blocks = blocks.stack(sown_at(changed, OUTPUT))
            measured = of_blocks, blocks.stack(blocks.read(taps, INPUT))
        after = state.replace(
            params=optax.apply_updates(state.params, updates),
            batch_stats=changed["batch_stats"],
            opt_state=opt_state,
        )
        return after, measured

    return step


def one_depth(depth: int, rounds: int) -> tuple[list[common.Row], common.Ratios]:
    """Return the seconds and the memory of both steps of a ResNet of this depth."""
    config = common.cifar(depth, BATCH)
    net, batch = families.build(config), common.make_batch(config)
    runs, rows = {}, []
    for name in ("step", "probed"):
        state = common.create_state(config, net)
        step = training_step(config, state, batch, name == "probed")
        compiled = program(step, state, batch)
        runs[name] = lambda f=compiled, s=state: jax.block_until_ready(f(s, batch))
        runs[name]()
        bytes_ = compiled.memory_analysis().temp_size_in_bytes
        rows.append({"depth": depth, "program": name, "temp_mb": bytes_ / 1e6})
    seconds = common.alternate(runs, rounds)
    for row in rows:
        row |= {"rounds": rounds, "seconds": statistics.median(seconds[row["program"]])}
    temp = rows[1]["temp_mb"] / rows[0]["temp_mb"]
    return rows, {
        f"probed_over_step_{depth}": common.ratio(seconds["probed"], seconds["step"]),
        f"probed_temp_over_step_{depth}": temp,
    }


def measure(depths: Sequence[int], rounds: int) -> tuple[list[common.Row], common.Ratios]:
    """Return the rows and the ratios of all depths."""
    rows: list[common.Row] = []
    ratios: common.Ratios = {}
    for depth in depths:
        of_depth, more = one_depth(depth, rounds)
        rows, ratios = rows + of_depth, ratios | more
    return rows, ratios


def main(words: list[str] | None = None) -> None:
    """Read the command line, measure and report."""
    parser = common.parser("probe_cost", __doc__)
    flag = parser.add_argument
    flag("--depths", type=common.integers, default=(20, 56), help="default: 20,56")
    flag("--rounds", type=whole(1), default=9, help="measurements of each (default: %(default)s)")
    arguments = parser.read(words)
    common.run("probe_cost", arguments, lambda: measure(arguments.depths, arguments.rounds))


if __name__ == "__main__":
    common.start(main)
