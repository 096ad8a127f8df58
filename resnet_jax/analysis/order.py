"""The modules of a network in the order of the forward pass, with every layer of a Stack.

A Stack traces its block once for all of its layers, so that a path names a module in all layers:
`stage1/layers/body`. A path and an index name the module in a single layer. The index has a number
for each Stack around the module.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.models.residual import Residual, Stack

Path = tuple[str, ...]
Index = tuple[int, ...]
Place = tuple[Path, Index]


class Parts(NamedTuple):
    """The fields of a Residual beside its body: functions, or the classes of Modules."""

    before: Any
    skip: Any
    merge: Any
    after: Any


@dataclasses.dataclass
class Order:
    """The paths of a network's modules in the order in which they finish in the forward pass.

    An Order is filled while the network is traced (probe.py). `paths` numbers the modules, and
    `begins` has the number of the first module of every Stack. `stacks` has the depth of every
    Stack by the path of its layers; the layers of the Stacks in `tied` share parameters. `blocks`
    has the parts of the Residuals that no other Residual contains. `inside` are the Stacks that are
    being traced.
    """

    paths: dict[Path, int] = dataclasses.field(default_factory=dict)
    begins: dict[Path, int] = dataclasses.field(default_factory=dict)
    stacks: dict[Path, int] = dataclasses.field(default_factory=dict)
    tied: set[Path] = dataclasses.field(default_factory=set)
    blocks: dict[Path, Parts] = dataclasses.field(default_factory=dict)
    inside: list[Path] = dataclasses.field(default_factory=list)

    def enter(self, module: Any) -> Path:
        """Return the path of a module whose call begins."""
        path = (*(self.inside[-1] if self.inside else ()), *module.path)
        if isinstance(module, Residual) and not any(
            path[:n] in self.blocks for n in range(len(path))
        ):
            fields = (getattr(module, name) for name in Parts._fields)
            self.blocks[path] = Parts(*(type(p) if isinstance(p, nn.Module) else p for p in fields))
        if isinstance(module, Stack):
            layers = (*path, "layers")
            self.inside.append(layers)
            self.stacks[layers] = module.depth
            self.tied |= {layers} if module.tied else set()
        return path

    def leave(self, module: Any, path: Path) -> None:
        """Note that the call of the module ended."""
        if isinstance(module, Stack):
            self.inside.pop()
        number = self.paths.setdefault(path, len(self.paths))
        for stack in self.inside:
            self.begins.setdefault(stack, number)

    def around(self, path: Path, params: bool = False) -> list[Path]:
        """Return the layers of the Stacks that contain a path, the outermost Stack first.

        With `params`, leave out tied Stacks, whose layers share their parameters.
        """
        outer = [path[:n] for n in range(1, len(path) + 1) if path[:n] in self.stacks]
        return [stack for stack in outer if not (params and stack in self.tied)]

    def depths(self, path: Path, params: bool = False) -> tuple[int, ...]:
        """Return the leading axes of an array at `path`, which count layers (see `around`)."""
        return tuple(self.stacks[stack] for stack in self.around(path, params))

    def places(self, paths: Iterable[Path], params: bool = False) -> list[Place]:
        """Return (path, index of the layer) of every module, first to last."""
        every = [(path, i) for path in paths for i in np.ndindex(*self.depths(path, params))]
        return sorted(every, key=lambda place: self.key(*place, params))

    def key(self, path: Path, index: Index, params: bool = False) -> tuple[int, ...]:
        """Return a key that sorts modules, and the values in them, as the forward pass does.

        A path that is no module's stands at the module that contains it.
        """
        outer = zip(self.around(path, params), index, strict=True)
        key = tuple(number for stack, layer in outer for number in (self.begins[stack], layer))
        within = (path[:n] for n in range(len(path), 0, -1) if path[:n] in self.paths)
        return (*key, self.paths.get(next(within, ()), len(self.paths)))

    def name(self, path: Path, index: Index = (), params: bool = False) -> str:
        """Return the name of a module or a value of one layer: stage1[3]/body/conv2.

        Without an index the name is that of all layers: stage1/layers/body/conv2.
        """
        parts = list(path)
        for stack, layer in reversed([*zip(self.around(path, params), index, strict=False)]):
            parts[len(stack) - 2 : len(stack)] = [f"{parts[len(stack) - 2]}[{layer}]"]
        return "/".join(parts)

    def rows(self, values: Mapping[Path, Any], places: Sequence[Place]) -> jax.Array:
        """Return the values at `places`, which have the same shape, in one array with a row each.

        `values` has for each path an array whose leading axes count layers.
        """
        parts, starts, start = [], {}, 0
        for path in dict.fromkeys(path for path, _ in places):
            # Parameters of a tied Stack have fewer axes, as their index has fewer numbers.
            axes = next(len(index) for own, index in places if own == path)
            value = jnp.asarray(values[path])
            starts[path] = start
            parts.append(value.reshape(-1, *value.shape[axes:]))
            start += len(parts[-1])

        def row(path: Path, index: Index) -> int:
            shape = values[path].shape[: len(index)]
            return starts[path] + (int(np.ravel_multi_index(index, shape)) if index else 0)

        return jnp.concatenate(parts)[np.array([row(*place) for place in places])]
