"""Small networks whose signal and gradient can be written down."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnet_jax.models.merges import add
from resnet_jax.models.residual import Chain, Residual, Stack

WIDTH = 3


class Linear(nn.Module):
    """x W, or relu(x) W."""

    relu: bool = False

    @nn.compact
    def __call__(self, x):
        start = nn.initializers.normal(0.5)
        kernel = self.param("kernel", start, (x.shape[-1], x.shape[-1]), x.dtype)
        return (nn.relu(x) if self.relu else x) @ kernel


def stack(depth, merge=add, relu=False, loop=None, **block):
    """A Stack of equal blocks, in a network; `loop` are options of the Stack."""
    block = Residual(Linear(relu), merge=merge, **block)
    return Chain({"stack": Stack(block, depth, **(loop or {}))})


def begin(net, examples=2):
    """Random variables and an input, in float64 if it is allowed."""
    x = jax.random.normal(jax.random.key(1), (examples, WIDTH), float)
    return net.init(jax.random.key(0), x), x


def kernels(variables):
    """The matrices of the layers of a `stack`."""
    return variables["params"]["stack"]["layers"]["body"]["kernel"]


def scalars(*weights):
    """Variables and the input 1 of a `stack` with one channel and these weights."""
    kernel = jnp.asarray(weights, float).reshape(-1, 1, 1)
    params = {"stack": {"layers": {"body": {"kernel": kernel}}}}
    return {"params": params}, jnp.ones((1, 1), float)


def square(y):
    """A loss."""
    return jnp.square(y).sum() / 2


def total(y):
    """A loss with the gradient 1."""
    return y.sum()
