"""The loader of `data.name=npz:PATH`: NumPy arrays x_train, y_train, x_test and y_test.

PATH is an .npz file, or a folder with x_train.npy and so on. Images are uint8 of shape (n, h, w) or
(n, h, w, c) with c of 1, 3 or 4; labels are integers of shape (n,) or (n, 1). The number of classes
is 1 + the largest label of both splits, or the number of strings in an optional array `class_names`
that names the classes. The arrays of the training split may be missing if a network is only
measured on the others.

An .npz file is read whole into the host's memory. The images of a folder are memory-mapped, so that
streaming (data.stream) reads only what it needs; the fingerprint reads all of them once at start.
"""

import contextlib
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from resnet_jax.data.dataset import DatasetInfo, Source, Split
from resnet_jax.data.images import MODES
from resnet_jax.data.records import one_line

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
LARGEST_LABEL = 2**31 - 2  # the number of classes is then an int32


def find(path: str, data_dir: str) -> Source:
    """The data set in a file or folder; `data_dir` is not used and `~` in `path` is expanded.

    All labels are read, and the headers of the images.
    Raises: ValueError, which says what to do, if the file or an array is missing, damaged, or of
        another type or shape, if lengths differ, or if a split is empty.
    """
    if not path:
        raise ValueError("data.name='npz:' has no path; use npz:PATH of an .npz file or a folder")
    name, file = f"npz:{path}", Path(os.path.expanduser(path))
    try:
        return _find(name, file)
    except ValueError as error:
        raise ValueError(f"data set {name!r}: {error}") from error


def _find(name: str, file: Path) -> Source:
    arrays = _arrays(file)
    missing = [key for key in ARRAYS if key not in arrays]
    if missing and missing != ["x_train", "y_train"]:
        raise ValueError(
            f"{file} lacks {', '.join(missing)}; its arrays are {', '.join(arrays) or 'none'}"
        )
    splits = ("test",) if missing else ("train", "test")
    shapes = {split: _image_shape(file, f"x_{split}") for split in splits}
    labels = {split: _labels(file, f"y_{split}") for split in splits}
    for split, (count, *_) in shapes.items():
        if count != len(labels[split]):
            raise ValueError(
                f"x_{split} has {count} images, but y_{split} has {len(labels[split])} labels; "
                "every image needs a label"
            )
        if count == 0:
            raise ValueError(f"x_{split} is empty; both splits need examples")
    height, width, channels = shapes[splits[0]][1:]
    if (test := shapes["test"])[1:] != (height, width, channels):
        raise ValueError(
            f"the images of x_train are {(height, width, channels)} and those of x_test are "
            f"{test[1:]}; both splits need images of the same shape"
        )
    num_classes = 1 + max(int(split_labels.max()) for split_labels in labels.values())
    names = _class_names(file, num_classes) if "class_names" in arrays else ()
    num_classes = max(num_classes, len(names))
    counts = {split: len(split_labels) for split, split_labels in labels.items()}
    info = DatasetInfo(name, "", (height, width, channels), num_classes, counts)

    def examples(split: str) -> Split:
        try:
            images = np.ascontiguousarray(_read(file, f"x_{split}", mapped=True))
        except ValueError as error:
            raise ValueError(f"data set {name!r}: {error}") from error
        return Split(images.reshape(-1, height, width, channels), labels[split])

    return Source(info, examples, lambda: names)


def _image_shape(file: Path, key: str) -> tuple[int, int, int, int]:
    """(n, h, w, c) of an array of images, by its header. Raises: ValueError for other arrays."""
    shape, dtype = _header(file, key)
    if dtype != np.uint8:
        cast = f"{key}.astype('uint8')"
        scaled = f"if its values are in 0..1, multiply by 255 and cast: (255 * {key}).round()"
        advice = {"f": f"{scaled}.astype('uint8')", "b": f"use 255 * {cast}"}
        raise ValueError(
            f"{key} is {dtype}, and images must be uint8; "
            + advice.get(dtype.kind, f"if its values are in 0..255, cast it: {cast}")
        )
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) != 4 or shape[3] not in MODES or 0 in shape[1:]:
        advice = ""
        if len(shape) == 4 and shape[1] in MODES:
            advice = f"; if the channels are first, use np.moveaxis({key}, 1, -1)"
        raise ValueError(
            f"{key} has shape {shape}; images need (n, h, w) or (n, h, w, c) with c of 1, 3 or 4"
            + advice
        )
    return shape


