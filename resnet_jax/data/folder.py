"""The loader of `data.name=folder:PATH`: image files in a folder for each class.

The layout is that of torchvision's ImageFolder:

    PATH/train/CLASS/IMAGE    and    PATH/test/CLASS/IMAGE   (or val, valid, validation)

The classes are the folders of `train`, sorted by name. Images may lie in folders below CLASS.
Files of other types and names that begin with a dot are ignored.

A folder may also hold one split alone, PATH/test/CLASS/IMAGE or PATH/CLASS/IMAGE, which is the test
split: a network can be measured on it, and not trained.
"""

import functools
import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from resnet_jax.data import images, memory
from resnet_jax.data.dataset import DatasetInfo, Source
from resnet_jax.data.records import Records, Store, one_line

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
# The folders that may hold the test split; the first with folders of classes is used.
TEST_FOLDERS = {
    "test": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
THREADS = 32  # most of them wait for the file system
BLOCK = 64  # headers that a thread reads at a time


class Listing(NamedTuple):
    """The image files of a split: paths relative to PATH, sizes in bytes, and labels."""

    paths: list[str]
    sizes: list[int]
    labels: list[int]


class Scan(NamedTuple):
    """The content of PATH: classes, splits, and the images' shape (h and w None if they differ)."""

    classes: tuple[str, ...]
    splits: dict[str, Listing]
    shape: tuple[int | None, int | None, int]


class ImageFiles(Store):
    """Image files by index, each read from the file system when it is needed."""

    def __init__(self, root: Path, listing: Listing):
        self._root, self._paths = root, listing.paths
        self._labels = np.array(listing.labels, np.int64)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, indices: Int[np.ndarray, "n"]) -> tuple[np.ndarray, list[bytes]]:
        """Labels and image files of these examples. Raises: OSError if a file cannot be read."""
        files = [(self._root / self._paths[index]).read_bytes() for index in indices.tolist()]
        return self._labels[indices], files

    def labels(self, indices: Int[np.ndarray, "n"]) -> np.ndarray:
        """Labels of these examples; no file is read."""
        return self._labels[indices]

    def place(self, index: int) -> str:
        """The path of an example."""
        return str(self._root / self._paths[index])


def find(path: str, data_dir: str) -> Source:
    """The data set in a folder; `data_dir` is not used and `~` in `path` is expanded.

    All images get 3 channels, or 1 if all of them are grey (a palette counts as colour). If they
    have the same size, their shape is known and they may be held on the device. If not, height and
    width are None, and the images are streamed and cropped as photographs are. EXIF orientation is
    ignored, as in torchvision.

    The first call in a process lists all files and reads the header of each file, in 32 threads.
    That takes about 70 us of a core for each file (90 s for ImageNet's 1.3 million files) and, if
    the files are not cached by the host, a small read of each. Later calls in the process reuse the
    result, and do not see changes of the folder.
    Raises: ValueError, which says what to do, for another layout, and for an image whose header is
        damaged.
    """
    if not path:
        raise ValueError("data.name='folder:' has no path; use folder:PATH with PATH/train/CLASS")
    name, root = f"folder:{path}", Path(os.path.expanduser(path))
    try:
        scan = _scan(root)
    except (ValueError, OSError) as error:
        raise ValueError(f"data set {name!r}: {error}") from error
    counts = {split: len(listing.paths) for split, listing in scan.splits.items()}
    info = DatasetInfo(name, "", scan.shape, len(scan.classes), counts)

    def examples(split: str) -> Records:
        """A split; a small one stays in memory, encoded, after it has been read."""
        listing = scan.splits[split]
        keep = memory.may_keep(sum(listing.sizes), len(listing.paths))
        store = ImageFiles(root, listing)
        return Records(name, split, store, scan.shape, len(scan.classes), keep)

    return Source(info, examples, lambda: scan.classes, lambda: _fingerprint(scan))


