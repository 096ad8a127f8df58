"""What the processes of a run do together: agree, wait, collect arrays; process 0 alone writes.

With a single process none of these functions communicates. `cluster.py` makes the processes meet.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def first() -> bool:
    """Return whether this is process 0, the only process that writes files and prints."""
    return jax.process_index() == 0


def by_first(function: Callable) -> Callable:
    """Return a function that calls `function` on process 0, and returns None on the others."""

    @functools.wraps(function)
    def call_on_first(*arguments, **keywords):
        return function(*arguments, **keywords) if first() else None

    return call_on_first


def agree(number: int | None) -> int | None:
    """Return the number (>= 0, or None) that process 0 gives, on every process."""
    if jax.process_count() == 1:
        return number
    of_process_0 = multihost_utils.broadcast_one_to_all(np.int32(-1 if number is None else number))
    return None if int(of_process_0) < 0 else int(of_process_0)


def of_first(text: str) -> str:
    """Return the text that process 0 gives, on every process."""
    if jax.process_count() == 1:
        return text
    size = agree(len(text.encode())) or 0
    data = np.frombuffer(text.encode()[:size].ljust(size), np.uint8)
    return multihost_utils.broadcast_one_to_all(data).tobytes().decode()


def wait(name: str) -> None:
    """Wait until every process has called this with the same `name`."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


_WISHES = itertools.count()


class Wish:
    """A wish of any process that all processes fulfil at the same boundary of the run.

    Every process asks at every boundary. Process 0 chooses the boundary two after its own, and
    writes it to the key-value store of `jax.distributed` before it dispatches the next piece of
    work. A process that reaches the chosen boundary has seen the results of that piece, to which
    process 0 contributed. So it finds the boundary in the store.
    """

    def __init__(self):
        # All processes create the same wishes in the same order, also in a second run.
        self._name = f"wish/{next(_WISHES)}"
        self._number, self._chosen, self._sent = 0, None, False

    def granted(self, wished: bool, boundary: int) -> bool:
        """Return whether all processes fulfil the wish now, at this boundary.

        Args:
            wished: whether this process has the wish.
            boundary: the number of the boundary; each call's number is one higher than the last.
        """
        if jax.process_count() == 1:
            return wished
        key = f"{self._name}/{self._number}"
        if not first() and wished and not self._sent:
            _store().key_value_set(f"{key}/wished", "1", allow_overwrite=True)
            self._sent = True
        if self._chosen is None:
            if first() and (wished or _read(f"{key}/wished")):
                self._chosen = boundary + 2
                _store().key_value_set(f"{key}/at", str(self._chosen))
            elif not first() and (chosen := _read(f"{key}/at")):
                self._chosen = int(chosen)
        if self._chosen != boundary:
            return False
        self._number, self._chosen, self._sent = self._number + 1, None, False
        return True


def _store() -> Any:
    from jax._src.distributed import global_state  # private; Orbax uses it, too

    return global_state.client


def _read(key: str) -> str | None:
    """Return the value of a key in the store; None if the store has no such key."""
    try:
        return _store().key_value_try_get(key)
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise


def fetch(tree: Any) -> Any:
    """Return the arrays of a tree as whole NumPy arrays, on every process."""
    if all(a.is_fully_addressable or a.is_fully_replicated for a in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)
