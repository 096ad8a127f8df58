"""Image classification data sets as uint8 arrays: scikit-learn's digits, and any tfds folder."""

import dataclasses
import difflib
import functools
import hashlib
import importlib.util
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, Int32, UInt8

from resnet_jax.data import description
from resnet_jax.data.description import NAME
from resnet_jax.data.images import MODES
from resnet_jax.data.records import READ_BYTES, Labelled, Records


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples in the data set's own order."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(h, w, c) of an image."""
        return self.images.shape[1:]

    def read(self, indices: Int[np.ndarray, "k b"], fit: Any = None) -> list[Labelled]:
        """As `Records.read`, so that what is in memory can be streamed too."""
        return [(self.images[row], self.labels[row]) for row in indices]


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What a data set says of itself: shape (h, w, c) of an image, and examples in each split.

    Height and width are None where images differ in size: such data can be streamed only.
    """

    name: str
    version: str
    shape: tuple[int | None, int | None, int]
    num_classes: int
    splits: dict[str, int]

    @property
    def test_split(self) -> str:
        """The split that errors are measured on: `test`, or `validation` where there is none."""
        return "test" if self.splits.get("test") else "validation"


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set: held in memory and on the device, or `streamed`, read as it is needed.

    The fingerprint changes with its name, version, counts and files' sizes, and its second part,
    after a +, with the content of what is in memory.
    """

    info: DatasetInfo
    train: Split | Records
    test: Split | Records
    fingerprint: str
    streamed: bool = False


DIGITS = DatasetInfo("digits", "1", (8, 8, 1), 10, {"train": 1500, "test": 297})


def info(name: str, data_dir: str) -> DatasetInfo:
    """Look a data set up in the tfds folder `data_dir` without reading it; 'digits' needs none.

    Raises: ValueError for a data set that is not there, is not in array_record form or cannot be
        held as one array: what was found and what to do.
    """
    if name == "digits":
        return DIGITS
    found = _description(name, data_dir)
    splits = {split: sum(n for _, n in files) for split, files in found.files.items()}
    if found.form != "array_record":
        raise ValueError(
            f"data set {name!r} in {data_dir} is in {found.form} form, not array_record; "
            + _prepare(name, "OTHER_DIR")
        )
    if found.num_classes is None:
        raise ValueError(
            f"data set {name!r} has no image called 'image' with a class called 'label', but "
            f"{', '.join(found.features)}; only image classification can be trained"
        )
    if not splits.get("train") or not (splits.get("test") or splits.get("validation")):
        held = ", ".join(f"{split} ({n} examples)" for split, n in splits.items())
        raise ValueError(
            f"data set {name!r} has the splits {held or 'none'}; "
            "it needs examples in train, and in test or validation"
        )
    high, wide, channels = found.shape if len(found.shape) == 3 else (-1, -1, -1)
    if found.dtype != "uint8" or channels not in MODES:
        raise ValueError(
            f"the images of data set {name!r} are {found.dtype} with "
            f"{channels if channels > 0 else 'any number of'} channels; "
            "8 bits and 1, 3 or 4 channels are supported"
        )
    shape = (high, wide, channels) if min(high, wide) > 0 else (None, None, channels)
    return DatasetInfo(name, found.version, shape, found.num_classes, splits)


def _description(name: str, data_dir: str) -> description.Description:
    folder = _folder(name, data_dir)
    try:
        return description.read(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is damaged ({error}); {_prepare(name, data_dir)}") from error


def records(about: DatasetInfo, data_dir: str, split: str) -> Records:
    """A split of a tfds folder, to be read by index.

    One that takes little of the machine's memory stays there, encoded, once it has been read.
    """
    files, memory = _description(about.name, data_dir).files[split], _host_memory()
    size = sum(path.stat().st_size for path, _ in files if path.exists())
    # Several processes may share a machine, and each of them keeps what it reads.
    keep = memory is not None and size <= memory / 32 and sum(n for _, n in files) <= size
    return Records(about.name, split, files, about.shape, about.num_classes, keep)


def fingerprint(about: DatasetInfo, data_dir: str) -> str:
    """Of a data set that is not read whole: it changes with its description and its files' sizes.

    Content that changes while every file keeps its name and size goes unseen.
    Raises: ValueError for a record file that is missing or too small for its examples.
    """
    folder, files = _folder(about.name, data_dir), _description(about.name, data_dir).files
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((about.name, about.version, sorted(about.splits.items()))).encode())
    for file in ("dataset_info.json", "features.json"):
        digest.update((folder / file).read_bytes())
    for split in ("train", about.test_split):
        for path, count in files[split]:
            if not path.is_file():
                raise ValueError(
                    f"data set {about.name!r}, split {split!r}: its record file {path} is missing; "
                    + _prepare(about.name, data_dir)
                )
            size = path.stat().st_size
            if count > size:  # an example takes a byte and more
                raise ValueError(
                    f"data set {about.name!r}, split {split!r}: its record file {path} of {size} "
                    f"bytes cannot hold the {count} examples that dataset_info.json says"
                )
            digest.update(repr((path.name, count, size)).encode())
    return digest.hexdigest()


def class_names(name: str, data_dir: str) -> tuple[str, ...]:
    """The names of the classes, in order: empty where the tfds folder has none.

    Raises: ValueError as `info` does.
    """
    about = info(name, data_dir)
    path = None if name == "digits" else _folder(name, data_dir) / "label.labels.txt"
    if path is None or not path.is_file():
        return ()
    names = tuple(path.read_text(errors="replace").split("\n")[: about.num_classes])
    return names if len(names) == about.num_classes else ()


