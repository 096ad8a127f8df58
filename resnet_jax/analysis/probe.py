"""One probe for all instruments: it reads and changes a network's signal and its gradient.

The probe is an interceptor of flax. It changes no module, and a network without the probe costs
nothing more. A Stack stays one loop, because values go in and out through collections of
variables, which a Stack hands to its layers.

`probed(apply, see)` sows see[point](value) into `intermediates`. The points of a Residual are its
INPUT x_l, its BODY's output f and its OUTPUT x_l+1; at the point EVERY the values are the outputs
of all modules. If the variables hold one of the following arrays at the path of a Residual, the
probe uses the array. Arrays are arguments of `apply`, so that other numbers compile nothing again.

    taps.POINT            t, added to the value: the gradient with respect to t is dE/d(value)
    reports.POINT         zeros; the gradient with respect to them is report[POINT](dE/d(value))
    scales.body           a number that multiplies the body's output: 0 deletes the body
    routes.body, .skip    numbers that multiply the gradients through the body, and through all else
                          in the block; values stay the same
    lesions.block         0 leaves out the whole block, whose output is then its input
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from resnet_jax.analysis.order import Order, Path
from resnet_jax.models.residual import Residual

INPUT, BODY, OUTPUT, EVERY = "input", "body_output", "output", "every"
See = Mapping[str, Callable[[Any], Any]]


def probed(
    apply: Callable, see: See, *, report: See | None = None, order: Order | None = None
) -> Callable:
    """Return `apply` with the probe in place; its `mutable` gains `intermediates`.

    `see` and `report` have a function for each point. `order` is filled while the network is
    traced.
    """

    def run(variables: Any, *inputs: Any, mutable: Sequence[str] = (), **options: Any) -> Any:
        probe = _Probe(see, report or {}, Order() if order is None else order)
        with nn.intercept_methods(probe.intercept):
            return apply(variables, *inputs, mutable=[*mutable, "intermediates"], **options)

    return run


def sown_at(changed: Any, point: str) -> dict[Path, Any]:
    """Return what the probe has sown at a point, by the path of the module."""
    sown = flat(changed.get("intermediates", {}))
    return {path[:-2]: value for path, value in sown.items() if path[-2:] == ("probe", point)}


def flat(tree: Any) -> dict[Path, Any]:
    """Return the leaves of a tree of dicts by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(str(key.key) for key in path): leaf for path, leaf in leaves}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def report(function: Callable, x: Any, tap: Any) -> Any:
    """Return x; the gradient with respect to `tap` is function(dE/dx).

    A Stack then stores function(dE/dx) for each layer, for example a norm, and not dE/dx.
    """
    return x


def _report_forward(function, x, tap):
    return x, None


def _report_backward(function, _, g):
    return g, function(g)


report.defvjp(_report_forward, _report_backward)


def _scale_gradient(x: Any, number: Any) -> Any:
    """Return x; its gradient is multiplied by `number`."""
    fixed = lax.stop_gradient(x)
    return fixed + number.astype(x.dtype) * (x - fixed)


@dataclasses.dataclass
class _Open:
    """A Residual whose call has begun, and the input of its body if skip and body are routed."""

    module: Any
    body_input: Any = None


@dataclasses.dataclass
class _Probe:
    see: See
    report: See
    order: Order
    open: list[_Open] = dataclasses.field(default_factory=list)

    def intercept(self, call: Callable, arguments: Any, keywords: Any, context: Any) -> Any:
        """Call a method of a module; this is an interceptor of flax."""
        module = context.module
        if context.method_name != "__call__":
            return call(*arguments, **keywords)
        path = self.order.enter(module)
        block = self.open[-1] if self.open and self.open[-1].module is module.parent else None
        if isinstance(module, Residual):
            result = self._block(module, call, *arguments, **keywords)
        elif block and module.name == "before":
            result = self._route_skip(block, call(*arguments, **keywords))
        elif block and module.name == "body":
            result = self._body(block, call, *arguments, **keywords)
        else:
            result = call(*arguments, **keywords)
        self.order.leave(module, path)
        return self._sow(module, EVERY, result)

    def _block(self, module: Any, call: Callable, x: Any, **keywords: Any) -> Any:
        x = self._at(module, INPUT, x)
        block, z = _Open(module), x
        self.open.append(block)
        if not isinstance(module.before, nn.Module):
            z = self._route_skip(block, x, module.before)
        y = call(z, **keywords)
        self.open.pop()
        kept = module.get_variable("lesions", "block")
        y = y if kept is None else jnp.where(kept > 0, y, x)
        return self._at(module, OUTPUT, y)

    def _route_skip(self, block: _Open, x: Any, before: Callable = lambda x: x) -> Any:
        """Return the input of the block's skip, and keep that of its body."""
        number = block.module.get_variable("routes", "skip")
        if number is None:
            return x
        block.body_input = before(x)
        return _scale_gradient(x, number)

    def _body(self, block: _Open, call: Callable, z: Any, **keywords: Any) -> Any:
        module = block.module
        f = call(z if block.body_input is None else block.body_input, **keywords)
        number, scale = module.get_variable("routes", "body"), module.get_variable("scales", "body")
        f = f if number is None else _scale_gradient(f, number)
        f = f if scale is None else scale.astype(f.dtype) * f
        return self._at(module, BODY, f)

    def _at(self, module: Any, point: str, x: Any) -> Any:
        """Return the value at a point of a Residual, with the taps that the variables have."""
        tap, zeros = (module.get_variable(name, point) for name in ("taps", "reports"))
        x = x if tap is None else x + tap
        x = x if zeros is None else report(self.report[point], x, zeros)
        return self._sow(module, point, x)

    def _sow(self, module: Any, point: str, x: Any) -> Any:
        if point in self.see:
            seen = module.get_variable("intermediates", "probe") or {}
            keep = lambda _, new: new
            module.sow("intermediates", "probe", seen | {point: self.see[point](x)}, keep, dict)
        return x
