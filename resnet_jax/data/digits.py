"""The loader of `data.name=digits`: scikit-learn's 8x8 digits, which need no download."""

import importlib.util
from pathlib import Path

import numpy as np

from resnet_jax.data.dataset import DatasetInfo, Source, Split

DIGITS = DatasetInfo("digits", "1", (8, 8, 1), 10, {"train": 1500, "test": 297})


def find(path: str, data_dir: str) -> Source:
    """The data set; `data_dir` is not used.

    Raises: ValueError if the name has a path.
    """
    if path:
        raise ValueError(f"data.name='digits:{path}': digits has no path; use data.name=digits")
    return Source(DIGITS, _read)


def _read(split: str) -> Split:
    """A split: the first 1,500 images are `train`. Raises: ValueError without scikit-learn."""
    # The loader reads scikit-learn's file, because the import of scikit-learn takes 1.4 s.
    package = importlib.util.find_spec("sklearn")
    folder = Path(package.origin).parent if package and package.origin else Path()
    file = folder / "datasets" / "data" / "digits.csv.gz"
    if package is None or not file.is_file():
        raise ValueError(
            "data.name=digits needs scikit-learn, which is not installed; "
            "install it with: pip install scikit-learn"
        )
    rows = np.loadtxt(file, delimiter=",")  # 64 pixels of 0 to 16, and the digit
    images = np.round(rows[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    labels = rows[:, -1].astype(np.int32)
    part = slice(0, 1500) if split == "train" else slice(1500, None)
    return Split(images[part], labels[part])
