"""The gains of skip and body in every block, and their products by depth."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from resnet_jax.analysis.observe import blocks_of
from resnet_jax.analysis.probe import flat
from resnet_jax.models.merges import add, concat, plain

# (carry, transform) of the merges that are functions.
CONSTANT = {add: (1.0, 1.0), concat: (1.0, 1.0), plain: (0.0, 1.0)}


class Gains(NamedTuple):
    """The gain of the skip and that of the body, for each block: x' = carry s + transform f."""

    carry: Float[Array, "n"]
    transform: Float[Array, "n"]


def gains(apply: Callable, variables: Any, x: Any, *, train: bool = False) -> Gains:
    """Return the gains of the n blocks.

    A gate counts with its mean over units, places and examples, which merges sow into the
    collection `gains`. If `apply` draws, the gains of stochastic depth are those of the draw.
    Raises: ValueError for a merge that is a function of the caller's, or sows no gains.
    """
    blocks = blocks_of(apply, variables, x, train=train)
    mutable = ["gains", "batch_stats"] if train else ["gains"]
    sown = flat(apply(variables, x, mutable=mutable)[1].get("gains", {}))
    both = []
    for number, name in enumerate(("carry", "transform")):
        values = {}
        for path, parts in blocks.parts.items():
            if (*path, "merge", name) in sown:
                values[path] = sown[*path, "merge", name]
            elif parts.merge in CONSTANT:
                constant = np.float32(CONSTANT[parts.merge][number])
                values[path] = jnp.full(blocks.order.depths(path), constant)
            else:
                raise ValueError(
                    f"the merge of block {'/'.join(path)} sows no gains; call sow_gains in it "
                    "(resnet_jax/models/gains.py)"
                )
        double = any(a.dtype == jnp.float64 for a in values.values())
        kind = jnp.float64 if double else jnp.float32
        both.append(blocks.stack({path: a.astype(kind) for path, a in values.items()}))
    return Gains(*both)


def carried(carry: Float[Array, "n"]) -> Float[Array, "n"]:
    """Return what the skips leave of each x_l in x_L: the product of carry_i over i = l .. L-1.

    Source: He et al. 2016, arXiv:1603.05027, eq. 7: with gains below 1 the products vanish
    exponentially with depth, and with gains above 1 they explode.
    """
    return jnp.cumprod(carry[::-1])[::-1]
