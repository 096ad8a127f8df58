"""Random crops of photographs that differ in size, taken on the host when they are decoded."""

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

AREA = (0.08, 1.0)  # of the photograph
RATIO = (3 / 4, 4 / 3)  # of width to height
TRIES = 10


def draw(seed: int, step: int, rows: Int[np.ndarray, "b"]) -> Float[np.ndarray, "b tries 4"]:
    """Uniform numbers in [0, 1) for the crops of these rows of the step's global batch.

    A row's are the same whatever other rows are asked for.
    """
    # Raw bits, because NumPy promises no other draw for ever (NEP 19); the counter's last word
    # keeps them apart from those of the order, which have keys of the same kind.
    source = np.random.Philox(key=np.array([seed, step], np.uint64), counter=[0, 0, 0, 1])
    bits = source.random_raw((int(rows.max()) + 1) * TRIES * 4).reshape(-1, TRIES, 4)
    return (bits[rows] >> np.uint64(11)) * 2.0**-53


def box(
    height: int, width: int, numbers: Float[np.ndarray, "tries 4"]
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a random part of a photograph of this size.

    Its area is uniform in 8..100 % of the photograph's and its aspect ratio in 3/4..4/3, log
    uniform so that upright and lying parts are equally likely; the first of ten tries that lies
    within the photograph, else its largest centred part of a ratio in that range.
    Source: Szegedy et al. 2015, arXiv:1409.4842, sec. 6, for the two ranges. The number of tries,
    what follows them and the distribution of the ratio are not in it, but common practice since.
    """
    area, ratio, x, y = numbers.T
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area)
    ratio = np.exp(np.log(RATIO[0]) + (np.log(RATIO[1]) - np.log(RATIO[0])) * ratio)
    wide, high = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    within = np.flatnonzero((wide <= width) & (high <= height) & (wide > 0) & (high > 0))
    if within.size:
        first = within[0]
        w, h = int(wide[first]), int(high[first])
        left, top = int(x[first] * (width - w + 1)), int(y[first] * (height - h + 1))
    else:
        w = max(1, min(width, round(height * RATIO[1])))
        h = max(1, min(height, round(width / RATIO[0])))
        left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def crop(
    image: UInt8[np.ndarray, "h w c"],
    numbers: Float[np.ndarray, "tries 4"],
    shape: tuple[int, int, int],
) -> UInt8[np.ndarray, "high wide c"]:
    """A random part of a photograph, resized to `shape`: bilinear, with antialiasing.

    The photograph is decoded whole: a JPEG's own scaling is another filter than this one, and few
    photographs of ImageNet are so large that it would save much.
    """
    height, width, _ = image.shape
    left, top, right, bottom = box(height, width, numbers)
    part = image[top:bottom, left:right]
    found = Image.fromarray(part[..., 0] if shape[-1] == 1 else part)
    found = found.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(found).reshape(shape)
