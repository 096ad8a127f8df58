"""The residual block, and the two ways to build a network from blocks.

    z     = before(x_l)
    x_l+1 = after(merge(skip(z), body(z), z))

This is He et al. 2016 (arXiv:1603.05027), eq. 1-2, with the addition made a parameter (`merge`).
`skip` is the paper's h, `body` its F and `after` its f. `before` is the activation that the first
block of a pre-activation network shares between skip and body (sec. 4.1, implementation details).

A `Chain` applies different blocks one after the other. A `Stack` applies equal blocks in a loop.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict, bind
from flax.core.scope import subtract_filters
from flax.linen import module as flax_module
from jax import lax

from resnet_jax.models.inputs import check_lengths, check_names, declared_by_any, hand, select
from resnet_jax.models.merges import add
from resnet_jax.models.skips import identity

# What a Stack stores for its gradient, from the most to the least.
Remat = Literal["none", "block", "sqrt"]
# A segment with at most this many layers is recomputed in one go (see `segmentation`).
WHOLE = 6


class Residual(nn.Module):
    """One block: `merge` joins what the block learns (`body`) and what it keeps (`skip`).

    Each field is a plain function, or a Module if it has weights or draws at random. Functions and
    Modules are called in the same way. Per-layer inputs, such as the survival of stochastic depth,
    reach those of the five fields that declare them (inputs.py).

    A merge may draw whether a batch keeps the body before the body is computed. Such a merge has a
    method `keeps`, which takes the merge's inputs and returns a boolean, or None if nothing is
    drawn. The boolean b then chooses a branch (`lax.cond`): if b is false, neither pass computes
    the body, and the merge gets zeros for f. The merge gets b as `keep`. Under `vmap` over
    different draws JAX computes both branches and selects, which saves nothing. All devices that
    share a batch must draw the same b, because the body may contain collectives.
    """

    body: Callable
    skip: Callable = identity
    merge: Callable = add
    before: Callable = identity
    after: Callable = identity

    @property
    def parts(self) -> tuple[Callable, ...]:
        """The functions and Modules of the block, in the order of their calls."""
        return self.before, self.skip, self.body, self.merge, self.after

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the per-layer inputs that a part of the block declares."""
        return declared_by_any(self.parts)

    @nn.compact
    def __call__(self, x, /, **inputs):
        """x_l -> x_l+1."""
        check_names(self, inputs)
        before, skip, body, merge, after = (hand(part, inputs) for part in self.parts)
        z = before(x)
        keep = None
        if hasattr(self.merge, "keeps") and not self.is_initializing():
            keep = self.merge.keeps(**select(self.merge, inputs))
        if keep is None:
            return after(merge(skip(z), body(z), z))
        return after(merge(skip(z), self._body_if(keep, z, inputs), z, keep=keep))

    def _body_if(self, keep, z, inputs):
        """Return body(z) if `keep`, else zeros; then the body is not computed.

        A body that is left out keeps its variables as they are, for example the running statistics
        of its norms. Zeros stand for what it would have sown.
        """
        compute, variables = _pure(self.body, select(self.body, inputs))
        before = dict(jax.tree_util.tree_leaves_with_path(variables))
        zeros = lambda a: jnp.zeros(a.shape, a.dtype)
        stay = lambda path, a: before[path] if path in before else zeros(a)

        def leave_out(z):
            y, changed = jax.eval_shape(compute, z)
            return zeros(y), jax.tree_util.tree_map_with_path(stay, changed)

        y, changed = lax.cond(keep, compute, leave_out, z)
        for col, tree in changed.items():
            for name, value in tree.items():
                self.body.put_variable(col, name, value)
        return y


