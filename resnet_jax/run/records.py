"""Records of a run: the file metrics.jsonl, with one JSON object a line.

Every record has `step`, `split` ("train", "test" or "validation") and `seed`; the other columns
are means over `examples` examples.
"""

import json
from collections.abc import Iterable
from typing import Any

from resnet_jax.distributed import by_first
from resnet_jax.run.directory import AnyPath, is_remote, naming, read_bytes, to_disk, write


@by_first
def append(path: AnyPath, records: Iterable[dict[str, Any]]) -> None:
    """Add records to the end of a file. Raises: OSError that names the file."""
    lines = "".join(json.dumps(record) + "\n" for record in records)
    if not is_remote(path):
        to_disk(path, "a", lines)
        return
    with naming(path):
        earlier_lines = read_bytes(path).decode() if path.exists() else ""
    write(path, earlier_lines + lines)


def read(path: AnyPath) -> list[dict[str, Any]]:
    """Return the records of a file; an empty list if the file is absent.

    A process that is killed may leave an incomplete last line, which is ignored.
    Raises: OSError that names the file, and the line if a complete line is not a record.
    """
    if not path.exists():
        return []
    lines = read_bytes(path).decode(errors="replace").splitlines(keepends=True)
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.endswith("\n"):
                records.append(_checked(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(f"{path}, line {number}, is damaged: {error}") from error
    return records


def _checked(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record. Raises: KeyError or TypeError if it has no step, a whole number."""
    if not isinstance(record["step"], int):
        raise TypeError(f"its step is {record['step']!r}")
    return record


@by_first
def cut(path: AnyPath, step: int) -> None:
    """Remove the records after `step`, because a run that resumes there writes them again.

    Raises: OSError that names the file.
    """
    kept = [record for record in read(path) if record["step"] <= step]
    write(path, "".join(json.dumps(record) + "\n" for record in kept))


def last_epoch(
    records: Iterable[dict[str, Any]], examples: int, seed: int, score: str = "error"
) -> dict[str, float]:
    """Return {"loss": ..., score: ...} of one seed over the last epoch, measured in training.

    With `score` "error" this is our reading of the training error of He et al. 2015
    (arXiv:1512.03385, Fig. 6), which the paper does not define. Whole records are averaged, from
    the last record backwards, until they cover `examples` examples. A run shorter than an epoch is
    averaged over all its records.

    Args:
        records: the records of the run; `seed` selects one replica's.
        examples: the number of examples in an epoch.
        seed: the seed of the replica.
        score: the column of the task's score.
    """
    train_records = [
        record
        for record in records
        if record["split"] == "train" and record["seed"] == seed and record["examples"]
    ]
    averaged, total = [], 0
    for record in sorted(train_records, key=lambda record: -record["step"]):
        if total >= examples:
            break
        averaged.append(record)
        total += record["examples"]
    mean = lambda name: sum(record[name] * record["examples"] for record in averaged) / total
    return {"loss": mean("loss"), score: mean(score)}
