"""Means over examples: a task sums over the examples of a batch, and the sums are divided once."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def mean(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"loss": mean, ..., "examples": count}: sums over all axes, divided by the examples.

    Skipped steps (`skipped` counts them) contribute no examples. If every step was skipped, return
    only the counts.
    """
    total = {name: float(np.asarray(value, np.float64).sum()) for name, value in sums.items()}
    counts = {name: int(total.pop(name)) for name in ("examples", "skipped") if name in total}
    if not counts["examples"]:
        return counts
    return {name: value / counts["examples"] for name, value in total.items()} | counts


def means(sums: Mapping[str, Any], replicas: int) -> list[dict[str, Any]]:
    """Return the `mean` of each replica; if there are several, the first axis is the replica."""
    if replicas == 1:
        return [mean(sums)]
    return [mean({name: value[r] for name, value in sums.items()}) for r in range(replicas)]
