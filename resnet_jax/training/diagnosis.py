"""The diagnosis of a step that is not finite: which layer was the first."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from resnet_jax.models.residual import Stack
from resnet_jax.tasks.task import Prepare
from resnet_jax.training import step as steps
from resnet_jax.training.state import TrainState

Path = tuple[str, ...]
SOWN = "spoiled"


@dataclasses.dataclass
class Order:
    """The paths of the network's modules in the order in which they finish in the forward pass.

    It is filled while the network is traced. A Stack's block is traced once and stands for all its
    layers; the layers of the Stacks in `tied` share parameters. `inside` are the Stacks that are
    being traced.
    """

    paths: list[Path] = dataclasses.field(default_factory=list)
    tied: set[Path] = dataclasses.field(default_factory=set)
    inside: list[Path] = dataclasses.field(default_factory=list)

    def watch(self, call: Callable, arguments: Any, keywords: Any, context: Any) -> Any:
        """Sow whether a module's result is not finite; this is an interceptor of flax.

        A body that stochastic depth leaves out sows zeros, which say that nothing is wrong.
        """
        module = context.module
        if context.method_name != "__call__":
            return call(*arguments, **keywords)
        path = (*(self.inside[-1] if self.inside else ()), *module.path)
        if isinstance(module, Stack):
            self.inside.append((*path, "layers"))
            self.tied |= {self.inside[-1]} if module.tied else set()
        result = call(*arguments, **keywords)
        if isinstance(module, Stack):
            self.inside.pop()
        spoiled: Any = ~steps.all_finite(result)
        module.sow("intermediates", SOWN, spoiled, lambda _, new: new, lambda: None)
        if path not in self.paths:
            self.paths.append(path)
        return result


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
    looked = functools.partial(
        steps.gradients,
        state,
        apply=apply,
        prepare=prepare,
        measure=measure,
        mutable=("batch_stats", "intermediates"),
    )
    pieces = steps.split(batch, parts)
    with nn.intercept_methods(order.watch):
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
    sown = {p[:-1]: s for p, s in _flat(changed["intermediates"]).items() if p[-1] == SOWN}

    def spoiled(path: Path, leaf: Any) -> Any:
        own = _stack(path) not in (None, *order.tied)  # the first axis is the layers
        return ~jnp.isfinite(leaf).all(range(1, leaf.ndim) if own else None)

    leaves = lambda tree: {path: spoiled(path, leaf) for path, leaf in _flat(tree).items()}
    forward = sown | leaves(changed.get("batch_stats", {}))
    flags = {"parameter": leaves(state.params), "forward": forward, "gradient": leaves(grads)}
    return jax.tree.map(lambda flag: flag.astype(jnp.int32), flags)


def first(flags: dict[str, dict[Path, np.ndarray]], order: Order) -> str:
    """Return the first thing that was not finite, in words; "" if everything was finite."""
    if parameters := sorted(_places(flags["parameter"], order)):
        return f"the parameter {parameters[0][1]} was not finite before it"
    if forward := sorted(_places(flags["forward"], order)):
        return f"the first layer whose output or statistics were not finite is {forward[0][1]}"
    if gradients := sorted(_places(flags["gradient"], order)):  # gradients come from the end
        return (
            f"the first gradient that was not finite on the way back is that of {gradients[-1][1]}"
        )
    return ""


def _places(flags: dict[Path, np.ndarray], order: Order) -> Iterator[tuple[Any, str]]:
    """Return (its place in the forward pass, its name) for each flag that is set."""
    at = {path: index for index, path in enumerate(order.paths)}
    begins: dict[Path | None, int] = {}
    for path in order.paths:
        begins.setdefault(_stack(path), at[path])
    for path, flag in flags.items():
        module = next((path[:n] for n in range(len(path), 0, -1) if path[:n] in at), ())
        place, stack = at.get(module, len(at)), _stack(path)
        if stack is None or flag.ndim == 0:
            yield from [((place, 0, place), "/".join(path) or "the network")] * bool(flag)
        else:
            for layer in np.flatnonzero(flag).tolist():
                name = f"{'/'.join(stack[:-1])}[{layer}]/{'/'.join(path[len(stack) :])}"
                yield (begins[stack], layer, place), name.rstrip("/")


def _stack(path: Path) -> Path | None:
    """Return the path of the Stack's layers that contain this path, or None."""
    return path[: path.index("layers") + 1] if "layers" in path else None


def _flat(tree: Any) -> dict[Path, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(str(key.key) for key in path): leaf for path, leaf in leaves}
