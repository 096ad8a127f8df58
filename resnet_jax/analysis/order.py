"""The modules of a network in the order of the forward pass, where layers of a Stack count singly.

A Stack traces its block once for all of its layers, so that a path names a module of all layers at
once: `stage1/layers/body`. The module of one layer is such a path and an index, with a number for
each Stack around the module.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet_jax.models.residual import Residual, Stack

Path = tuple[str, ...]
Index = tuple[int, ...]


@dataclasses.dataclass
class Order:
    """The paths of a network's modules in the order in which they finish in the forward pass.

    An Order is filled while the network is traced (probe.py). `paths` numbers the modules, and
    `begins` has the number of the first module of every Stack. `stacks` has the depth of every
    Stack by the path of its layers; the layers of the Stacks in `tied` share parameters. `blocks`
    are the Residuals that no other Residual contains. `inside` are the Stacks that are being
    traced.
    """

    paths: dict[Path, int] = dataclasses.field(default_factory=dict)
    begins: dict[Path, int] = dataclasses.field(default_factory=dict)
    stacks: dict[Path, int] = dataclasses.field(default_factory=dict)
    tied: set[Path] = dataclasses.field(default_factory=set)
    blocks: dict[Path, Residual] = dataclasses.field(default_factory=dict)
    inside: list[Path] = dataclasses.field(default_factory=list)

    def enter(self, module: Any) -> Path:
        """Return the path of a module whose call begins."""
        path = (*(self.inside[-1] if self.inside else ()), *module.path)
        if isinstance(module, Residual) and not any(
            path[:n] in self.blocks for n in range(len(path))
        ):
            self.blocks[path] = module
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

    def around(self, path: Path) -> list[Path]:
        """Return the layers of the Stacks that contain a path, the outermost Stack first."""
        return [path[:n] for n in range(1, len(path) + 1) if path[:n] in self.stacks]

    def axes(self, path: Path, params: bool = False) -> int:
        """Return how many leading axes of a value of the module at `path` count layers.

        With `params`, the value is a parameter, which the layers of a tied Stack share.
        """
        return sum(not (params and stack in self.tied) for stack in self.around(path))

    def places(self, paths: Sequence[Path]) -> list[tuple[int, Index]]:
        """Return (number of the path, index of the layer) of every module, first to last."""
        every = [
            (number, index)
            for number, path in enumerate(paths)
            for index in np.ndindex(*(self.stacks[stack] for stack in self.around(path)))
        ]
        return sorted(every, key=lambda place: self.key(paths[place[0]], place[1]))

    def key(self, path: Path, index: Index) -> tuple[int, ...]:
        """Return a key that sorts modules, and the values in them, as the forward pass does.

        A path that is no module's stands at the module that contains it.
        """
        outer = zip(self.around(path), index, strict=False)
        key = tuple(number for stack, layer in outer for number in (self.begins[stack], layer))
        within = (path[:n] for n in range(len(path), 0, -1) if path[:n] in self.paths)
        return (*key, self.paths.get(next(within, ()), len(self.paths)))

    def name(self, path: Path, index: Index = ()) -> str:
        """Return the name of a module or a value of one layer: stage1[3]/body/conv2.

        Without an index the name is that of all layers: stage1/layers/body/conv2.
        """
        parts = list(path)
        for stack, layer in reversed([*zip(self.around(path), index, strict=False)]):
            parts[len(stack) - 2 : len(stack)] = [f"{parts[len(stack) - 2]}[{layer}]"]
        return "/".join(parts)
