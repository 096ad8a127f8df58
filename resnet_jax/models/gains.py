"""What merges share: they report the gains of their two paths and refuse paths that cannot meet."""

import flax.linen as nn
from jaxtyping import Array, Float


def sow_gains(module: nn.Module, carry: Float[Array, "..."], transform: Float[Array, "..."]):
    """Sow the means of a merge's gains into the collection `gains`.

    `carry` is the gain of the skip and `transform` the gain of the body.
    """
    keep_last = lambda _, value: value
    for name, gain in (("carry", carry), ("transform", transform)):
        module.sow("gains", name, gain.mean(), init_fn=tuple, reduce_fn=keep_last)


def check_shapes(s: Float[Array, "..."], f: Float[Array, "..."]) -> None:
    """Raise a ValueError unless skip and body have the same shape."""
    if s.shape != f.shape:
        raise ValueError(
            f"the skip gives {s.shape} and the body {f.shape}; if a block changes the shape, its "
            "skip must change it too (ZeroPad or Projection)"
        )