def _fingerprint(scan: Scan) -> str:
    """A digest of the files' relative paths and sizes, and so of classes and labels."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(scan.classes).encode())
    for split, listing in scan.splits.items():
        digest.update(repr((split, len(listing.paths))).encode())
        for path, size in zip(listing.paths, listing.sizes, strict=True):
            digest.update(repr((path, size)).encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=2)
def _scan(root: Path) -> Scan:
    """The content of a folder. Raises: ValueError for another layout; OSError."""
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; give the folder that holds train/CLASS/IMAGE")
    train_classes = _folders(root / "train")
    candidates = [name for name in TEST_FOLDERS if _folders(root / name)]
    labelled = [name for name in candidates if _is_labelled(root / name, train_classes)]
    test_folder = next(iter(labelled or candidates), None)
    if test_folder is None and not train_classes and _is_split(root):
        test_folder = "."
    if test_folder is None:
        lacks = "test, val, valid or validation" if train_classes else "train"
        raise ValueError(
            f"{root} has no folder {lacks} with a folder for each class; it needs "
            "train/CLASS/IMAGE and test/CLASS/IMAGE, and its folders are: "
            f"{', '.join(_folders(root)) or 'none'}"
        )
    classes = train_classes or _folders(root / test_folder)
    unknown = sorted(set(_folders(root / test_folder)) - set(classes))
    if unknown:
        raise ValueError(
            f"class {unknown[0]!r} of {root / test_folder} is not a class of {root / 'train'}, "
            f"which has {len(classes)}; remove its folder or add training images"
        )
    splits = {}
    with ThreadPoolExecutor(THREADS) as pool:
        if train_classes:
            splits["train"] = train = _list(pool, root, "train", classes)
            empty = sorted(set(range(len(classes))) - set(train.labels))
            if empty:
                raise ValueError(
                    f"class {classes[empty[0]]!r} of {root / 'train'} has no image file "
                    f"({', '.join(SUFFIXES)}); add images or remove its folder"
                )
        splits[TEST_FOLDERS.get(test_folder, "test")] = test = _list(
            pool, root, test_folder, classes
        )
        if not test.paths:
            raise ValueError(f"{root / test_folder} has no image file ({', '.join(SUFFIXES)})")
        shape = _shape(pool, root, [path for split in splits.values() for path in split.paths])
    return Scan(classes, splits, shape)


def _is_labelled(folder: Path, classes: Sequence[str]) -> bool:
    """Whether the folder has images of classes; a test split may have images without a class."""
    own = [name for name in _folders(folder) if name in classes or not classes]
    return any(any(folder.glob(f"{name}/**/*.*")) for name in map(glob.escape, own))


def _is_split(root: Path) -> bool:
    """Whether a folder holds folders of classes itself: each of its folders holds image files."""
    names = _folders(root)
    holds = lambda name: any(f.name.lower().endswith(SUFFIXES) for f in (root / name).iterdir())
    return bool(names) and not {"train", *TEST_FOLDERS} & {*names} and all(map(holds, names))


def _folders(folder: Path) -> tuple[str, ...]:
    """The names of the folders in a folder, sorted; () if it does not exist."""
    if not folder.is_dir():
        return ()
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    # An archive of macOS brings a folder of its own.
    return tuple(sorted(name for name in names if name[0] != "." and name != "__MACOSX"))


def _list(pool: ThreadPoolExecutor, root: Path, folder: str, classes: Sequence[str]) -> Listing:
    """The image files of a split by class, and within a class by path."""
    paths, sizes, labels = [], [], []
    folders = [f"{folder}/{name}" for name in classes]
    for label, files in enumerate(pool.map(lambda name: sorted(_files(root, name)), folders)):
        paths += [path for path, _ in files]
        sizes += [size for _, size in files]
        labels += [label] * len(files)
    return Listing(paths, sizes, labels)


def _files(root: Path, folder: str) -> Iterator[tuple[str, int]]:
    """(path relative to root, size) of the image files below a folder, in any order."""
    if not (root / folder).is_dir():
        return
    with os.scandir(root / folder) as entries:
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files(root, path)
            elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                yield path, entry.stat().st_size


def _shape(
    pool: ThreadPoolExecutor, root: Path, paths: Sequence[str]
) -> tuple[int | None, int | None, int]:
    """(h, w, c) of all images by their headers. Raises: ValueError with the first damaged file."""
    shapes: set[tuple[int, int, int]] = set()
    problems: list[str] = []

    def read(start: int) -> None:
        for path in paths[start : start + BLOCK]:
            try:
                shapes.add(images.header_shape(root / path))
            except Exception as error:  # every codec raises its own types
                problems.append(f"image {root / path} cannot be read ({one_line(error)})")

    list(pool.map(read, range(0, len(paths), BLOCK)))
    if problems:
        others = f", and {len(problems) - 1} more images" if len(problems) > 1 else ""
        raise ValueError(min(problems) + others)
    sizes = {(height, width) for height, width, _ in shapes}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    return height, width, 1 if all(channels in (1, 2) for *_, channels in shapes) else 3
