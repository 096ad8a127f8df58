"""Image classification data sets as uint8 arrays: scikit-learn's digits, and any tfds folder."""

import dataclasses
import difflib
import functools
import hashlib
import io
import json
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import simplejpeg
from jaxtyping import Int32, UInt8
from PIL import Image

# Pillow's mode of an image by its number of channels.
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples in the data set's own order."""

    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What a data set says of itself: shape (h, w, c) of an image, and examples in each split."""

    name: str
    version: str
    shape: tuple[int, int, int]
    num_classes: int
    splits: dict[str, int]

    @property
    def test_split(self) -> str:
        """The split that errors are measured on: `test`, or `validation` where there is none."""
        return "test" if self.splits.get("test") else "validation"


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory; the fingerprint changes with its name, version, counts or content."""

    info: DatasetInfo
    train: Split
    test: Split
    fingerprint: str


DIGITS = DatasetInfo("digits", "1", (8, 8, 1), 10, {"train": 1500, "test": 297})


def info(name: str, data_dir: str) -> DatasetInfo:
    """Look a data set up in the tfds folder `data_dir` without reading it; 'digits' needs none.

    Raises: ValueError for a data set that is not there, is not in array_record form or cannot be
        held as one array: what was found and what to do.
    """
    if name == "digits":
        return DIGITS
    folder = _folder(name, data_dir)
    try:
        about = json.loads((folder / "dataset_info.json").read_text())
        features = json.loads((folder / "features.json").read_text())["featuresDict"]["features"]
        kind = about.get("fileFormat", "tfrecord")
        splits = {s["name"]: sum(map(int, s["shardLengths"])) for s in about["splits"]}
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder} is damaged ({type(error).__name__}: {error}); {_prepare(name, data_dir)}"
        ) from error
    if kind != "array_record":
        raise ValueError(
            f"data set {name!r} in {data_dir} is in {kind} form, not array_record; "
            + _prepare(name, "OTHER_DIR")
        )
    if "image" not in features.get("image", {}) or "classLabel" not in features.get("label", {}):
        raise ValueError(
            f"data set {name!r} has no image called 'image' with a class called 'label', but "
            f"{', '.join(features)}; only image classification can be trained"
        )
    if not splits.get("train") or not (splits.get("test") or splits.get("validation")):
        raise ValueError(
            f"data set {name!r} has the splits {', '.join(splits) or 'none'}; "
            "it needs train, and test or validation"
        )
    image = features["image"]["image"]
    shape = tuple(map(int, image.get("shape", {}).get("dimensions", ())))
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(
            f"the images of data set {name!r} differ in size, so that they cannot be held on the "
            "device; streaming of such data is not supported yet"
        )
    if image.get("dtype", "uint8") != "uint8" or shape[-1] not in MODES:
        raise ValueError(
            f"the images of data set {name!r} are {image.get('dtype')} with {shape[-1]} channels; "
            "8 bits and 1, 3 or 4 channels are supported"
        )
    num_classes = int(features["label"]["classLabel"]["numClasses"])
    return DatasetInfo(name, about["version"], shape, num_classes, splits)


def class_names(name: str, data_dir: str) -> tuple[str, ...]:
    """The names of the classes, in order: empty where the tfds folder has none.

    Raises: ValueError as `info` does.
    """
    about = info(name, data_dir)
    path = None if name == "digits" else _folder(name, data_dir) / "label.labels.txt"
    if path is None or not path.is_file():
        return ()
    names = tuple(path.read_text().split("\n")[: about.num_classes])
    return names if len(names) == about.num_classes else ()


def _folder(name: str, data_dir: str) -> Path:
    """The newest version of a data set, DATA_DIR/NAME[/CONFIG]/VERSION."""
    if not data_dir:
        raise ValueError(
            f"data set {name!r} needs data.dir, the tensorflow-datasets folder that holds it; "
            f"{_prepare(name, '')}, or use 'digits', which needs nothing"
        )
    root = Path(data_dir).expanduser()
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


