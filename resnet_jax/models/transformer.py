"""A Transformer's layer as two residual blocks: tokens see each other, then each goes by itself.

    x' = x  + attention(norm(x))
    x" = x' + mlp(norm(x'))

Vaswani et al. 2017 (arXiv:1706.03762), sec. 3, with the norm before each body instead of after
each sum (Dosovitskiy et al. 2021, arXiv:2010.11929, eq. 2-3). Tokens are (b, t, c): examples,
places, channels. Dropout follows every dense layer but the one to queries, keys and values (2021,
app. B.1).
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.models.drop import Dropout
from resnet_jax.models.merges import add
from resnet_jax.models.norm import LayerNorm, wide_type
from resnet_jax.models.residual import Chain, Residual

Tokens = Float[Array, "b t c"]

XAVIER = nn.initializers.xavier_uniform()
# As PyTorch makes a matrix: uniform within 1 / sqrt(fan-in).
TORCH = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Attention(nn.Module):
    """Self-attention of `heads` heads of d = c / heads channels each.

        q, k, v = x W,   head = softmax(q k' / sqrt(d)) v,   y = [head_1, ..., head_n] W_out

    both products with biases. A token's place tells it nothing: permuted tokens give permuted
    outputs. The softmax is float32 at least, whatever x is.

    Shapes: (b, t, c) -> (b, t, c); `heads` divides c.
    Source: Vaswani et al. 2017, eq. 1 and sec. 3.2.2; Dosovitskiy et al. 2021, eq. 5-8. Initialised
    as torchvision's, where W is one matrix: Xavier's uniform over all of it; W_out within
    1 / sqrt(c) of zero.
    """

    heads: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Mix the tokens."""
        b, t, c = x.shape
        qkv = dense(3 * c, x, "qkv", XAVIER)(x).reshape(b, t, 3, self.heads, c // self.heads)
        q, k, v = jnp.unstack(qkv, axis=2)
        # Not jax.nn.dot_product_attention: it refuses bfloat16 where promotion is strict.
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=wide_type(x))
        weights = nn.softmax(scores / math.sqrt(c // self.heads)).astype(x.dtype)
        heads = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape)
        return Dropout(self.dropout)(dense(c, x, "out", TORCH)(heads))


class Mlp(nn.Module):
    """Each token by itself through 4 c hidden units: gelu(x W_1 + b_1) W_2 + b_2, GELU exact.

    Shapes: (b, t, c) -> (b, t, c).
    Source: Dosovitskiy et al. 2021, Table 1 and sec. 3.1. Initialised as torchvision's: kernels
    Xavier's uniform, biases N(0, 1e-6^2).
    """

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Transform each token."""
        bias = nn.initializers.normal(1e-6)
        hidden = nn.gelu(dense(4 * x.shape[-1], x, "dense1", XAVIER, bias)(x), approximate=False)
        hidden = Dropout(self.dropout)(hidden)
        return Dropout(self.dropout)(dense(x.shape[-1], x, "dense2", XAVIER, bias)(hidden))


def dense(
    width: int,
    x: Float[Array, "..."],
    name: str,
    kernel: Callable,
    bias: Callable = nn.initializers.zeros,
) -> nn.Dense:
    """A matrix and a bias that compute in x's type; to be called from a compact method."""
    return nn.Dense(
        width,
        kernel_init=kernel,
        bias_init=bias,
        dtype=x.dtype,
        param_dtype=wide_type(x),
        name=name,
    )


def layer(
    heads: int,
    *,
    merge: Callable = add,
    norm: Callable[..., nn.Module] = LayerNorm,
    dropout: float = 0.0,
) -> Chain:
    """One layer, two Residuals: what reaches it as its own in a Stack (a survival) reaches both."""
    attention = Chain({"norm": norm(), "attention": Attention(heads, dropout)})
    mlp = Chain({"norm": norm(), "mlp": Mlp(dropout)})
    both = {"attention": Residual(attention, merge=merge), "mlp": Residual(mlp, merge=merge)}
    return Chain(both)
