"""The diagnosis of a step that is not finite: which layer was the first."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from resnet_jax.analysis.order import Order, Path
from resnet_jax.analysis.probe import EVERY, flat, probed, sown_at
from resnet_jax.tasks.task import Prepare
from resnet_jax.training import step as steps
from resnet_jax.training.state import TrainState


def look(
    state: TrainState,
    source: Any,
    inputs: Any,
    *,
    apply: Callable,
    prepare: Prepare,
    measure: steps.Measure,
    fetch: steps.Fetch,
    axis: str | None,
    order: Order,
    parts: int = 1,
) -> dict[str, dict[Path, Any]]:
    """Return what is not finite in the step of `inputs` (1, ...) from this state.

    The function is pure and per device. Every parameter, every module's output and statistics and
    every gradient gets 1 or 0, by path; inside a Stack it gets a vector with a number for each
    layer. `order` is filled. A step that computes its gradient in `parts` is looked at in these
    parts.
    """
    batch = fetch(source, jax.tree.map(lambda a: a[0], inputs), axis)
    # What is not finite is sown, because a body that stochastic depth leaves out sows zeros.
    see = {EVERY: lambda value: ~steps.all_finite(value)}
    looked = functools.partial(
        steps.gradients,
        state,
        apply=probed(apply, see, order=order),
        prepare=prepare,
        measure=measure,
    )
    pieces = steps.split(batch, parts)
    of_parts = [
        _flags(state, *looked(jax.tree.map(lambda a, i=i: a[i], pieces)), order)
        for i in range(parts)
    ]
    flags = jax.tree.map(lambda *of: functools.reduce(jnp.maximum, of), *of_parts)
    return flags if axis is None else lax.pmax(flags, axis)


def _flags(
    state: TrainState, grads: Any, changed: Any, sums: Any, order: Order
) -> dict[str, dict[Path, Any]]:
    """Return 1 for everything that is not finite in a gradient's computation, else 0."""
    sown = sown_at(changed, EVERY)

    def spoiled(path: Path, leaf: Any, params: bool) -> Any:
        layers = len(order.depths(path, params))
        return ~jnp.isfinite(leaf).all(range(layers, leaf.ndim))

    leaves = lambda tree, params=True: {
        path: spoiled(path, leaf, params) for path, leaf in flat(tree).items()
    }
    forward = sown | leaves(changed.get("batch_stats", {}), params=False)
    flags = {"parameter": leaves(state.params), "forward": forward, "gradient": leaves(grads)}
    return jax.tree.map(lambda flag: flag.astype(jnp.int32), flags)


def first(flags: dict[str, dict[Path, np.ndarray]], order: Order) -> str:
    """Return the first thing that was not finite, in words; "" if everything was finite."""
    if parameters := sorted(_places(flags["parameter"], order, params=True)):
        return f"the parameter {parameters[0][1]} was not finite before it"
    if forward := sorted(_places(flags["forward"], order)):
        return f"the first layer whose output or statistics were not finite is {forward[0][1]}"
    if gradients := sorted(_places(flags["gradient"], order, params=True)):  # from the end
        return (
            f"the first gradient that was not finite on the way back is that of {gradients[-1][1]}"
        )
    return ""


def _places(
    flags: dict[Path, np.ndarray], order: Order, params: bool = False
) -> Iterator[tuple[Any, str]]:
    """Return (its place in the forward pass, its name) for each flag that is set."""
    for path, flag in flags.items():
        for index in map(tuple, np.argwhere(flag).tolist()):
            name = order.name(path, index, params) or "the network"
            yield order.key(path, index, params), name