class Chain(nn.Module):
    """Different blocks one after the other, each under its own name: last(... first(x)).

    Per-layer inputs reach the blocks that declare them (inputs.py), so that a Chain can be the
    block of a Stack.
    """

    blocks: Mapping[str, nn.Module]

    def __post_init__(self):
        _freeze(self, "blocks")
        super().__post_init__()

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """The blocks in their order."""
        return tuple(self.blocks.values())

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the per-layer inputs that a block declares."""
        return declared_by_any(self.parts)

    @nn.compact
    def __call__(self, x, /, **inputs):
        """Apply every block in turn."""
        check_names(self, inputs)
        for name, block in self.blocks.items():
            # flax calls a module in a field blocks_<name>; the copy is called <name>.
            x = hand(block.copy(name=name), inputs)(x)
        return x


def stacked_axes(net: Any, tree: Any, axes: int = 0) -> Any:
    """Return, for each array of a network's `tree`, how many of its leading axes count layers.

    `tree` are the network's parameters, or another collection of its variables.
    """
    if not isinstance(tree, Mapping):
        return axes
    if isinstance(net, Stack):
        return {"layers": stacked_axes(net.block, tree["layers"], axes + (not net.tied))}
    parts = net.blocks if isinstance(net, Chain) else {}
    if isinstance(net, Residual):
        parts = {name: getattr(net, name) for name in ("before", "skip", "body", "merge", "after")}
    return {name: stacked_axes(parts.get(name), inner, axes) for name, inner in tree.items()}


class Stack(nn.Module):
    """`depth` equal blocks in one `lax.scan`: x_l = block_l(x_l-1) for l = 1 .. depth.

    The program contains the block once, so that 1000 layers compile as fast as 2. x may be a tree
    of arrays, for example the (c, h) of an LSTM. The block must keep the shapes and types of x.

    Variables. The variables that the block creates in any collection stand under the name `layers`,
    stacked along a leading axis of length `depth`. Layer l sees slice l. If the caller lets the
    collection change, the new slices come back stacked in the same way. There is one exception: if
    `tied`, all layers share `params`, which then have no such axis. An array at the top of a
    collection belongs to the whole network and not to a block, such as the rows of a batch
    (dropout.py); it reaches every layer whole.

    Randomness. Every random stream that the caller gives reaches layer l as fold_in(key, l).

    Per-layer inputs. `stack(x, survival=p)` gives p[l] to layer l and there to the parts that
    declare the input `survival` (inputs.py). An input may be a tree; each of its arrays has a
    leading axis of length `depth`. `per_layer` holds inputs that are known when the network is
    built: a tuple of numbers for each name, one number for each layer. Inputs of the call override
    them.

    Outputs. If `outputs` is given, the Stack returns (x_depth, y), where y stacks outputs(x_l) of
    all layers; otherwise it returns x_depth.

    Memory. `remat` chooses what the forward pass stores for the gradient; the backward pass
    computes the rest again. 'none' stores every activation that the gradient needs, 'block' the
    input of each block, and 'sqrt' the input of each of about sqrt(depth) segments (see
    `segmentation`). `unroll` is the number of layers in one turn of the loop; if it is `depth` or
    more, no loop remains, and the compiler may then undo 'block', because it merges equal
    computations. Neither field changes the shape of a variable, so a checkpoint fits all of them.

    Raises: ValueError if the block changes the shape or type of x, if no part declares an input, if
    an input is missing, or if its first axis is not `depth` long.
    """

    block: nn.Module
    depth: int
    tied: bool = False
    per_layer: Mapping[str, tuple[float, ...]] = FrozenDict()
    remat: Remat = "none"
    unroll: int = 1
    outputs: Callable[[Any], Any] | None = None

    def __post_init__(self):
        _freeze(self, "per_layer")
        super().__post_init__()

    @property
    def parts(self) -> tuple[nn.Module, ...]:
        """The block, as the only part."""
        return (self.block,)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the per-layer inputs that the block declares."""
        return declared_by_any(self.parts)

    @nn.compact
    def __call__(self, x, /, **inputs):
        """x_0 -> x_depth, or (x_depth, stacked outputs)."""
        assert self.scope is not None
        fixed = {name: jnp.asarray(p, jnp.float32) for name, p in self.per_layer.items()}
        inputs = {**fixed, **inputs}
        check_names(self, inputs)
        check_lengths(self, inputs, self.depth)
        inputs = select(self.block, inputs)
        # Without a parent, the block's init and apply are pure functions. The loops and the
        # recomputation are therefore JAX's own and need no lifted transformation of flax.
        block = self.block.clone(parent=None)
        keys = {name: self.make_rng(name) for name in self.scope.rngs}
        rngs = lambda index: {name: jax.random.fold_in(key, index) for name, key in keys.items()}
        options = {"mutable": self.scope.mutable, "capture_intermediates": _capture_filter()}
        if self.is_initializing():
            return self._initialise(block, x, inputs, rngs, options)
        stacked, whole = self._collections()
        # What all layers share cannot change in one of them.
        options["mutable"] = subtract_filters(self.scope.mutable, ["params"] if self.tied else [])

        def step(x, layer):
            index, variables, inputs = layer
            variables = _joined(whole, variables)
            y, changed = block.apply(variables, x, **inputs, rngs=rngs(index), **options)
            _check_same(block, x, y)
            return y, (_without(changed, whole), self.outputs and self.outputs(y))

        layers = (jnp.arange(self.depth), stacked, inputs)
        x, (changed, outputs) = _fold(step, x, layers, self.remat, self.unroll)
        for col, tree in changed.items():
            self.put_variable(col, "layers", tree)
        return (x, outputs) if self.outputs else x

    def _initialise(self, block, x, inputs, rngs, options):
        """Create the variables of all layers. Every layer sees x_0, so that no loop is compiled."""

        def start(index, inputs):
            y, variables = block.init_with_output(rngs(index), x, **inputs, **options)
            _check_same(block, x, y)
            return variables

        for col, tree in jax.vmap(start)(jnp.arange(self.depth), inputs).items():
            if self.tied and col == "params":
                tree = jax.tree.map(lambda a: a[0], tree)
            self.put_variable(col, "layers", tree)
        if not self.outputs:
            return x
        repeat = lambda a: jnp.broadcast_to(a, (self.depth, *a.shape))
        return x, jax.tree.map(repeat, self.outputs(x))

    def _collections(self):
        """Return the Stack's variables, and those of the network that every layer sees whole."""
        stacked = {col: tree["layers"] for col, tree in self.variables.items() if "layers" in tree}
        whole = _whole(self.scope)
        if self.tied:
            whole["params"] = stacked.pop("params", {})
        return stacked, whole


