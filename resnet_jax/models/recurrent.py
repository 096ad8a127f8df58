"""Recurrent layers: one cell for every step of a sequence, as a tied Stack over time.

    LSTM   i, g, o, f = W x_t + U h_t-1 + b
           c_t = merge(c_t-1, sigmoid(i) tanh(g), f)
           h_t = sigmoid(o) tanh(c_t)

    RNN    h_t = merge(h_t-1, tanh(W x_t + U h_t-1 + b))

The line of c is a skip connection through time, and its merge says what the cell keeps:

    add      c_t = c_t-1 + ...             the constant error carousel, with the weight 1.0 (1997)
    Forget   c_t = sigmoid(f) c_t-1 + ...  the forget gate (2000)
    plain    c_t = ...                     nothing

The plain tanh RNN (Elman 1990) has merge=plain; with `add` it is a residual network whose blocks
share their weights, and an LSTM of 1997 without gates.

Sources, from memory: Hochreiter & Schmidhuber 1997, Neural Computation 9; Gers et al. 2000, Neural
Computation 12. Differs: the cell of 1997 squashes its input to (-2, 2) and its state to (-1, 1) by
logistic functions, and both papers' experiments cut the gradient at the gates; here tanh stands for
both functions, as has become usual, and the gradient is whole. The cells have no peepholes.
"""

from collections.abc import Callable
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from resnet_jax.models.dense import Linear, classifier
from resnet_jax.models.dtypes import wide_type
from resnet_jax.models.merges import Forget
from resnet_jax.models.residual import Remat, Stack

Steps = Float[Array, "b t c"]
Hidden = Float[Array, "b t w"]
Carry = Any  # (c, h)


class LstmCell(nn.Module):
    """One step of an LSTM: the carry (c, h) and drive_t = W x_t + b -> the next (c, h).

    The columns of the drive are those of i, g, o and, if the merge is a forget gate, f. The kernel
    U starts uniform within 1 / sqrt(width), as PyTorch's.

    Shapes: c and h (b, width); drive (b, gates width) -> (c, h).
    """

    width: int
    merge: Callable = Forget()

    inputs = ("drive",)

    @property
    def gates(self) -> int:
        """The number of columns of the drive, in widths."""
        return 4 if isinstance(self.merge, Forget) else 3

    @nn.compact
    def __call__(self, carry: Carry, drive: Float[Array, "b n"]) -> Carry:
        """(c, h) -> the next (c, h)."""
        c, h = carry
        a = drive + _hidden_product(h, self.gates * self.width)
        i, g, o, *f = jnp.split(a, self.gates, -1)
        c = self.merge(c, nn.sigmoid(i) * jnp.tanh(g), f[0] if f else None)
        return c, nn.sigmoid(o) * jnp.tanh(c)


class TanhStep(nn.Module):
    """The body of a tanh RNN's block: h and drive_t = W x_t + b -> tanh(drive_t + U h).

    Shapes: h and drive (b, width) -> (b, width). U is that of `LstmCell`.
    """

    width: int

    inputs = ("drive",)

    @nn.compact
    def __call__(self, h: Float[Array, "b w"], drive: Float[Array, "b w"]) -> Float[Array, "b w"]:
        """Return what the step adds to h, or puts in its place."""
        return jnp.tanh(drive + _hidden_product(h, self.width))


class Recurrent(nn.Module):
    """A recurrent layer: a sequence -> the h of every step.

    `block` is one step, an LstmCell, or a Residual whose body is a TanhStep. The drives W x_t + b
    of all steps are one matrix product before the loop. W starts uniform within 1 / sqrt(width),
    and b at zero, but for the forget gate's, which starts at `forget_bias`. The loop compiles as
    fast for a thousand steps as for ten.

    `lengths` are the numbers of valid steps of padded examples. A step sees none that comes later,
    so that padding changes nothing before it; behind its last valid step an example gives the h of
    this step again.

    Shapes: (b, t, c) -> (b, t, width).
    """

    block: nn.Module
    width: int
    forget_bias: float = 0.0
    remat: Remat = "none"
    unroll: int = 1

    @nn.compact
    def __call__(self, x: Steps, lengths: Int[Array, "b"] | None = None) -> Hidden:
        """Read the sequence."""
        gates = self.block.gates if isinstance(self.block, LstmCell) else 1
        drive = Linear(gates * self.width, _uniform(self.width), bias=self._bias, name="input")(x)
        h = jnp.zeros((x.shape[0], self.width), x.dtype)
        start, hidden = ((h, h), lambda carry: carry[1]) if gates > 1 else (h, lambda carry: carry)
        loop = {"remat": self.remat, "unroll": self.unroll, "outputs": hidden}
        stack = Stack(self.block, x.shape[1], tied=True, **loop, name="steps")
        _, outputs = cast(Any, stack(start, drive=drive.swapaxes(0, 1)))
        outputs = outputs.swapaxes(0, 1)
        if lengths is None:
            return outputs
        last = jnp.minimum(jnp.arange(x.shape[1])[None], lengths[:, None] - 1)
        return jnp.take_along_axis(outputs, last[..., None], 1)

    def _bias(self, key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        forget = jnp.arange(shape[0]) >= 3 * self.width  # the columns of f, if there are any
        return jnp.where(forget, jnp.asarray(self.forget_bias, dtype), jnp.zeros((), dtype))


class AsSequence(nn.Module):
    """An example as a sequence: an image as its rows or as its pixels, a sequence as it is.

    Shapes: (b, h, w, c) -> (b, h, w c) or (b, h w, c); (b, t, c) -> (b, t, c), in `dtype`.
    """

    read: Literal["rows", "pixels"] = "rows"
    dtype: Any = jnp.float32

    def __call__(self, x: Float[Array, "b *n"]) -> Steps:
        """Cut each example of `x` into steps."""
        x = x.astype(self.dtype)
        if x.ndim == 4 and self.read == "rows":
            return x.reshape(*x.shape[:2], -1)
        return x.reshape(x.shape[0], -1, x.shape[-1])


class SequenceHead(nn.Module):
    """The outputs of the last step, or of every step: (b, t, c) -> (b, y) or (b, t, y), float32."""

    num_outputs: int
    of: Literal["last", "every"] = "last"

    @nn.compact
    def __call__(self, x: Steps) -> Float[Array, "b *t y"]:
        """Classify, or predict numbers."""
        if self.of == "last":
            return classifier(self.num_outputs, x[:, -1])
        y = classifier(self.num_outputs, x.reshape(-1, x.shape[-1]))
        return y.reshape(*x.shape[:2], self.num_outputs)


def _hidden_product(h: Float[Array, "b w"], width: int) -> Float[Array, "b n"]:
    """Return U h; call this from a compact method of the cell."""
    return nn.Dense(
        width,
        use_bias=False,
        kernel_init=_uniform(h.shape[-1]),
        dtype=h.dtype,
        param_dtype=wide_type(h),
        name="hidden",
    )(h)


def _uniform(width: int) -> Callable[..., Array]:
    """Return the initializer that draws uniform numbers within 1 / sqrt(width), as PyTorch does."""
    reach = width**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -reach, reach
    )
