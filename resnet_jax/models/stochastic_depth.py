"""Stochastic depth: training leaves out whole bodies at random.

The draws follow the rules of dropout.py: a network draws if its caller gives the stream `drop`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models.dropout import example_keys
from resnet_jax.models.gains import check_shapes, sow_gains


def survivals(
    rule: Literal["linear", "uniform", "linspace"], last: float, blocks: int
) -> tuple[float, ...]:
    """Return the survival p_l of every block l = 1 .. L, where `last` is p_L.

    'linear': p_l = 1 - l / L (1 - p_L). 'uniform': p_l = p_L. 'linspace': p_l = 1 - (l - 1) /
    (L - 1) (1 - p_L), which never drops the first block; a single block is kept with p_L.

    Source: Huang et al. 2016, arXiv:1603.09382, eq. 4 (linear, uniform); timm's Vision Transformers
    (linspace).
    """
    if rule == "uniform":
        return (last,) * blocks
    if rule == "linspace":
        return tuple(1 - l / max(1, blocks - 1) * (1 - last) for l in range(blocks - 1)) + (last,)
    return tuple(1 - l / blocks * (1 - last) for l in range(1, blocks + 1))


class Dropped(nn.Module):
    """Stochastic depth: x' = s + b f, with b ~ Bernoulli(p) and p the survival of the layer.

    per='batch' draws one b for the whole batch (Huang et al.); per='sample' draws a b for each
    example (DropPath). rescale='test' multiplies f by p in evaluation (Huang et al., eq. 5);
    rescale='train' divides b by p in training and leaves evaluation unscaled. With both, a block in
    evaluation gives the expectation over b of what the block gives in training.

    The per-layer input `survival` overrides the field of that name. The body is always computed and
    then multiplied by b, so this form does not save the time that the paper saves.

    Shapes: s and f are equal. Raises: ValueError if they are not.
    Source: Huang et al. 2016, arXiv:1603.09382, eq. 2 and 5.
    """

    survival: float = 1.0
    per: Literal["batch", "sample"] = "batch"
    rescale: Literal["train", "test"] = "test"

    inputs = ("survival",)

    @nn.compact
    def __call__(self, s, f, z, survival=None):
        """s + b f."""
        check_shapes(s, f)
        # The draw is in float32 whatever the type of f: bfloat16 has no number between 0.996 and 1,
        # so that a survival of 0.999 would never drop the body.
        chance = jnp.asarray(self.survival if survival is None else survival, jnp.float32)
        p = chance.astype(f.dtype)
        if not self.has_rng("drop"):
            gain = p if self.rescale == "test" else jnp.ones_like(p)
        else:
            if self.per == "batch":
                gain = jax.random.bernoulli(self.make_rng("drop"), chance)
            else:
                keys = example_keys(self, f.shape[0])
                gain = jax.vmap(lambda key: jax.random.bernoulli(key, chance))(keys)
                gain = gain.reshape(gain.shape + (1,) * (f.ndim - 1))
            gain = gain.astype(f.dtype)
            gain = gain / p if self.rescale == "train" else gain
        sow_gains(self, jnp.ones_like(p), gain)
        return s + gain * f


# The four forms by the names that configs use; DROPS[name](survival=p) makes the merge.
DROPS: Mapping[str, Callable[..., Dropped]] = {
    "stochastic_depth": functools.partial(Dropped, per="batch", rescale="test"),
    "stochastic_depth_rescaled": functools.partial(Dropped, per="batch", rescale="train"),
    "drop_path": functools.partial(Dropped, per="sample", rescale="train"),
    "drop_path_unscaled": functools.partial(Dropped, per="sample", rescale="test"),
}
