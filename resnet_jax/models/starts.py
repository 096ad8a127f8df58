"""How kernels start: by He's or Xavier's rule, orthogonal, linear, or as the identity.

    he                 N(0, v / n), n the fan-in or the fan-out
    xavier             U(-a, a), a = sqrt(6 / (n_in + n_out))
    delta_orthogonal   sqrt(v) Q at the kernel's centre, Q Q^T = 1, and zero elsewhere
    looks_linear       [Q, -Q; -Q, Q] at the centre, Q Q^T = 1, and zero elsewhere
    dirac              1 from each channel to itself at the centre, and zero elsewhere

v is 1 over the mean square of the activation on N(0, 1): 2 for the ReLU. Xavier's rule assumes an
activation that is about the identity, and has no v. With ReLUs, the channels behind a looks-linear
kernel are pairs (z, -z)^+, of which the next kernel makes z^+ - (-z)^+ = z again: a row of such
layers is a linear map without loss of length, and has no v either. The matrix of a dense layer is
all centre.

Sources: He et al. 2015, arXiv:1502.01852, eq. 10 and 14; Glorot & Bengio 2010, eq. 16; Xiao et al.
2018, arXiv:1806.05393 (delta-orthogonal kernels); Balduzzi et al. 2017, arXiv:1702.08591, sec. 4
(looks-linear; they write the pairs as a concatenated ReLU); Zagoruyko & Komodakis 2017,
arXiv:1706.00388 (the Dirac delta).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from resnet_jax.keys import Key, choice

KernelStart = Literal["he", "xavier", "delta_orthogonal", "looks_linear", "dirac"]

KEYS = {
    "model.kernel_start": Key(
        "he",
        choice(*get_args(KernelStart)),
        "how kernels start: by He's or Xavier's rule, or with an orthogonal matrix "
        "(delta_orthogonal), its mirrored form (looks_linear) or the identity (dirac) at the "
        "centre",
    )
}


def kernel_start(
    kind: KernelStart,
    fan: Literal["in", "out"] = "out",
    variance: float = 2.0,
    groups: int = 1,
) -> Callable[..., Array]:
    """Return the initializer (key, shape, dtype) -> kernel of this start.

    Shapes: (i, j, e, d) for a convolution of d channels whose groups see e channels each, (e, d)
    for a dense layer. `variance` is the v above, and `fan` chooses n.

    If a layer narrows (e > d), a delta-orthogonal kernel has Q^T Q = 1 instead: on its way back the
    gradient's length changes by sqrt(v) alone, and on the way forward the mean square of a channel
    by v, for inputs without a preferred direction. A looks-linear kernel whose inputs are odd in
    number, as the 1 or 3 channels of an image are, takes them as they are: [Q, -Q]. If a layer
    changes the number of channels, 'dirac' starts it by He's rule: channels that start at zero
    behind a ReLU would have no gradient and stay there, as they do with torch.nn.init.dirac_.
    """
    he = nn.initializers.variance_scaling(
        variance, "fan_in" if fan == "in" else "fan_out", "normal"
    )
    if kind == "xavier":
        return nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
    if kind == "delta_orthogonal":
        return functools.partial(_delta_orthogonal, math.sqrt(variance), groups)
    if kind == "looks_linear":
        return functools.partial(_looks_linear, groups)
    if kind == "dirac":
        return functools.partial(_dirac, groups, he)
    return he


def _orthogonal(shape: tuple[int, int], key: Any, dtype: Any) -> Float[Array, "e d"]:
    """Return a random matrix Q with Q Q^T = 1, or with Q^T Q = 1 if it narrows.

    The matrices of a Stack's layers are drawn one after the other. Batched, XLA:CPU (jax 0.10.2)
    shares a batch of QR decompositions out over its threads; with two threads, several batches at a
    time wait for each other without an end.
    """
    draw = jax.custom_batching.sequential_vmap(
        lambda key: nn.initializers.orthogonal()(key, shape, dtype)
    )
    return draw(key)


def _delta_orthogonal(scale: float, groups: int, key: Any, shape: Any, dtype: Any = jnp.float32):
    *_, e, d = shape
    draw = lambda key: scale * _orthogonal((e, d // groups), key, dtype)
    matrices = [draw(key) for key in jax.random.split(key, groups)]
    return at_centre(jnp.concatenate(matrices, -1), shape)


def _looks_linear(groups: int, key: Any, shape: Any, dtype: Any = jnp.float32):
    *_, e, d = shape
    if d % 2 or groups > 1:
        raise ValueError(
            f"model.kernel_start=looks_linear for {d} channels and groups={groups}: it pairs the "
            "channels of a single group; choose an even model.width, or another start"
        )
    inputs = e // 2 if e % 2 == 0 else e
    matrix = _orthogonal((inputs, d // 2), key, dtype)
    mirrored = jnp.concatenate([matrix, -matrix], -1)
    return at_centre(mirrored if e % 2 else jnp.concatenate([mirrored, -mirrored]), shape)


def _dirac(groups: int, other: Callable, key: Any, shape: Any, dtype: Any = jnp.float32):
    if groups * shape[-2] != shape[-1]:
        return other(key, shape, dtype)
    return identity_kernel(shape, dtype)


def identity_kernel(shape: tuple[int, ...], dtype: Any = jnp.float32) -> Float[Array, "*size e d"]:
    """Return the kernel whose convolution of as many channels is the identity, at stride 1.

    Shapes: (..., e, d) with d = groups e; output channel k has a 1 from channel k mod e of its
    group.
    """
    *_, e, d = shape
    return at_centre(jnp.tile(jnp.eye(e, dtype=dtype), (1, d // e)), shape)


def at_centre(matrix: Float[Array, "e d"], shape: tuple[int, ...]) -> Float[Array, "*size e d"]:
    """Return the kernel that has the matrix at its centre, which sees the output's own pixel."""
    centre = tuple((size - 1) // 2 for size in shape[:-2])
    return jnp.zeros(shape, matrix.dtype).at[centre].set(matrix)