def _folder(name: str, data_dir: str) -> Path:
    """The newest version of a data set, DATA_DIR/NAME[/CONFIG]/VERSION."""
    if not re.fullmatch(f"{NAME}(/{NAME})?", name):
        raise ValueError(
            f"data.name={name!r} is no data set's name, which is NAME or NAME/CONFIG in the folder "
            "data.dir"
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
    # An interrupted preparation leaves a folder of another name.
    versions = [f for f in folders if re.fullmatch(r"\d+\.\d+\.\d+", f.name)]
    if versions:
        return max(versions, key=lambda f: tuple(map(int, f.name.split("."))))
    files = [f for stars in ("*/*", "*/*/*") for f in root.glob(f"{stars}/dataset_info.json")]
    there = sorted({f.parent.parent.relative_to(root).as_posix() for f in files})
    near = difflib.get_close_matches(name, [*there, "digits"], 1)
    raise ValueError(
        f"data set {name!r} is not in {data_dir}, which holds {', '.join(there) or 'none'}"
        + (f" (nearest {near[0]!r})" if near else "")
        + f"; {_prepare(name, data_dir)}, or use 'digits', which needs nothing"
    )


def _prepare(name: str, data_dir: str) -> str:
    return f"prepare it with: scripts/prepare_tfds.sh {name} {data_dir or 'DATA_DIR'}"


def dataset(name: str, data_dir: str, stream: str) -> Dataset:
    """A data set, streamed 'always', 'never', or where it is too large for the device ('auto').

    Raises: ValueError as `load` does.
    """
    about = info(name, data_dir)
    size = _bytes(about)
    limit = device_limit(jax.local_devices()[0])
    if stream == "never" or (stream == "auto" and size is not None and _fits(size, limit)):
        return load(name, data_dir)
    if name == "digits":
        return dataclasses.replace(load(name, data_dir), streamed=True)
    found = fingerprint(about, data_dir)
    train, test = (records(about, data_dir, split) for split in ("train", about.test_split))
    return Dataset(about, train, test, found, streamed=True)


@functools.lru_cache(maxsize=2)
def load(name: str, data_dir: str) -> Dataset:
    """Read and decode a data set, once a process; the arrays cannot be written to.

    Raises: ValueError as `info` and `check_fits` do, before anything is read, and for an example
        that is damaged, of another shape or of no class: its split and index.
    """
    about = info(name, data_dir)
    size = _bytes(about)
    if size is None:
        raise ValueError(
            f"the images of data set {name!r} differ in size, so that they cannot be held on the "
            "device; use data.stream=auto"
        )
    check_fits(size, device_limit(jax.local_devices()[0]), name)
    if name == "digits":
        train, test, files = *_digits(), ""
    else:
        files = fingerprint(about, data_dir) + "+"  # refuses what is missing, before all is read
        train, test = (_tfds(about, data_dir, split) for split in ("train", about.test_split))
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((name, about.version, len(train), len(test))).encode())
    for array in (train.images, train.labels, test.images, test.labels):
        array.flags.writeable = False
        digest.update(array.data)
    return Dataset(about, train, test, files + digest.hexdigest())


def _bytes(about: DatasetInfo) -> int | None:
    """Of the decoded data set in one memory; None where images differ in size.

    Each device has a copy, and all devices of a CPU share its memory.
    """
    high, wide, channels = about.shape
    if high is None or wide is None:
        return None
    copies = jax.local_device_count() if jax.local_devices()[0].platform == "cpu" else 1
    count = about.splits["train"] + about.splits[about.test_split]
    return copies * count * high * wide * channels


def _fits(dataset_bytes: int, limit_bytes: int | None) -> bool:
    return limit_bytes is None or 2 * dataset_bytes <= limit_bytes


def check_fits(dataset_bytes: int, limit_bytes: int | None, name: str) -> None:
    """Refuse a data set of more than half of the device's memory; None is not known.

    Raises: ValueError with both sizes.
    """
    if limit_bytes is not None and not _fits(dataset_bytes, limit_bytes):
        raise ValueError(
            f"data set {name!r} needs {dataset_bytes / 1e9:.1f} GB on the device, which has "
            f"{limit_bytes / 1e9:.1f} GB, and half of that has to stay free; "
            "use data.stream=auto"
        )


def device_limit(device: Any) -> int | None:
    """The device's memory in bytes: of a CPU what is available now; None where nothing tells."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    return _host_memory() if device.platform == "cpu" else None


def _host_memory() -> int | None:
    """The machine's memory in bytes that is available now; None where nothing tells."""
    try:
        meminfo = Path("/proc/meminfo").read_text()
        return 1024 * int(re.findall(r"MemAvailable:\s*(\d+) kB", meminfo)[0])
    except (OSError, IndexError):  # not Linux
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError):  # Windows
            return None


def _digits() -> tuple[Split, Split]:
    # scikit-learn's file itself: to import scikit-learn for it takes 1.4 s of every start.
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None and spec.origin is not None
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(file, delimiter=",")  # 64 pixels of 0 to 16, and the digit
    images = np.round(rows[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    labels = rows[:, -1].astype(np.int32)
    return Split(images[:1500], labels[:1500]), Split(images[1500:], labels[1500:])


def _tfds(about: DatasetInfo, data_dir: str, split: str) -> Split:
    found = records(about, data_dir, split)
    shape: Any = (len(found), *about.shape)
    images, labels = np.empty(shape, np.uint8), np.empty(len(found), np.int32)

    rows = max(1, min(1000, READ_BYTES // math.prod(shape[1:])))

    def read(row: int) -> None:
        part = slice(row, min(row + rows, len(found)))
        ((images[part], labels[part]),) = found.read(np.arange(part.start, part.stop)[None])

    with ThreadPoolExecutor() as pool:  # the codecs let go of the GIL
        list(pool.map(read, range(0, len(found), rows)))
    return Split(images, labels)
