"""Sums over examples, divided once, at the end; and the records they become."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from resnet_jax.distributed import by_first
from resnet_jax.training.directory import AnyPath, is_remote, to_disk, write

Sums = dict[str, Float[Array, ""]]


def sums(logits: Float[Array, "b y"], labels: Int[Array, "b"], mask: Bool[Array, "b"]) -> Sums:
    """Cross-entropy (nats), errors and examples, summed over the examples of the mask."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    wrong = (logits.argmax(-1).astype(labels.dtype) != labels).astype(losses.dtype)
    counted = mask.astype(losses.dtype)
    return {
        "loss": (losses * counted).sum(),
        "error": (wrong * counted).sum(),
        "examples": counted.sum(),
    }


def sums_top5(logits: Float[Array, "b y"], labels: Int[Array, "b"], mask: Bool[Array, "b"]) -> Sums:
    """`sums`, and the labels that are not among the five likeliest classes (error_top5)."""
    best = lax.top_k(logits, min(5, logits.shape[-1]))[1]
    missed = (best.astype(labels.dtype) != labels[:, None]).all(-1)
    found = sums(logits, labels, mask)
    return found | {"error_top5": (missed & mask).astype(found["error"].dtype).sum()}


def mean(sums: Mapping[str, Any]) -> dict[str, Any]:
    """Sums, added up over any leading axes, over their examples: {'loss', ..., 'examples'}.

    Steps that were `skipped` are counted, and have no examples; where there are no others, there
    are no means.
    """
    total = {name: float(np.asarray(value, np.float64).sum()) for name, value in sums.items()}
    counts = {name: int(total.pop(name)) for name in ("examples", "skipped") if name in total}
    if not counts["examples"]:
        return counts
    return {name: value / counts["examples"] for name, value in total.items()} | counts


def means(sums: Mapping[str, Any], replicas: int) -> list[dict[str, Any]]:
    """`mean` of each replica's sums, whose first axis are the replicas where there are several."""
    if replicas == 1:
        return [mean(sums)]
    return [mean({name: value[r] for name, value in sums.items()}) for r in range(replicas)]


@by_first
def append(path: AnyPath, records: Iterable[dict[str, Any]]) -> None:
    """Add records to a metrics.jsonl, one JSON object a line."""
    lines = "".join(json.dumps(record) + "\n" for record in records)
    if is_remote(path):
        write(path, (path.read_text() if path.exists() else "") + lines)
        return
    to_disk(path, "a", lines)


def read(path: AnyPath) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line that a kill cut short is left out.

    Raises: OSError naming another line that is no record.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().decode(errors="replace").splitlines(keepends=True)
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.endswith("\n"):
                records.append(json.loads(line))
                records[-1]["step"]  # which every record has
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(f"{path}, line {number}, is damaged: {error}") from error
    return records


@by_first
def cut(path: AnyPath, step: int) -> None:
    """Forget the records after `step`: the run goes on from there and writes them again."""
    kept = [record for record in read(path) if record["step"] <= step]
    write(path, "".join(json.dumps(record) + "\n" for record in kept))


def last_epoch(records: Iterable[dict[str, Any]], examples: int, seed: int) -> dict[str, float]:
    """Loss and error over the last epoch's training batches of one seed, as seen in training.

    He et al. 2015's training error. Whole records are taken, from the last one backwards, until
    they cover `examples`; a run shorter than an epoch gives all it has.
    """
    taken, seen = [], 0
    own = [r for r in records if r["split"] == "train" and r["seed"] == seed and r["examples"]]
    for record in sorted(own, key=lambda r: -r["step"]):
        if seen >= examples:
            break
        taken.append(record)
        seen += record["examples"]
    weigh = lambda name: sum(r[name] * r["examples"] for r in taken) / seen
    return {"loss": weigh("loss"), "error": weigh("error")}
