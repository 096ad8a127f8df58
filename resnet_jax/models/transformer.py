"""A Transformer layer as two residual blocks: attention, and an MLP on each token.

    x' = x  + attention(norm(x))
    x" = x' + mlp(norm(x'))

Vaswani et al. 2017 (arXiv:1706.03762), sec. 3, with the norm before each body instead of after each
sum (Dosovitskiy et al. 2021, arXiv:2010.11929, eq. 2-3). Tokens have the axes (b, t, c): examples,
tokens, channels. Dropout follows every dense layer except the one that computes queries, keys and
values (Dosovitskiy et al. 2021, app. B.1).
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.models.dropout import Dropout
from resnet_jax.models.dtypes import wide_type
from resnet_jax.models.merges import add
from resnet_jax.models.norm import LayerNorm
from resnet_jax.models.residual import Chain, Residual

Tokens = Float[Array, "b t c"]

XAVIER = nn.initializers.xavier_uniform()
# PyTorch's initial matrix: uniform within 1 / sqrt(fan-in).
TORCH = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Attention(nn.Module):
    """Self-attention with `heads` heads of d = c / heads channels each.

        q, k, v = x W,   head = softmax(q k' / sqrt(d)) v,   y = [head_1, ..., head_n] W_out

    Both products with matrices add a bias. Attention ignores the places of the tokens: permuted
    tokens give permuted outputs. The softmax is computed in float32, or in float64 if x is float64.

    Shapes: (b, t, c) -> (b, t, c); `heads` divides c.
    Source: Vaswani et al. 2017, eq. 1 and sec. 3.2.2; Dosovitskiy et al. 2021, eq. 5-8. Initialised
    as in torchvision: W by Xavier's uniform rule for the whole (c, 3c) matrix, W_out uniform within
    1 / sqrt(c).
    """

    heads: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Mix the tokens."""
        b, t, c = x.shape
        qkv = dense(3 * c, x, "qkv", XAVIER)(x).reshape(b, t, 3, self.heads, c // self.heads)
        q, k, v = jnp.unstack(qkv, axis=2)
        # jax.nn.dot_product_attention refuses bfloat16 if type promotion is strict.
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=wide_type(x))
        weights = nn.softmax(scores / math.sqrt(c // self.heads)).astype(x.dtype)
        heads = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape)
        return Dropout(self.dropout)(dense(c, x, "out", TORCH)(heads))


class Mlp(nn.Module):
    """A network with 4 c hidden units on each token: gelu(x W_1 + b_1) W_2 + b_2, with exact GELU.

    Shapes: (b, t, c) -> (b, t, c).
    Source: Dosovitskiy et al. 2021, Table 1 and sec. 3.1. Initialised as in torchvision: kernels by
    Xavier's uniform rule, biases N(0, 1e-6^2).
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
    """Return a dense layer that computes in the type of x. Call this from a compact method."""
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
    """Return one layer: two Residuals. A per-layer input that `merge` declares reaches both."""
    attention = Chain({"norm": norm(), "attention": Attention(heads, dropout)})
    mlp = Chain({"norm": norm(), "mlp": Mlp(dropout)})
    both = {"attention": Residual(attention, merge=merge), "mlp": Residual(mlp, merge=merge)}
    return Chain(both)
