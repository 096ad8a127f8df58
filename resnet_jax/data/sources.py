"""Image classification data sets by name: the table of loaders, and loading.

`data.name` is PREFIX:PATH of a loader in the table, PREFIX alone if the loader needs no path, or
the name of a tensorflow-datasets folder in `data.dir`. A new kind of data set is a module with a
function (path, data_dir) -> Source, and a line in the table.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from resnet_jax.data import digits, folder, npz, tfds
from resnet_jax.data.dataset import Dataset, DatasetInfo, Examples, Source, Split
from resnet_jax.data.digits import DIGITS
from resnet_jax.data.memory import check_fits, device_limit, fits
from resnet_jax.data.records import READ_BYTES, Records

__all__ = (
    "DIGITS", "LOADERS", "Dataset", "DatasetInfo", "Source", "Split", "check_fits", "class_names",
    "dataset", "device_limit", "find", "fingerprint", "info", "load", "records",
)  # fmt: skip

# The loaders by the part of data.name before the colon; `tfds.find` loads all other names.
LOADERS: dict[str, Callable[[str, str], Source]] = {
    "digits": digits.find,
    "npz": npz.find,
    "folder": folder.find,
}


def find(name: str, data_dir: str) -> Source:
    """The data set that its loader has looked up.

    Raises: ValueError for an unknown prefix, and as the loader does.
    """
    prefix, colon, path = name.partition(":")
    if prefix in LOADERS:
        return LOADERS[prefix](path, data_dir)
    if colon:
        raise ValueError(
            f"data.name={name!r} has the unknown prefix {prefix!r}; the known prefixes are "
            f"{', '.join(LOADERS)}, and a name without a colon is a tensorflow-datasets folder in "
            "data.dir"
        )
    return tfds.find(name, data_dir)


def info(name: str, data_dir: str) -> DatasetInfo:
    """The description of a data set, without its images.

    Raises: ValueError if the data set does not exist or cannot be trained on: why, and what to do.
    """
    return find(name, data_dir).info


def records(about: DatasetInfo, data_dir: str, split: str) -> Examples:
    """A split to be read by index: Records of encoded images, or a Split that is in memory.

    Raises: ValueError as `info` does.
    """
    source = find(about.name, data_dir)
    if source.fingerprint is not None:
        return source.examples(split)
    whole = _in_memory(about.name, data_dir, False)
    return whole.train if split == "train" else whole.test


def fingerprint(about: DatasetInfo, data_dir: str) -> str:
    """The fingerprint of a data set that is not decoded.

    It changes with the description and the files' sizes; if the loader gives decoded images, it
    changes with their content.
    Raises: ValueError if a file is missing or too small for its examples.
    """
    source = find(about.name, data_dir)
    if source.fingerprint is not None:
        return source.fingerprint()
    return _in_memory(about.name, data_dir, False).fingerprint


def class_names(name: str, data_dir: str) -> tuple[str, ...]:
    """The names of the classes in order, () if the data set has none.

    Raises: ValueError as `info` does.
    """
    return find(name, data_dir).class_names()


def dataset(name: str, data_dir: str, stream: str, test_only: bool = False) -> Dataset:
    """A data set that is streamed 'always', 'never', or if the device cannot hold it ('auto').

    If it is `test_only`, no image of its training split is read.
    Raises: ValueError as `load` does.
    """
    source = _find(name, data_dir, test_only)
    size = _bytes(source.info)
    limit = device_limit(jax.local_devices()[0])
    if stream == "never" or (stream == "auto" and size is not None and fits(size, limit)):
        return load(name, data_dir, test_only)
    if source.fingerprint is None:
        return dataclasses.replace(_in_memory(name, data_dir, test_only), streamed=True)
    digest = source.fingerprint()
    train, test = _splits(source)
    return Dataset(source.info, train, test, digest, streamed=True)


def load(name: str, data_dir: str, test_only: bool = False) -> Dataset:
    """A data set that is read and decoded once in a process; its arrays are read-only.

    If it is `test_only`, no image of its training split is read.
    Raises: ValueError as `info` and `check_fits` do, before any image is read; and with split and
        index if an example is damaged, has another shape, or has a label outside the classes.
    """
    return _load(name, data_dir, test_only)


@functools.lru_cache(maxsize=2)
def _load(name: str, data_dir: str, test_only: bool) -> Dataset:
    source = _find(name, data_dir, test_only)
    size = _bytes(source.info)
    if size is None:
        raise ValueError(
            f"the images of data set {name!r} differ in size, so that they cannot be held on the "
            "device; use data.stream=auto"
        )
    check_fits(size, device_limit(jax.local_devices()[0]), name)
    if source.fingerprint is None:
        return _in_memory(name, data_dir, test_only)
    files = source.fingerprint() + "+"  # first, because it refuses missing files quickly
    train, test = (encoded and _decode(encoded) for encoded in _splits(source))
    return Dataset(source.info, train, test, files + _content(source.info, train, test))


@functools.lru_cache(maxsize=2)
def _in_memory(name: str, data_dir: str, test_only: bool) -> Dataset:
    """A data set whose loader gives decoded images, read once in a process."""
    source = _find(name, data_dir, test_only)
    train, test = _splits(source)
    return Dataset(source.info, train, test, _content(source.info, train, test))


def _find(name: str, data_dir: str, test_only: bool) -> Source:
    """The data set, without its training split if it is `test_only`."""
    source = find(name, data_dir)
    if not test_only:
        return source
    info = source.info
    splits = {info.test_split: info.splits[info.test_split]}
    return dataclasses.replace(source, info=dataclasses.replace(info, splits=splits))


def _splits(source: Source) -> tuple[Any, Any]:
    """The training split, None if there is none, and the test split."""
    train = source.examples("train") if "train" in source.info.used_splits else None
    return train, source.examples(source.info.test_split)


def _content(about: DatasetInfo, train: Any, test: Any) -> str:
    """A digest of two Splits' content, and of the name without a path; the arrays become read-only.

    The path is left out, so that a file can be moved.
    """
    digest = hashlib.blake2b(digest_size=16)
    name, _, _ = about.name.partition(":")
    digest.update(repr((name, about.version, len(train or ()), len(test))).encode())
    for split in filter(None, (train, test)):
        for array in (split.images, split.labels):
            array.flags.writeable = False
            digest.update(array.data)
    return digest.hexdigest()


def _decode(encoded: Any) -> Split:
    """All images of a split, decoded by threads."""
    assert isinstance(encoded, Records)
    shape: Any = (len(encoded), *encoded.shape)
    images, labels = np.empty(shape, np.uint8), np.empty(len(encoded), np.int32)
    rows = max(1, min(1000, READ_BYTES // math.prod(shape[1:])))

    def read(row: int) -> None:
        part = slice(row, min(row + rows, len(encoded)))
        ((images[part], labels[part]),) = encoded.read(np.arange(part.start, part.stop)[None])

    with ThreadPoolExecutor() as pool:  # the codecs release the GIL
        list(pool.map(read, range(0, len(encoded), rows)))
    return Split(images, labels)


def _bytes(about: DatasetInfo) -> int | None:
    """The size of the decoded data set in a memory; None if images differ in size.

    Each device holds a copy, and all devices of a CPU share the same memory.
    """
    height, width, channels = about.shape
    if height is None or width is None:
        return None
    copies = jax.local_device_count() if jax.local_devices()[0].platform == "cpu" else 1
    count = sum(about.splits[split] for split in about.used_splits)
    return copies * count * height * width * channels
