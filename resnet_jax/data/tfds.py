"""The loader of tensorflow-datasets folders in array_record form, DATA_DIR/NAME[/CONFIG]/VERSION.

Such a folder is the default: it loads every data.name without a colon that is not in the table.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from resnet_jax.data import description, memory
from resnet_jax.data.array_records import ArrayRecords
from resnet_jax.data.dataset import DatasetInfo, Source
from resnet_jax.data.description import NAME
from resnet_jax.data.images import MODES
from resnet_jax.data.records import Records

# The label that tfds writes if an example has none.
UNLABELLED = -1


def find(name: str, data_dir: str) -> Source:
    """The newest version of data set `name`, which is NAME or NAME/CONFIG, in `data_dir`.

    Raises: ValueError, which says what to do, if the folder does not exist or is damaged, if the
        data set is not in array_record form, or if it is not for image classification.
    """
    folder = _folder(name, data_dir)
    try:
        described = description.read(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is damaged ({error}); {_prepare(name, data_dir)}") from error
    described = dataclasses.replace(described, files=_labelled(described.files))
    info = _info(name, data_dir, described)

    def examples(split: str) -> Records:
        """A split; a small one stays in memory, encoded, after it has been read."""
        files = described.files[split]
        size = sum(path.stat().st_size for path, _ in files if path.exists())
        keep = memory.may_keep(size, info.splits[split])
        return Records(name, split, ArrayRecords(files), info.shape, info.num_classes, keep)

    def class_names() -> tuple[str, ...]:
        """The lines of the folder's file of labels, if it has one for each class."""
        path = folder / "label.labels.txt"
        if not path.is_file():
            return ()
        names = tuple(path.read_text("utf-8", "replace").split("\n")[: info.num_classes])
        return names if len(names) == info.num_classes else ()

    def fingerprint() -> str:
        return _fingerprint(info, data_dir, folder, described)

    return Source(info, examples, class_names, fingerprint)


def _labelled(files: Mapping[str, list]) -> Mapping[str, list]:
    """The splits, without a test split whose examples have no labels.

    tfds writes the label -1 if there is none, as in ImageNet's test split. Errors are then measured
    on the validation split.
    """
    with contextlib.suppress(Exception):  # a file that is missing or damaged is named later
        store = ArrayRecords(files["test"])
        few = np.unique(np.linspace(0, len(store) - 1, 3).astype(np.int64))
        if (np.asarray(store.labels(few)) == UNLABELLED).all():
            return {split: of_split for split, of_split in files.items() if split != "test"}
    return files


def _info(name: str, data_dir: str, described: description.Description) -> DatasetInfo:
    """The data set's shape and counts. Raises: ValueError if it cannot be trained on."""
    splits = {split: sum(n for _, n in files) for split, files in described.files.items()}
    if described.form != "array_record":
        raise ValueError(
            f"data set {name!r} in {data_dir} is in {described.form} form, not array_record; "
            + _prepare(name, "OTHER_DIR")
        )
    if described.num_classes is None:
        raise ValueError(
            f"data set {name!r} has no image called 'image' with a class called 'label', but "
            f"{', '.join(described.features)}; only image classification can be trained"
        )
    if splits.get("train") == 0 or not (splits.get("test") or splits.get("validation")):
        counts = ", ".join(f"{split} ({n} examples)" for split, n in splits.items())
        raise ValueError(
            f"data set {name!r} has the labelled splits {counts or 'none'}; it needs examples in "
            "test or validation, and in train if a network is trained on it"
        )
    height, width, channels = described.shape if len(described.shape) == 3 else (-1, -1, -1)
    if described.dtype != "uint8" or channels not in MODES:
        raise ValueError(
            f"the images of data set {name!r} are {described.dtype} with "
            f"{channels if channels > 0 else 'any number of'} channels; "
            "8 bits and 1, 3 or 4 channels are supported"
        )
    shape = (height, width, channels) if min(height, width) > 0 else (None, None, channels)
    return DatasetInfo(name, described.version, shape, described.num_classes, splits)


def _fingerprint(
    info: DatasetInfo, data_dir: str, folder: Path, described: description.Description
) -> str:
    """A digest of the description and the record files' names and sizes.

    A change of content that keeps every file's name and size does not change the digest.
    Raises: ValueError if a record file is missing or too small for its examples.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((info.name, info.version, sorted(info.splits.items()))).encode())
    for file in ("dataset_info.json", "features.json"):
        digest.update((folder / file).read_bytes())
    for split in info.used_splits:
        for path, count in described.files[split]:
            if not path.is_file():
                raise ValueError(
                    f"data set {info.name!r}, split {split!r}: its record file {path} is missing; "
                    + _prepare(info.name, data_dir)
                )
            size = path.stat().st_size
            if count > size:  # an example takes at least a byte
                raise ValueError(
                    f"data set {info.name!r}, split {split!r}: its record file {path} of {size} "
                    f"bytes cannot hold the {count} examples that dataset_info.json says"
                )
            digest.update(repr((path.name, count, size)).encode())
    return digest.hexdigest()


def _folder(name: str, data_dir: str) -> Path:
    """The folder of a data set's newest version, DATA_DIR/NAME[/CONFIG]/VERSION."""
    if not re.fullmatch(f"{NAME}(/{NAME})?", name):
        raise ValueError(
            f"data.name={name!r} is not the name of a data set; use NAME or NAME/CONFIG of a "
            "tensorflow-datasets folder in data.dir, npz:PATH, folder:PATH or digits"
        )
    if not data_dir:
        raise ValueError(
            f"data set {name!r} needs data.dir, the tensorflow-datasets folder that holds it; "
            f"{_prepare(name, '')}, or use 'digits', which needs nothing"
        )
    root = Path(os.path.expanduser(data_dir))
    if not root.is_dir():
        raise ValueError(
            f"data.dir={data_dir!r} is not a folder; {_prepare(name, data_dir)}, "
            "or use 'digits', which needs nothing"
        )
    folders = [f.parent for f in (root / name).glob("*/dataset_info.json")]
    # An interrupted preparation leaves a folder whose name is not a version.
    versions = [f for f in folders if re.fullmatch(r"\d+\.\d+\.\d+", f.name)]
    if versions:
        return max(versions, key=lambda f: tuple(map(int, f.name.split("."))))
    if Path(name).expanduser().exists():
        kind = "folder" if Path(name).expanduser().is_dir() else "npz"
        raise ValueError(
            f"data set {name!r} is not in {data_dir}; a {kind} is named data.name={kind}:{name}"
        )
    files = [f for stars in ("*/*", "*/*/*") for f in root.glob(f"{stars}/dataset_info.json")]
    names = sorted({f.parent.parent.relative_to(root).as_posix() for f in files})
    nearest = difflib.get_close_matches(name, [*names, "digits"], 1)
    raise ValueError(
        f"data set {name!r} is not in {data_dir}, which holds {', '.join(names) or 'none'}"
        + (f" (nearest {nearest[0]!r})" if nearest else "")
        + f"; {_prepare(name, data_dir)}, or use 'digits', which needs nothing"
    )


def _prepare(name: str, data_dir: str) -> str:
    return f"prepare it with: scripts/prepare_tfds.sh {name} {data_dir or 'DATA_DIR'}"