@functools.lru_cache(maxsize=2)
def load(name: str, data_dir: str) -> Dataset:
    """Read and decode a data set, once a process; the arrays cannot be written to.

    Raises: ValueError as `info` and `check_fits` do, before anything is read, and for an example
        that is damaged, of another shape or of no class: its split and index.
    """
    about = info(name, data_dir)
    count = about.splits["train"] + about.splits[about.test_split]
    check_fits(count * math.prod(about.shape), device_limit(jax.local_devices()[0]), name)
    if name == "digits":
        train, test = _digits()
    else:
        train, test = (_tfds(about, data_dir, split) for split in ("train", about.test_split))
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((name, about.version, len(train), len(test))).encode())
    for array in (train.images, train.labels, test.images, test.labels):
        array.flags.writeable = False
        digest.update(array.data)
    return Dataset(about, train, test, digest.hexdigest())


def check_fits(dataset_bytes: int, limit_bytes: int | None, name: str) -> None:
    """Refuse a data set of more than half of the device's memory; None is not known.

    Raises: ValueError with both sizes.
    """
    if limit_bytes is not None and 2 * dataset_bytes > limit_bytes:
        raise ValueError(
            f"data set {name!r} needs {dataset_bytes / 1e9:.1f} GB on the device, which has "
            f"{limit_bytes / 1e9:.1f} GB, and half of that has to stay free; "
            "streaming of larger data sets is not supported yet"
        )


def device_limit(device: Any) -> int | None:
    """The device's memory in bytes: of a CPU what is available now; None where nothing tells."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    if device.platform != "cpu":
        return None
    try:
        meminfo = Path("/proc/meminfo").read_text()
        return 1024 * int(re.findall(r"MemAvailable:\s*(\d+) kB", meminfo)[0])
    except (OSError, IndexError):  # not Linux
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError):  # Windows
            return None


def _digits() -> tuple[Split, Split]:
    from sklearn.datasets import load_digits  # a second to import

    raw: Any = load_digits()
    images = np.round(raw.images[..., None] * (255 / 16)).astype(np.uint8)
    labels = raw.target.astype(np.int32)
    return Split(images[:1500], labels[:1500]), Split(images[1500:], labels[1500:])


def _tfds(about: DatasetInfo, data_dir: str, split: str) -> Split:
    # Imported here: half a second, and not to be had on Windows.
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    builder: Any = tfds.builder_from_directory(_folder(about.name, data_dir))
    # Raw records: the parser of tfds spends 70 to 100 us on each, four times a small JPEG's.
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    records = builder.as_data_source(split=split, deserialize_method=raw)
    parse = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]
    where = f"data set {about.name!r}, split {split!r}"
    images = np.empty((len(records), *about.shape), np.uint8)
    labels = np.empty(len(records), np.int64)

    def read(row: int) -> None:
        rows = range(row, min(row + 1000, len(records)))
        try:
            for row, record in zip(rows, records.__getitems__(rows), strict=True):
                example = parse(record).features.feature
                labels[row] = example["label"].int64_list.value[0]
                image = _decode(example["image"].bytes_list.value[0], about.shape[-1])
                if image.shape != about.shape:
                    raise ValueError(f"its image is {image.shape}, not {about.shape}")
                images[row] = image
        except Exception as error:  # the reader and every codec raise kinds of their own
            raise ValueError(f"{where}, example {row}: {error}") from error

    with ThreadPoolExecutor() as pool:  # the codecs let go of the GIL
        list(pool.map(read, range(0, len(records), 1000)))
    wrong = np.flatnonzero((labels < 0) | (labels >= about.num_classes))
    if wrong.size:
        raise ValueError(
            f"{where}, example {wrong[0]}: its label {labels[wrong[0]]} is not in "
            f"0..{about.num_classes - 1}"
        )
    return Split(images, labels.astype(np.int32))


def _decode(data: bytes, channels: int) -> UInt8[np.ndarray, "h w c"]:
    mode = MODES[channels]
    if data.startswith(b"\xff\xd8"):
        return simplejpeg.decode_jpeg(data, "GRAY" if mode == "L" else mode)
    image = Image.open(io.BytesIO(data))
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], channels)
