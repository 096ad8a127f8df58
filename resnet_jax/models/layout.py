"""How another library names and stores our weights: the rows that a family file writes down.

A row pairs one of our modules with a module of the library. In both names `{s}` and `{i}` stand for
the stage (from 1) and the block in it (from 0), `{k}` and `{j}` for numbers within the block, and
`{s-1}` for one less. The names of the leaves follow, after a dot or, if the library's name ends
with `_`, directly:

    kernel (HWIO or IO) <-> weight (OIHW or OI)     scale <-> weight     bias <-> bias
    mean <-> running_mean                           var <-> running_var

A parameter with any other name (a class token) has a row of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from resnet_jax.keys import Config

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


class Form(NamedTuple):
    """How an array is stored: `to_library` transforms ours, `from_library` the library's."""

    to_library: Callable[[np.ndarray], np.ndarray]
    from_library: Callable[[np.ndarray], np.ndarray]


# By the number of axes: a vector, a matrix, tokens (1, t, c), a convolution.
BY_AXES = {
    1: Form(lambda a: a, lambda a: a),
    2: Form(np.transpose, np.transpose),
    3: Form(lambda a: a, lambda a: a),
    4: Form(lambda a: a.transpose(3, 2, 0, 1), lambda a: a.transpose(2, 3, 1, 0)),
}
# A matrix that the library stores as a convolution of one tap, (O, I, 1, 1).
ONE_TAP = Form(lambda a: a.T[:, :, None, None], lambda a: a[:, :, 0, 0].T)


def flattened(size: int, axes: int = 2) -> Form:
    """Return the form of a matrix that sees a flattened `size` x `size` image.

    Our rows go by (h, w, c), the library's by (c, h, w). The library stores a matrix too, or with
    `axes=4` a convolution of that size, (O, C, H, W).
    """

    def to_library(a):
        conv = a.reshape(size, size, -1, a.shape[-1]).transpose(3, 2, 0, 1)
        return conv if axes == 4 else conv.reshape(len(conv), -1)

    def from_library(a):
        conv = a.reshape(len(a), -1, size, size).transpose(2, 3, 1, 0)
        return conv.reshape(-1, len(a))

    return Form(to_library, from_library)


class Row(NamedTuple):
    """The names of one module or parameter, ours and the library's.

    `kernel` is the form of the module's kernel if that is not the usual form (BY_AXES).
    """

    ours: str
    library: str
    kernel: Form | None = None


class Layout(NamedTuple):
    """The names that a library gives to the networks of these blocks.

    `values(config)` are the config values that the library's networks have: with others the same
    weights would fit and compute something else. `rows(config)` are the names, some of which depend
    on the depth. `old` turns names that the library had before into today's: pairs of a regular
    expression and its replacement.
    """

    library: str
    blocks: tuple[str, ...]
    values: Callable[[Config], Mapping[str, Any]]
    rows: Callable[[Config], Sequence[Row]]
    old: Sequence[tuple[str, str]] = ()
