"""The blocks of a network, first to last, and vectors with a number for each of them.

The blocks are the Residuals, those of plain networks included. A Residual within another counts as
a part of it. The layers of a Stack are as many blocks.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resnet_jax.analysis.order import Order, Parts, Path, Place
from resnet_jax.analysis.probe import INPUT, OUTPUT
from resnet_jax.models.skips import identity


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The blocks of a network on a certain input.

    `parts` has the skip, the merge and so on of each path, and `shapes` the shape and type of its
    values by point, without the axes of the layers. `places` has the path and the index of every
    block, first to last.
    """

    order: Order
    parts: dict[Path, Parts]
    shapes: dict[Path, dict[str, Any]]
    places: list[Place]

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.places)

    @property
    def names(self) -> tuple[str, ...]:
        """The blocks' names: stage1[3]."""
        return tuple(self.order.name(*place) for place in self.places)

    def shape(self, block: int, point: str) -> jax.ShapeDtypeStruct:
        """Return the shape and type of a value of a block.

        Raises: ValueError if the value cannot be seen.
        """
        path, index = self.places[block]
        if point not in self.shapes[path]:
            raise ValueError(
                f"the body of block {self.order.name(path, index)} is a function, whose output "
                "cannot be seen; make it a flax Module"
            )
        return self.shapes[path][point]

    def stack(self, values: Mapping[Path, Any], blocks: Sequence[int] | None = None) -> jax.Array:
        """Return values of blocks, which have the same shape, in one array with a row for each.

        `values` has for each path an array whose leading axes count layers; `blocks` are the
        numbers of the blocks, or all blocks.

        Raises: ValueError if the values have different shapes.
        """
        places = [self.places[block] for block in (range(len(self)) if blocks is None else blocks)]
        shapes = {values[path].shape[len(index) :] for path, index in places}
        if len(shapes) > 1:
            raise ValueError(f"values of blocks have different shapes: {sorted(shapes)}")
        return self.order.rows(values, places)

    def collection(self, **numbers: Any) -> dict[str, Any]:
        """Return a collection of arrays of these names from a number, or a row, for each block.

        The function reverses `stack`. Raises: ValueError unless there is one for each block.
        """
        tree = {}
        for name, rows in numbers.items():
            rows = jnp.asarray(rows)
            if len(rows) != len(self):
                raise ValueError(
                    f"{len(rows)} numbers for {len(self)} blocks; give one for each block"
                )
            for path in self.parts:
                # `places` is sorted, so that these are in the order of the layers' indices.
                own = [block for block, place in enumerate(self.places) if place[0] == path]
                shape = (*self.order.depths(path), *rows.shape[1:])
                tree[(*path, name)] = rows[np.array(own)].reshape(shape)
        return unflatten_dict(tree)

    def zeros(self, point: str, function: Callable[[Any], Any] = lambda x: x) -> dict[str, Any]:
        """Return zeros in the shapes of function(value at a point), as a collection of taps."""
        tree = {}
        for block, (path, _) in enumerate(self.places):
            if (*path, point) not in tree:
                seen = jax.eval_shape(function, self.shape(block, point))
                shape = (*self.order.depths(path), *seen.shape)
                tree[(*path, point)] = jnp.zeros(shape, seen.dtype)
        return unflatten_dict(tree)

    def tap(self, block: int, point: str, t: Any) -> dict[str, Any]:
        """Return the collection of taps that adds `t` at a point of one block, and 0 elsewhere."""
        path, index = self.places[block]
        taps = jnp.zeros((*self.order.depths(path), *t.shape), t.dtype)
        return unflatten_dict({(*path, point): taps.at[index].set(t)})

    def read(self, collection: Mapping[str, Any], point: str) -> dict[Path, Any]:
        """Return the arrays of a collection of taps, or of its gradient, by the path of a block."""
        arrays = flatten_dict(collection)
        return {path: arrays[(*path, point)] for path in self.parts}

    def segments(self) -> list[range]:
        """Return runs of neighbouring blocks that can be written as x' = x + f, as numbers.

        In a run all values have one shape and every skip is the identity of the block's input. A
        block that changes the shape, or whose `before` serves skip and body, stands in no run; the
        next run begins with its output. Whether the merge adds is not asked: plain and gated
        blocks are the controls.
        """
        runs: list[range] = []
        for block in range(len(self)):
            if not self.keeps(block):
                continue
            last = runs[-1] if runs else range(0)
            same = lambda a, b: self.shape(a, INPUT) == self.shape(b, INPUT)
            if last.stop == block and len(last) and same(block - 1, block):
                runs[-1] = range(last.start, block + 1)
            else:
                runs.append(range(block, block + 1))
        return runs

    def keeps(self, block: int) -> bool:
        """Return whether the block's skip is the identity of its input, and keeps the shape."""
        parts = self.parts[self.places[block][0]]
        return parts.skip is identity and parts.before is identity and self.same(block)

    def same(self, block: int) -> bool:
        """Return whether the block keeps the shape of its input."""
        return self.shape(block, INPUT) == self.shape(block, OUTPUT)
