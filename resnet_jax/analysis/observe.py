"""A network under the probe: its blocks, the values in them and the gradients there.

Every instrument takes `apply`, `variables` and an input `x`. `apply` is a network's own, or a
partial of it, for example with random streams: partial(net.apply, rngs={"drop": key}). It must
leave `mutable` to the instrument, which takes `train`: whether a network normalises by the batch.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from resnet_jax.analysis.blocks import Blocks
from resnet_jax.analysis.order import Order, Path
from resnet_jax.analysis.probe import BODY, INPUT, OUTPUT, See, probed, sown_at


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
        raise ValueError(
            "no module of the network is a resnet_jax.models.residual.Residual, the only block "
            "that the instruments see; write a block as Residual(body), with a flax Module as its "
            "body"
        )
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
