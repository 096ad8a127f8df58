"""What is left out at random in training: elements (dropout), or whole bodies (stochastic depth).

There is no train flag: a module draws exactly where its caller gives a stream
(`apply(..., rngs={'drop': key})`). What concerns one example is drawn from the stream's key and the
example's place in the global batch, so that nothing depends on how a batch is shared out over
devices. The caller gives the places as the variable `row` of the collection `batch`,

    apply({'params': ..., 'batch': {'row': rows}}, x, rngs={'drop': key})

and 0, 1, 2, ... stand where it does not.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from resnet_jax.models.merges import check_shapes, sow_gains


def batch_collection(module: nn.Module) -> dict[str, dict[str, Any]]:
    """The collection `batch` that the network was applied with, for an inner apply."""
    scope = module.scope
    assert scope is not None, "a module sees the batch where it is applied"
    row = scope.root.get_variable("batch", "row")
    return {} if row is None else {"batch": {"row": row}}


def example_keys(module: nn.Module, examples: int) -> Key[Array, "b"]:
    """A key for each example of the batch, from the module's stream and the example's row."""
    given = batch_collection(module)
    rows = given["batch"]["row"] if given else jnp.arange(examples, dtype=jnp.int32)
    return jax.vmap(jax.random.fold_in, (None, 0))(module.make_rng("drop"), rows)


class Dropout(nn.Module):
    """Zero each element with probability `rate`; in training the others are divided by 1 - rate.

    Shapes: any; the first axis are the examples.
    Source: Srivastava et al. 2014, JMLR 15, sec. 4, scaled in training instead of at test time
    (its sec. 10). As a skip: He et al. 2016, arXiv:1603.05027, sec. 3.1, dropout shortcut.
    Differs: as a skip its expectation is x, where that section speaks of half of it at rate 0.5.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "b *rest"]) -> Float[Array, "b *rest"]:
        """`x` with elements dropped; `x` itself where there is nothing to draw from."""
        if not self.rate or not self.has_rng("drop"):
            return x
        keys = example_keys(self, x.shape[0])
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / jnp.asarray(1 - self.rate, x.dtype), jnp.zeros_like(x))


class Dropped(nn.Module):
    """Stochastic depth: x' = s + b f, b ~ Bernoulli(p), p the layer's survival.

    per='batch' draws one b for the whole batch (Huang et al.), 'sample' one for each example
    (DropPath). rescale='test' multiplies f by p in evaluation (Huang et al., eq. 5); 'train'
    divides b by p in training and leaves evaluation alone. Either way evaluation is the
    expectation over b of what this one block gives in training.

    `survival` is the field, or what reaches the merge as its layer's input in a Stack. The body is
    computed and multiplied by zero: the paper's saving of time is not to be had from this form.

    Shapes: s, f equal. Raises: ValueError if they are not.
    Source: Huang et al. 2016, arXiv:1603.09382, eq. 2 and 5.
    """

    survival: float = 1.0
    per: Literal["batch", "sample"] = "batch"
    rescale: Literal["train", "test"] = "test"

    @nn.compact
    def __call__(self, s, f, z, survival=None):
        """s + b f."""
        check_shapes(s, f)
        # float32 whatever f is: bfloat16 has no number between 0.996 and 1, and would never drop.
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


# The names of the four, for configs.
FORMS = {
    "stochastic_depth": Dropped(per="batch", rescale="test"),
    "stochastic_depth_rescaled": Dropped(per="batch", rescale="train"),
    "drop_path": Dropped(per="sample", rescale="train"),
    "drop_path_unscaled": Dropped(per="sample", rescale="test"),
}


def survivals(rule: Literal["linear", "uniform"], last: float, blocks: int) -> tuple[float, ...]:
    """p_l of every block l = 1 .. L: 1 - l / L (1 - p_L), or p_L everywhere.

    Source: Huang et al. 2016, arXiv:1603.09382, eq. 4.
    """
    if rule == "uniform":
        return (last,) * blocks
    return tuple(1 - l / blocks * (1 - last) for l in range(1, blocks + 1))
