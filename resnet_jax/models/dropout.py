"""Dropout, and the keys from which each example of a batch draws.

No module has a train flag. A module draws if the caller gives the random stream `drop`
(`apply(..., rngs={'drop': key})`), and is deterministic otherwise.

What differs between examples is drawn from the stream's key and the example's row, its place in the
global batch. Draws therefore do not depend on how devices share the batch. The caller gives the
rows in the collection `batch`:

    apply({'params': ..., 'batch': {'row': rows}}, x, rngs={'drop': key})

Without `batch`, the rows are 0, 1, 2, ...
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def example_keys(module: nn.Module, examples: int) -> Key[Array, "b"]:
    """Return one key for each example, from the module's stream `drop` and the example's row."""
    assert module.scope is not None, "a module draws only while it is applied"
    # The rows belong to the whole network and to no module of it, hence the root.
    rows = module.scope.root.get_variable("batch", "row")
    if rows is None:
        rows = jnp.arange(examples, dtype=jnp.int32)
    return jax.vmap(jax.random.fold_in, (None, 0))(module.make_rng("drop"), rows)


class Dropout(nn.Module):
    """Zero each element with probability `rate`; training divides the others by 1 - rate.

    Shapes: any; the first axis is the examples.
    Source: Srivastava et al. 2014, JMLR 15, sec. 4, scaled in training instead of at test time
    (sec. 10). As a skip: He et al. 2016, arXiv:1603.05027, sec. 3.1, dropout shortcut.
    Differs: as a skip its expectation is x; He et al. 2016 expect x / 2 at rate 0.5.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "b *rest"]) -> Float[Array, "b *rest"]:
        """Drop elements of `x`; without a stream `drop` or a rate, return `x` itself."""
        if not self.rate or not self.has_rng("drop"):
            return x
        keys = example_keys(self, x.shape[0])
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
        return jnp.where(keep, x / jnp.asarray(1 - self.rate, x.dtype), jnp.zeros_like(x))
