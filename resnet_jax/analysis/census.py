"""What the skip of every block is, and what stands on its path beside the sum."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax.analysis.blocks import Blocks
from resnet_jax.analysis.order import Path
from resnet_jax.analysis.probe import BODY, INPUT
from resnet_jax.models.merges import Gated, Scaled, add, concat, plain
from resnet_jax.models.residual import Residual, Stack
from resnet_jax.models.skips import Projection, ZeroPad, identity


class Skip(NamedTuple):
    """The skip of one block.

    Attributes:
        block: the block's name: stage1[3].
        kind: "none" (a plain block), "identity", "padded" (zeros for new channels), "projected",
            "gated" or "other" (a skip with dropout, gains that are not 1).
        operations: what stands on the path from x_l to x_l+1 beside the sum or the concatenation,
            by the field of the Residual: "before", "skip", "merge", "after". A plain block has no
            such path, and no operations.
        same: whether the block keeps the shape of its input.
        passes: whether the block with a body of zeros hands on any input unchanged: its output
            equals a random input of both signs, bit for bit. A concatenation must hand on its
            input as its first channels; any other block that changes the shape does not pass.
    """

    block: str
    kind: str
    operations: tuple[str, ...]
    same: bool
    passes: bool


def module_at(net: nn.Module, path: Path) -> Residual:
    """Return the Residual at the path of a block (`Blocks.places`), as the network was built."""
    module: Any = net
    for name in path:
        module = module.block if isinstance(module, Stack) else module.blocks[name]
    return module


def skips(net: nn.Module, blocks: Blocks) -> list[Skip]:
    """Return the skip of every block of a network. The network itself is not computed.

    Raises: ValueError if a body is a plain function.
    """
    of_path: dict[Path, Skip] = {}
    tried: dict[Any, bool] = {}
    for block, (path, _) in enumerate(blocks.places):
        if path not in of_path:  # the layers of a Stack are equal
            of_path[path] = _skip(module_at(net, path), blocks, block, tried)
    return [
        of_path[path]._replace(block=name)
        for name, (path, _) in zip(blocks.names, blocks.places, strict=True)
    ]


def _skip(module: Residual, blocks: Blocks, block: int, tried: dict[Any, bool]) -> Skip:
    kind = _kind(module)
    steps = [name for name in ("before", "skip", "after") if getattr(module, name) is not identity]
    if module.merge not in (add, concat, plain):
        steps.append("merge")
    operations = () if kind == "none" else tuple(sorted(steps))
    same = blocks.same(block)
    passes = same or module.merge is concat
    parts = (module.before, module.skip, module.merge, module.after)
    if passes and any(isinstance(part, nn.Module) for part in parts):
        passes = _passes(module, blocks, block)
    elif passes:  # by functions without weights; what they do to one shape they do to all
        if parts not in tried:
            tried[parts] = _passes(module, blocks, block)
        passes = tried[parts]
    return Skip(blocks.names[block], kind, operations, same, passes)


def _passes(module: Residual, blocks: Blocks, block: int) -> bool:
    given, body = (blocks.shape(block, point) for point in (INPUT, BODY))
    x = jax.random.normal(jax.random.key(0), given.shape, given.dtype)
    zero = lambda z: jnp.zeros(body.shape, body.dtype)
    bare = module.clone(parent=None, body=zero)
    y = np.asarray(bare.init_with_output(jax.random.key(1), x)[0])
    return np.array_equal(y[..., : x.shape[-1]], x)


def _kind(module: Residual) -> str:
    merge, skip = module.merge, module.skip
    if merge is plain:
        return "none"
    if isinstance(merge, Gated):
        return "gated"
    if isinstance(skip, ZeroPad):
        return "padded"
    if isinstance(skip, Projection):
        return "projected"
    weighed = isinstance(merge, Scaled) and merge.carry != 1
    # A skip that is a chain has dropout in it.
    return "other" if weighed or isinstance(skip, nn.Module) else "identity"
