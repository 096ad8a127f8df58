"""Which layer was the first that was not finite: one step looked at from the inside."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from resnet_jax.models.residual import Stack
from resnet_jax.training import step as steps
from resnet_jax.training.state import TrainState

Path = tuple[str, ...]
SOWN = "finite"


@dataclasses.dataclass
class Order:
    """The network's modules as they finish in the forward pass, by path, filled while it is traced.

    A Stack's layers are traced once, and stand for all of them; those of `tied` share parameters.
    """

    paths: list[Path] = dataclasses.field(default_factory=list)
    tied: set[Path] = dataclasses.field(default_factory=set)
    inside: list[Path] = dataclasses.field(default_factory=list)

    def watch(self, call: Callable, arguments: Any, keywords: Any, context: Any) -> Any:
        """A flax interceptor: sow whether what a module gives is finite."""
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
        finite: Any = steps.all_finite(result)
        module.sow("intermediates", SOWN, finite, lambda _, new: new, lambda: None)
        if path not in self.paths:
            self.paths.append(path)
        return result


def look(
    state: TrainState,
    source: Any,
    inputs: Any,
    *,
    apply: Callable,
    prepare: steps.Prepare,
    fetch: steps.Fetch,
    axis: str | None,
    order: Order,
) -> dict[str, dict[Path, Any]]:
    """What is not finite in the step of `inputs` (1, ...) from this state; per device and pure.

    1 or 0 of every parameter, every module's output and statistics and every gradient, by path; of
    a Stack's a vector, one a layer. `order` is filled.
    """
    batch = fetch(source, jax.tree.map(lambda a: a[0], inputs), axis)
    with nn.intercept_methods(order.watch):
        grads, changed, _ = steps.gradients(
            state, batch, apply=apply, prepare=prepare, mutable=("batch_stats", "intermediates")
        )
    sown = {p[:-1]: ~f for p, f in _flat(changed["intermediates"]).items() if p[-1] == SOWN}

    def spoiled(path: Path, leaf: Any) -> Any:
        own = _stack(path) not in (None, *order.tied)  # its first axis are the layers
        return ~jnp.isfinite(leaf).all(range(1, leaf.ndim) if own else None)

    leaves = lambda tree: {path: spoiled(path, leaf) for path, leaf in _flat(tree).items()}
    forward = sown | leaves(changed.get("batch_stats", {}))
    found = {"parameter": leaves(state.params), "forward": forward, "gradient": leaves(grads)}
    found = jax.tree.map(lambda flag: flag.astype(jnp.int32), found)
    return found if axis is None else lax.pmax(found, axis)


def first(found: dict[str, dict[Path, np.ndarray]], order: Order) -> str:
    """The first thing that was not finite, in words; '' where all was."""
    if parameters := sorted(_places(found["parameter"], order)):
        return f"the parameter {parameters[0][1]} was not finite before it"
    if forward := sorted(_places(found["forward"], order)):
        return f"the first layer whose output or statistics were not finite is {forward[0][1]}"
    if gradients := sorted(_places(found["gradient"], order)):  # which come from the end
        return (
            f"the first gradient that was not finite on the way back is that of {gradients[-1][1]}"
        )
    return ""


def _places(flags: dict[Path, np.ndarray], order: Order) -> Iterator[tuple[Any, str]]:
    """(its place in the forward pass, its name) of each that is flagged."""
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
    """The path of the Stack's layers that it is inside of."""
    return path[: path.index("layers") + 1] if "layers" in path else None


def _flat(tree: Any) -> dict[Path, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(str(key.key) for key in path): leaf for path, leaf in leaves}
