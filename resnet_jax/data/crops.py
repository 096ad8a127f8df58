"""Random crops of photographs of different sizes; the host takes them after decoding."""

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

AREA = (0.08, 1.0)  # the crop's share of the photograph's area
RATIO = (3 / 4, 4 / 3)  # the crop's width divided by its height
TRIES = 10


def draw(seed: int, step: int, rows: Int[np.ndarray, "b"]) -> Float[np.ndarray, "b tries 4"]:
    """Uniform numbers in [0, 1) for the crops of these rows of the step's global batch.

    The numbers of a row depend on (seed, step, row) only, not on the other rows of the call.
    """
    # NumPy keeps the raw bits of a generator the same in all versions (NEP 19) and no other draw.
    # The order of examples uses keys of the same form; the last word of the counter separates the
    # two streams.
    source = np.random.Philox(key=np.array([seed, step], np.uint64), counter=[0, 0, 0, 1])
    bits = source.random_raw((int(rows.max()) + 1) * TRIES * 4).reshape(-1, TRIES, 4)
    return (bits[rows] >> np.uint64(11)) * 2.0**-53


def box(
    height: int, width: int, numbers: Float[np.ndarray, "tries 4"]
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels of a random part of a photograph of this size.

    The area is uniform in 8..100 % of the photograph's area. The aspect ratio is log-uniform in
    3/4..4/3, so that upright and wide parts are equally likely. The result is the first of ten
    tries that lies within the photograph. If no try does, the result is the largest centred part
    that has a ratio in that range.
    Source: the two ranges are those of Szegedy et al. 2015, arXiv:1409.4842, sec. 6. The number of
    tries, the part taken if all fail, and the distribution of the ratio are common practice since.
    """
    area, ratio, x, y = numbers.T
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * area)
    ratio = np.exp(np.log(RATIO[0]) + (np.log(RATIO[1]) - np.log(RATIO[0])) * ratio)
    widths, heights = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    positive = (widths > 0) & (heights > 0)
    valid_tries = np.flatnonzero((widths <= width) & (heights <= height) & positive)
    if valid_tries.size:
        first = valid_tries[0]
        w, h = int(widths[first]), int(heights[first])
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
) -> UInt8[np.ndarray, "crop_h crop_w c"]:
    """A random part of a photograph, resized to `shape` bilinearly with antialiasing.

    The whole photograph is decoded first. A JPEG decoder can scale while it decodes, but with
    another filter, and few photographs of ImageNet are large enough to gain much.
    """
    height, width, _ = image.shape
    left, top, right, bottom = box(height, width, numbers)
    part = image[top:bottom, left:right]
    resized = Image.fromarray(part[..., 0] if shape[-1] == 1 else part)
    resized = resized.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(shape)