def _pure(body, inputs):
    """Return z -> (body(z), the variables that it changed) as a pure function; and its variables.

    The function draws what the body would draw, and its modules have the paths of the body's.
    """
    if not isinstance(body, nn.Module):
        return lambda z: (body(z, **inputs), {}), {}
    scope, own = body.scope, body.variables
    assert scope is not None
    whole, rngs = _whole(scope), cast(Any, scope.rngs)

    def call(z):
        with bind(_joined(whole, own), rngs, scope.mutable).temporary() as inner:
            inner.path = scope.path
            y = body.clone(parent=inner)(z, **inputs)
        return y, _without(inner.mutable_variables(), whole)

    return call, own


def _whole(scope):
    """Return the arrays at the top of each collection, which belong to the whole network."""
    return {
        col: {name: a for name, a in tree.items() if isinstance(a, jax.Array | np.ndarray)}
        for col, tree in scope.root.variables().items()
    }


def _joined(whole, own):
    """Return the collections that a layer sees. The layer's own variables take precedence."""
    both = {col: {**whole.get(col, {}), **own.get(col, {})} for col in {**whole, **own}}
    return {col: tree for col, tree in both.items() if tree}


def _without(changed, whole):
    """Return the collections that a layer gives back, without what it was shown whole."""
    own = {
        col: {name: a for name, a in tree.items() if a is not whole.get(col, {}).get(name)}
        for col, tree in changed.items()
    }
    return {col: tree for col, tree in own.items() if tree}


def _capture_filter():
    """Return what the caller gave to `apply(..., capture_intermediates=...)`, or False.

    flax keeps the filters of nested calls in a stack, and offers no public way to read it. An inner
    apply that does not receive the filter would capture nothing.
    """
    filters = flax_module._context.capture_stack
    return filters[-1] if filters else False


def _freeze(module, field):
    """Turn the dict in a field into a FrozenDict, because modules are values: hash and compare."""
    object.__setattr__(module, field, FrozenDict(getattr(module, field)))


def _check_same(block, x, y):
    """Raise a ValueError unless y has the tree, the shapes and the types of x."""
    describe = lambda a: f"{jnp.result_type(a)}{list(jnp.shape(a))}"
    before, after = (jax.tree.map(describe, tree) for tree in (x, y))
    if before != after:
        raise ValueError(
            f"a Stack's block must keep the shape and type of its input, but {type(block).__name__}"
            f" turns {before} into {after}; put a block that changes them into a Chain"
        )


def _fold(step, x, layers, remat, unroll):
    """Scan `step` over the layers, storing for the gradient what `remat` says."""
    depth = len(layers[0])
    # prevent_cse=False: a scan already keeps the compiler from merging the two computations.
    again = jax.checkpoint(step, prevent_cse=False)

    def fold(step, x, start, n):
        # Slices are taken inside the segment: a reshape outside would copy all parameters.
        part = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, n), layers)
        return lax.scan(step, x, part, n, unroll=min(unroll, n))

    if remat != "sqrt":
        step = again if remat == "block" else step
        return lax.scan(step, x, layers, depth, unroll=min(unroll, depth))
    segments, each, rest = segmentation(depth)
    inner = again if each > WHOLE else step
    segment = jax.checkpoint(lambda x, start: fold(inner, x, start, each), prevent_cse=False)
    x, results = lax.scan(segment, x, each * jnp.arange(segments))
    results = jax.tree.map(lambda a: a.reshape(segments * each, *a.shape[2:]), results)
    if rest:
        x, last = fold(inner, x, depth - rest, rest)
        results = jax.tree.map(lambda *a: jnp.concatenate(a), results, last)
    return x, results


def segmentation(depth: int) -> tuple[int, int, int]:
    """Return (segments, layers per segment, remaining layers) for remat='sqrt'.

    The backward pass recomputes one segment at a time. A segment of at most WHOLE layers is
    recomputed in one go, which holds all activations of the segment; the number of segments is then
    round(sqrt(depth)). A longer segment stores the inputs of its blocks while it is recomputed, and
    each block is computed a third time; the three numbers are then those with the smallest sum,
    because each counts stored inputs. The remaining layers are treated as the layers within a
    segment.
    """
    near = round(math.sqrt(depth))
    if depth // near > WHOLE:
        stored = lambda n: n + sum(divmod(depth, n))
        near = min(range(near // 2, 2 * near), key=lambda n: (stored(n), abs(n - near)))
    return near, *divmod(depth, near)
