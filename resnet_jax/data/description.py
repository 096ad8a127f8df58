"""The description of a tfds folder: dataset_info.json and features.json, which are not trusted.

The files may come from anywhere. Values that tfds would not write are refused, and so are names of
record files that lead out of the folder.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

# The name of a file or folder that leads to no other folder.
NAME = r"\w[\w.+=@,-]*"


@dataclasses.dataclass(frozen=True)
class Description:
    """The description of a data set.

    `files` maps a split to its record files in order, each with its number of examples; `form` is
    the format of these files. `shape` and `dtype` are those of an image as the description states
    them, () if it states no shape. If the data set has no image with a label, `num_classes` is
    None, and `shape` and `dtype` have no meaning.
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

    Raises: ValueError for values that tfds would not write; OSError if a file cannot be read.
    """
    about, features = (_load(folder / f"{file}.json") for file in ("dataset_info", "features"))
    features = _at(features, dict, "featuresDict", "features")
    form = _at(about, str, "fileFormat") if "fileFormat" in about else "tfrecord"
    common = _at(about, str, "version"), form, _files(folder, about), tuple(features)
    if not (_has(features, "image", "image") and _has(features, "label", "classLabel")):
        return Description(*common, None)
    image = _at(features, dict, "image", "image")
    size = _at(image, list, "shape", "dimensions") if _has(image, "shape", "dimensions") else []
    dtype = _at(image, str, "dtype") if "dtype" in image else "uint8"
    classes = _integer(_at(features, object, "label", "classLabel", "numClasses"), "numClasses")
    if classes < 1:
        raise ValueError(f"numClasses is {classes}, not a positive number")
    return Description(*common, classes, tuple(_integer(n, "dimensions") for n in size), dtype)


def _files(folder: Path, about: dict[str, Any]) -> dict[str, list[tuple[Path, int]]]:
    name, split_files = _at(about, str, "name"), {}
    for split in _at(about, list, "splits"):
        names = {"DATASET": name, "SPLIT": _at(split, str, "name"), "FILEFORMAT": "array_record"}
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        if _has(split, "filepathTemplate"):
            template = _at(split, str, "filepathTemplate") or template
        lengths = [_integer(n, "shardLengths") for n in _at(split, list, "shardLengths")]
        if min(lengths, default=0) < 0:
            raise ValueError(f"shardLengths has {min(lengths)}, which is negative")
        files = []
        for i, length in enumerate(lengths):
            index, total = f"{i:05d}", f"{len(lengths):05d}"
            names |= {"SHARD_INDEX": index, "NUM_SHARDS": total}
            file = _fill(template, names | {"SHARD_X_OF_Y": f"{index}-of-{total}"})
            if not re.fullmatch(NAME, file):
                raise ValueError(f"its record file {file[:80]!r} is not a file name")
            files.append((folder / file, length))
        split_files[names["SPLIT"]] = files
    return split_files


def _fill(template: str, names: dict[str, str]) -> str:
    """The template with each {NAME} replaced.

    `str.format` would also follow attributes and pad to any length.
    """
    return re.sub(r"\{(\w+)\}", lambda match: names.get(match[1], match[0]), template)


def _load(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises: ValueError for any other content; OSError."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} has no object{_but(content)}")
    return content


def _get(value: Any, keys: tuple[str, ...]) -> Any:
    """The value at these keys of nested objects, None if a key is missing."""
    for key in keys:
        value = value[key] if isinstance(value, dict) and key in value else None
    return value


def _at(value: Any, kind: type, *keys: str) -> Any:
    """The value at these keys of nested objects. Raises: ValueError if it is not of type `kind`."""
    inner = _get(value, keys)
    if inner is None or not isinstance(inner, kind):
        raise ValueError(f"it has no {'.'.join(keys)}{_but(inner)}")
    return inner


def _has(value: Any, *keys: str) -> bool:
    """Whether nested objects have a value at these keys."""
    return _get(value, keys) is not None


def _integer(value: Any, key: str) -> int:
    """An integer, which tfds writes as a string. Raises: ValueError for any other value."""
    if isinstance(value, str | int) and re.fullmatch(r"-?\d{1,10}", str(value), re.ASCII):
        return int(value)
    raise ValueError(f"{key} is not an integer{_but(value)}")


def _but(value: Any) -> str:
    return "" if value is None else f" but {str(value)[:40]!r}"