def _labels(file: Path, key: str) -> Int32[np.ndarray, "n"]:
    """An array of labels. Raises: ValueError if it is not one of integers that are at least 0."""
    shape, dtype = _header(file, key)
    if dtype.kind not in "iu":
        raise ValueError(f"{key} is {dtype}, and labels must be integers of 0, 1, 2, ...")
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        advice = f"; for one-hot labels use {key}.argmax(-1)" if len(shape) == 2 else ""
        raise ValueError(f"{key} has shape {shape}; labels need (n,) or (n, 1){advice}")
    labels = _read(file, key).reshape(-1)
    wrong = np.flatnonzero((labels < 0) | (labels > LARGEST_LABEL))
    if wrong.size:
        raise ValueError(
            f"label {labels[wrong[0]]} of {key}[{wrong[0]}] is not in 0..{LARGEST_LABEL}"
        )
    return labels.astype(np.int32)


def _class_names(file: Path, num_classes: int) -> tuple[str, ...]:
    """The names of the classes. Raises: ValueError if they are not strings, enough for the labels.

    A split may have no example of the last classes.
    """
    shape, dtype = _header(file, "class_names")
    if dtype.kind != "U" or len(shape) != 1 or shape[0] < num_classes:
        raise ValueError(
            f"class_names is {dtype} of shape {shape}; the labels need {num_classes} strings: "
            "np.array(list_of_names)"
        )
    return tuple(_read(file, "class_names").tolist())


def _arrays(file: Path) -> tuple[str, ...]:
    """The names of the arrays in a file or folder. Raises: ValueError if it has no such form."""
    if file.is_dir():
        return tuple(sorted(path.stem for path in file.glob("*.npy")))
    if not file.exists():
        raise ValueError(f"{file} does not exist; give the path of an .npz file or a folder")
    try:
        with zipfile.ZipFile(file) as members:
            names = [name for name in members.namelist() if name.endswith(".npy")]
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file} is not an .npz file ({one_line(error)})") from error
    return tuple(name.removesuffix(".npy") for name in names)


def _header(file: Path, key: str) -> tuple[tuple[int, ...], np.dtype]:
    """(shape, dtype) of an array, which is not read. Raises: ValueError if it is damaged."""
    try:
        with contextlib.ExitStack() as stack:
            stream: Any
            if file.is_dir():
                stream = stack.enter_context((file / f"{key}.npy").open("rb"))
            else:
                members = stack.enter_context(zipfile.ZipFile(file))
                stream = stack.enter_context(members.open(f"{key}.npy"))
            # Versions 2 and 3 differ in the names of a structure's fields only.
            first_version = np.lib.format.read_magic(stream) == (1, 0)
            read = "read_array_header_1_0" if first_version else "read_array_header_2_0"
            shape, _, dtype = getattr(np.lib.format, read)(stream)
    except Exception as error:  # zipfile and its codecs raise their own types
        raise ValueError(f"array {key} of {file} is damaged ({one_line(error)})") from error
    return shape, dtype


def _read(file: Path, key: str, mapped: bool = False) -> np.ndarray:
    """An array; that of a folder is memory-mapped if asked. Raises: ValueError if it is damaged."""
    try:
        if file.is_dir():
            mode = "r" if mapped else None
            return np.asarray(np.load(file / f"{key}.npy", mmap_mode=mode, allow_pickle=False))
        with np.load(file, allow_pickle=False) as arrays:
            return arrays[key]
    except Exception as error:  # zipfile and its codecs raise their own types
        raise ValueError(f"array {key} of {file} cannot be read ({one_line(error)})") from error
