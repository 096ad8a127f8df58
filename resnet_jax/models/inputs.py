"""Per-layer inputs: named values that reach those parts of a network that declare them.

A part is a body, a skip, a merge or a whole block. A part declares the names of its inputs in the
attribute `inputs` and takes their values as keyword arguments:

    class Dropped(nn.Module):
        inputs = ("survival",)

        def __call__(self, s, f, z, survival=None): ...

    def weigh(s, f, z, weight):
        return s + weight * f

    weigh.inputs = ("weight",)

An input whose argument has a default may be left out; an input without one must be given. A
Residual, a Chain and a Stack list the parts that they consist of in `parts` and declare what these
parts declare.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def declared(part: Any) -> tuple[str, ...]:
    """Return the names of the inputs that a function or a Module declares."""
    if isinstance(part, functools.partial):
        return tuple(name for name in declared(part.func) if name not in part.keywords)
    return tuple(getattr(part, "inputs", ()))


def declared_by_any(parts: Iterable[Any]) -> tuple[str, ...]:
    """Return the names of the inputs that at least one of the parts declares, each name once."""
    return tuple(dict.fromkeys(name for part in parts for name in declared(part)))


def select(part: Callable, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of `inputs` that the part declares.

    Raises: ValueError if a declared input is missing and the part has no default for it.
    """
    for name in declared(part):
        if name not in inputs and _needs(part, name):
            raise ValueError(
                f"{_label(part)} declares the input {name!r} and has no default for it; call the "
                f"network with {name}=..., or give the Stack per_layer={{{name!r}: ...}}"
            )
    return {name: inputs[name] for name in declared(part) if name in inputs}


def hand(part: Callable, inputs: Mapping[str, Any]) -> Callable:
    """Return `part` with those of `inputs` bound as keyword arguments that the part declares.

    Raises: ValueError if a declared input is missing and the part has no default for it.
    """
    own = select(part, inputs)
    return functools.partial(part, **own) if own else part


def check_names(whole: Any, inputs: Mapping[str, Any]) -> None:
    """Raise a ValueError if no part of `whole` declares one of the inputs."""
    names = declared(whole)
    for name in inputs:
        if name not in names:
            known = [f"{each!r} (declared by {_declarers(whole, each)})" for each in names]
            raise ValueError(
                f"no part of this {_label(whole)} declares the input {name!r}; "
                f"its inputs: {', '.join(known) or 'none'}"
            )


def check_lengths(whole: Any, inputs: Mapping[str, Any], depth: int) -> None:
    """Raise a ValueError unless every input has a first axis of length `depth`."""
    for name, value in inputs.items():
        for shape in map(jnp.shape, jax.tree.leaves(value)):
            if shape[:1] != (depth,):
                raise ValueError(
                    f"the input {name!r} (declared by {_declarers(whole, name)}) has shape {shape} "
                    f"in a Stack of {depth} layers; its first axis must have length {depth}"
                )


def _needs(part: Callable, name: str) -> bool:
    """Return whether `part` has the argument `name` without a default."""
    argument = inspect.signature(part).parameters.get(name)
    return argument is not None and argument.default is inspect.Parameter.empty


def _declarers(part: Any, name: str) -> str:
    """Return the names of the functions and Module classes in `part` that declare the input."""

    def search(part):
        if hasattr(part, "parts"):
            return [label for inner in part.parts for label in search(inner)]
        return [_label(part)] if name in declared(part) else []

    return ", ".join(dict.fromkeys(search(part)))


def _label(part: Any) -> str:
    """Return the name of a function, or of a Module's class."""
    part = part.func if isinstance(part, functools.partial) else part
    return getattr(part, "__name__", type(part).__name__)
