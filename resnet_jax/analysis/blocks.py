"""The blocks of a network, first to last, and vectors with a number for each of them.

The blocks are the Residuals, those of plain networks included. A Residual within another counts as
a part of it. The layers of a Stack are as many blocks.

Every instrument takes `apply`, `variables` and an input `x`. `apply` is a network's own, or a
partial of it, for example with random streams: partial(net.apply, rngs={"drop": key}). It must
leave `mutable` to the instrument, which takes `train`: whether a network normalises by the batch.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from resnet_jax.analysis.order import Order, Parts, Path, Place
from resnet_jax.analysis.probe import BODY, INPUT, OUTPUT, See, probed, sown_at
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


def blocks_of(apply: Callable, variables: Any, x: Any, *, train: bool = False) -> Blocks:
    """Return the blocks of a network on an input. Nothing is computed; the network is traced once.

    Raises: ValueError if the network has no blocks.
    """
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (variables, x))
    # The method of an unbound Module is a value, and most instruments ask for its blocks.
    if isinstance(getattr(apply, "__self__", None), nn.Module):
        leaves, tree = jax.tree.flatten(shapes)
        return _known_blocks(apply, tuple(leaves), tree, train)
    return _trace(apply, shapes, train)


@functools.lru_cache(maxsize=16)
def _known_blocks(apply: Callable, leaves: tuple[Any, ...], tree: Any, train: bool) -> Blocks:
    return _trace(apply, jax.tree.unflatten(tree, leaves), train)


def _trace(apply: Callable, shapes: tuple[Any, Any], train: bool) -> Blocks:
    order = Order()
    values = {point: lambda a: a for point in (INPUT, BODY, OUTPUT)}
    look = lambda v, x: observe(apply, v, x, values, train=train, order=order)[1]
    seen = jax.eval_shape(look, *shapes)
    if not order.blocks:
        raise ValueError("the network has no Residual, so that there are no blocks to look at")
    of_layer = lambda path, a: jax.ShapeDtypeStruct(a.shape[len(order.depths(path)) :], a.dtype)
    of_path = {
        path: {point: of_layer(path, at[path]) for point, at in seen.items() if path in at}
        for path in order.blocks
    }
    return Blocks(order, order.blocks, of_path, order.places(order.blocks))


def observe(
    apply: Callable,
    variables: Any,
    x: Any,
    see: See,
    *,
    train: bool = False,
    report: See | None = None,
    order: Order | None = None,
) -> tuple[Any, dict[str, dict[Path, Any]]]:
    """Return the network's output, and see[point](value) by point and by the path of the module.

    With `train` the network normalises by the batch, and otherwise by the running statistics.
    """
    run = probed(apply, see, report=report, order=order)
    output, changed = run(variables, x, mutable=["batch_stats"] if train else [])
    return output, {point: sown_at(changed, point) for point in see}


def gradients_at(
    apply: Callable,
    variables: Any,
    x: Any,
    loss: Callable[[Any], Any],
    point: str,
    function: Callable[[Any], Any] = lambda g: g,
    *,
    train: bool = False,
    blocks: Blocks | None = None,
) -> dict[Path, Any]:
    """Return function(dE/d(value)) at a point of every block, by path; E = loss(output).

    The backward pass computes the function layer by layer, so that only its results are stored.
    """
    blocks = blocks or blocks_of(apply, variables, x, train=train)

    def objective(taps):
        given = {**variables, "reports": taps}
        return loss(observe(apply, given, x, {}, train=train, report={point: function})[0])

    return blocks.read(jax.grad(objective)(blocks.zeros(point, function)), point)
