"""Stochastic depth: training leaves out whole bodies at random.

The draws follow the rules of dropout.py: a network draws if its caller gives the stream `drop`.
A body that a whole batch leaves out is not computed (`Residual`).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

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

    The per-layer input `survival` overrides the field of that name. `keeps` draws the b of a batch
    before the body is computed, so that a Residual can leave the body out; the call then gets this
    b as `keep`. A call without `keep` draws b itself.

    Shapes: s and f are equal. Raises: ValueError if they are not.
    Source: Huang et al. 2016, arXiv:1603.09382, eq. 2 and 5.
    """

    survival: float = 1.0
    per: Literal["batch", "sample"] = "batch"
    rescale: Literal["train", "test"] = "test"

    inputs = ("survival",)

    def keeps(self, survival=None) -> Any:
        """Draw b for the whole batch; return None if nothing is drawn, or a b for each example."""
        if self.per == "sample" or not self.has_rng("drop"):
            return None
        return jax.random.bernoulli(self.make_rng("drop"), self._chance(survival))

    @nn.compact
    def __call__(self, s, f, z, survival=None, keep=None):
        """s + b f."""
        check_shapes(s, f)
        chance = self._chance(survival)
        p = chance.astype(f.dtype)
        if not self.has_rng("drop"):
            gain = p if self.rescale == "test" else jnp.ones_like(p)
        else:
            if self.per == "batch":
                gain = self.keeps(survival) if keep is None else keep
            else:
                keys = example_keys(self, f.shape[0])
                gain = jax.vmap(lambda key: jax.random.bernoulli(key, chance))(keys)
                gain = gain.reshape(gain.shape + (1,) * (f.ndim - 1))
            gain = gain.astype(f.dtype)
            gain = gain / p if self.rescale == "train" else gain
        sow_gains(self, jnp.ones_like(p), gain)
        return s + gain * f

    def _chance(self, survival):
        # The draw is in float32 whatever the type of f: bfloat16 has no number between 0.996 and 1,
        # so that a survival of 0.999 would never drop the body.
        return jnp.asarray(self.survival if survival is None else survival, jnp.float32)


# The four forms by the names that configs use; DROPS[name](survival=p) makes the merge.
DROPS: Mapping[str, Callable[..., Dropped]] = {
    "stochastic_depth": functools.partial(Dropped, per="batch", rescale="test"),
    "stochastic_depth_rescaled": functools.partial(Dropped, per="batch", rescale="train"),
    "drop_path": functools.partial(Dropped, per="sample", rescale="train"),
    "drop_path_unscaled": functools.partial(Dropped, per="sample", rescale="test"),
}
