"""What a tfds folder says of itself in dataset_info.json and features.json; none of it is trusted.

Files come from anywhere: what is not as tfds writes it is refused, and so are names of record files
that would leave the folder.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

# A name of a file or a folder, that leads to no other folder.
NAME = r"\w[\w.+=@,-]*"


@dataclasses.dataclass(frozen=True)
class Description:
    """Of a data set: `files` are each split's record files in order, with their examples' number.

    `form` is the record files', `shape` an image's as it is written there, () where it is not.
    Where there is no image with a label, `num_classes` is None and nothing is known of images.
    """

    version: str
    form: str
    files: dict[str, list[tuple[Path, int]]]
    features: tuple[str, ...]
    num_classes: int | None
    shape: tuple[int, ...] = ()
    dtype: str = "uint8"


def read(folder: Path) -> Description:
    """The description in a folder.

    Raises: ValueError for what is not as tfds writes it; OSError for a file that cannot be read.
    """
    about, features = (_load(folder / f"{file}.json") for file in ("dataset_info", "features"))
    features = _at(features, dict, "featuresDict", "features")
    form = _at(about, str, "fileFormat") if "fileFormat" in about else "tfrecord"
    known = _at(about, str, "version"), form, _files(folder, about), tuple(features)
    if not (_has(features, "image", "image") and _has(features, "label", "classLabel")):
        return Description(*known, None)
    image = _at(features, dict, "image", "image")
    size = _at(image, list, "shape", "dimensions") if _has(image, "shape", "dimensions") else []
    dtype = _at(image, str, "dtype") if "dtype" in image else "uint8"
    classes = _whole(_at(features, object, "label", "classLabel", "numClasses"), "numClasses")
    if classes < 1:
        raise ValueError(f"numClasses is {classes}, not a positive number")
    return Description(*known, classes, tuple(_whole(n, "dimensions") for n in size), dtype)


def _files(folder: Path, about: dict[str, Any]) -> dict[str, list[tuple[Path, int]]]:
    name, found = _at(about, str, "name"), {}
    for split in _at(about, list, "splits"):
        names = {"DATASET": name, "SPLIT": _at(split, str, "name"), "FILEFORMAT": "array_record"}
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        if _has(split, "filepathTemplate"):
            template = _at(split, str, "filepathTemplate") or template
        lengths = [_whole(n, "shardLengths") for n in _at(split, list, "shardLengths")]
        if min(lengths, default=0) < 0:
            raise ValueError(f"shardLengths has {min(lengths)}, which is negative")
        files = []
        for i, length in enumerate(lengths):
            index, total = f"{i:05d}", f"{len(lengths):05d}"
            names |= {"SHARD_INDEX": index, "NUM_SHARDS": total}
            file = _fill(template, names | {"SHARD_X_OF_Y": f"{index}-of-{total}"})
            if not re.fullmatch(NAME, file):
                raise ValueError(f"its record file {file[:80]!r} is no name of a file in it")
            files.append((folder / file, length))
        found[names["SPLIT"]] = files
    return found


def _fill(template: str, names: dict[str, str]) -> str:
    """A template's {NAME}s replaced; `str.format` would do more than that, and to any length."""
    return re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], found[0]), template)


def _load(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises: ValueError for anything else; OSError."""
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} has no object{_but(found)}")
    return found


def _at(found: Any, kind: type, *keys: str) -> Any:
    """The value at these keys of nested objects. Raises: ValueError where none of `kind` is."""
    for key in keys:
        found = found[key] if isinstance(found, dict) and key in found else None
    if found is None or not isinstance(found, kind):
        raise ValueError(f"it has no {'.'.join(keys)}{_but(found)}")
    return found


def _has(found: Any, *keys: str) -> bool:
    """Whether there is a value at these keys."""
    for key in keys:
        found = found[key] if isinstance(found, dict) and key in found else None
    return found is not None


def _whole(value: Any, key: str) -> int:
    """A whole number, which tfds writes as a string. Raises: ValueError for anything else."""
    if isinstance(value, str | int) and re.fullmatch(r"-?\d{1,10}", str(value), re.ASCII):
        return int(value)
    raise ValueError(f"{key} is no whole number{_but(value)}")


def _but(found: Any) -> str:
    return "" if found is None else f" but {str(found)[:40]!r}"
