"""The one equation, and the two ways to fold it into a network.

    z      = before(x_l)
    x_l+1  = after(merge(skip(z), body(z), z))

He et al. 2016 (arXiv:1603.05027), eq. 1-2, with the `+` made a parameter (`merge`), h the `skip`,
F the `body` and f the `after`; `before` is the activation that a pre-activation net's first unit
shares between its two paths (sec. 4.1, implementation details).
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from resnet_jax.models.drop import batch_collection
from resnet_jax.models.merges import add
from resnet_jax.models.skips import identity

# By what a Stack keeps for its gradient, from most to least.
Remat = Literal["none", "block", "sqrt"]
# Layers of the longest segment that is computed again in one go.
WHOLE = 6


class Residual(nn.Module):
    """One block: what the layer learns (`body`) meets what it keeps (`skip`).

    Every field is a plain function or, where it owns weights or randomness, a Module; both are
    called the same way. `side` is what a merge wants for this layer alone, e.g. its survival.
    """

    body: Callable
    skip: Callable = identity
    merge: Callable = add
    before: Callable = identity
    after: Callable = identity

    @nn.compact
    def __call__(self, x, *side):
        """x_l -> x_l+1."""
        z = self.before(x)
        return self.after(self.merge(self.skip(z), self.body(z), z, *side))


class Chain(nn.Module):
    """A fold of unequal blocks, each under its own name: x -> last(... second(first(x))).

    `side` is what a block wants for itself, as in `Residual`, and reaches every one of them: a
    Chain can be a Stack's block.
    """

    blocks: Mapping[str, nn.Module]

    @nn.compact
    def __call__(self, x, *side):
        """Pass `x` through every block in turn."""
        for name, block in self.blocks.items():
            # As a field it would be called blocks_<name>; a copy made here is called <name>.
            x = block.copy(name=name)(x, *side)
        return x


class Stack(nn.Module):
    """A fold of `depth` equal blocks, x_L = block_L(... block_1(x)), as one `lax.scan`.

    The program holds the block once, so it compiles as fast for 1000 layers as for 2. Every
    variable of the block has a leading axis of length `depth` (`tied`: parameters have none, and
    all layers share them; statistics always have one). Layer l draws from fold_in(key, l).

    `per_layer` inputs have the same leading axis and reach the block as further arguments; `sides`
    are such inputs known when the network is built, numbers, one a layer (a survival).
    `unroll` layers make up one turn of the loop; `unroll >= depth` leaves no loop.
    `remat` says what is kept for the backward pass, which computes the rest again: 'none' all that
    it needs, 'block' each block's input, 'sqrt' the input of each of about sqrt(depth) segments.
    A segment of more than WHOLE layers keeps its blocks' inputs when it is computed again, so that
    they are computed a third time; layers that are left over keep what a segment at hand does.
    Layers that no loop holds are kept as by 'none', because the compiler finds that the two
    computations are one.
    None of these changes a parameter's shape, so a checkpoint moves between them.

    What a block sows (`gains`, `intermediates`) comes back stacked, shape (depth, ...).
    Raises: ValueError if the block changes its input's shape or type.
    """

    block: nn.Module
    depth: int
    tied: bool = False
    sides: tuple[tuple[float, ...], ...] = ()
    remat: Remat = "none"
    unroll: int = 1

    @nn.compact
    def __call__(self, x, *per_layer):
        """x_0 -> x_depth."""
        per_layer = (*(jnp.asarray(side, jnp.float32) for side in self.sides), *per_layer)
        # Unbound, the block's init and apply are pure functions: scan, loop and remat are then
        # jax's own, without a lifted transformation for each.
        block = self.block.clone(parent=None)
        shared = {"params"} if self.tied else set()
        if self.is_initializing():
            self._initialise(block, shared, x, per_layer)
            return x
        kept = {
            col: self.get_variable(col, "layers")
            for col in ("params", "batch_stats")
            if self.has_variable(col, "layers")
        }
        whole = {col: tree for col, tree in kept.items() if col in shared}
        # Of the examples, alike for every layer: see drop.py.
        whole |= batch_collection(self)
        sliced = {col: tree for col, tree in kept.items() if col not in shared}
        changing = [
            col
            for col in ("batch_stats", "gains", "intermediates")
            if self.is_mutable_collection(col)
        ]
        streams = {name: self.make_rng(name) for name in ("drop",) if self.has_rng(name)}

        def step(x, layer):
            index, variables, inputs = layer
            rngs = {name: jax.random.fold_in(key, index) for name, key in streams.items()}
            y, changed = block.apply(
                {**whole, **variables}, x, *inputs, rngs=rngs, mutable=changing
            )
            _check_same(block, x, y)
            return y, changed

        layers = (jnp.arange(self.depth), sliced, per_layer)
        x, changed = _fold(step, x, layers, self.remat, self.unroll)
        for col, tree in changed.items():
            self.put_variable(col, "layers", tree)
        return x

    def _initialise(self, block, shared, x, per_layer):
        first = jax.tree.map(lambda a: a[0], per_layer)
        init = lambda key: {
            col: tree
            for col, tree in block.init({"params": key, "drop": key}, x, *first).items()
            if col in ("params", "batch_stats")
        }
        key = self.make_rng("params")
        layers = jax.vmap(init)(
            jax.vmap(lambda l: jax.random.fold_in(key, l))(jnp.arange(self.depth))
        )
        for col, tree in layers.items():
            if col in shared:
                tree = jax.tree.map(lambda a: a[0], tree)
            self.put_variable(col, "layers", tree)


def _fold(step, x, layers, remat, unroll):
    """`lax.scan` of `step` over the layers, keeping for its gradient what `remat` says."""
    depth = len(layers[0])
    # prevent_cse=False: the scan already keeps the two computations apart, at no cost.
    again = jax.checkpoint(step, prevent_cse=False)

    def fold(step, x, start, n):
        # Sliced here and not reshaped outside, which would copy all parameters.
        part = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, n), layers)
        return lax.scan(step, x, part, n, unroll=min(unroll, n))

    if remat != "sqrt":
        step = again if remat == "block" else step
        return lax.scan(step, x, layers, depth, unroll=min(unroll, depth))
    segments, each, left = segmentation(depth)
    inner = again if each > WHOLE else step
    segment = jax.checkpoint(lambda x, start: fold(inner, x, start, each), prevent_cse=False)
    x, changed = lax.scan(segment, x, each * jnp.arange(segments))
    changed = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), changed)
    if left:
        x, last = fold(inner, x, depth - left, left)
        changed = jax.tree.map(lambda *a: jnp.concatenate(a), changed, last)
    return x, changed


def segmentation(depth: int) -> tuple[int, int, int]:
    """Segments, layers of each, and layers left over, whose inputs are the fewest together.

    round(sqrt(depth)) segments where these are computed again in one go, which holds all that is
    within one: of these, shorter ones count more than what is left over.
    """
    near = round(math.sqrt(depth))
    if depth // near > WHOLE:
        inputs = lambda n: n + sum(divmod(depth, n))
        near = min(range(near // 2, 2 * near), key=lambda n: (inputs(n), abs(n - near)))
    return near, *divmod(depth, near)


def _check_same(block, x, y):
    shapes = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype), tree)
    if shapes(x) != shapes(y):
        raise ValueError(
            f"a Stack's block must keep its input's shape and type, and {type(block).__name__} "
            f"turns {shapes(x)} into {shapes(y)}; put a block that changes it into a Chain"
        )
