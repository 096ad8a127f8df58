"""Image files to pixels: what is too large is refused by its header, before it is decoded."""

import io
import warnings
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

# Of a file's image: 256 MB as RGB, where Pillow begins to warn.
MAX_PIXELS = (1 << 28) // 3
# A warning would be printed once and the image decoded. Set here for good, because a context of
# warnings is not to be had in threads.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

# What Pillow may open: it has formats that start programs, and others that are no images.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# Pillow's mode of an image by its number of channels.
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# And that of the JPEG library.
SPACES = MODES | {1: "GRAY"}

JPEG = b"\xff\xd8"  # how such a file begins
# The channels of a JPEG by what its header says.
JPEG_CHANNELS = {"Gray": 1, "YCbCr": 3, "RGB": 3, "CMYK": 4, "YCCK": 4}
# And how the header begins of nearly every JPEG that has so many, and where in the files that
# libjpeg writes: to look there takes a hundredth of the time that a small image takes to decode,
# and to read the header a quarter.
JPEG_FRAMES = {
    n: (b"\xff\xc0\x00" + bytes([8 + 3 * n, 8]), at) for n, at in ((1, 89), (3, 158), (4, 158))
}


def open_image(file: Path | io.BytesIO) -> Image.Image:
    """An image whose header is read; its pixels follow when they are asked for.

    Raises: ValueError for no image in one of FORMATS, and for one of more than MAX_PIXELS; OSError
        where the file cannot be opened.
    """
    try:
        image = Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(TOO_LARGE) from error
    except Image.UnidentifiedImageError as error:  # whose own words hold the path
        raise ValueError(f"it is no image in {', '.join(FORMATS)}") from error
    try:
        _check_pixels(image.height, image.width)
    except ValueError:
        image.close()
        raise
    return image


def decode(data: bytes, channels: int) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an image file in memory, whatever its size; of other channels, made `channels`.

    Raises: ValueError as `open_image`, and for pixels of more than 8 bits; and what codecs raise.
    """
    if data.startswith(JPEG):
        high, wide, _ = _jpeg_shape(data)
        _check_pixels(high, wide)
        return simplejpeg.decode_jpeg(data, SPACES[channels])
    image = open_image(io.BytesIO(data))
    _shape(image)
    return _pixels(image, channels)


def decode_into(data: bytes, image: UInt8[np.ndarray, "h w c"]) -> None:
    """Fill `image` with an image of its size and channels; a JPEG without a copy.

    An image that is larger is not decoded.
    Raises: ValueError with both shapes where they differ; as `decode` for what it cannot read.
    """
    if not data.startswith(JPEG):
        opened = open_image(io.BytesIO(data))
        _check_shape(_shape(opened), image.shape)
        image[:] = _pixels(opened, image.shape[-1])
        return
    channels = image.shape[-1]
    try:
        found = simplejpeg.decode_jpeg(data, SPACES[channels], buffer=image)
    except ValueError:  # damaged; or larger than its buffer, which the library sees in the header
        _check_shape(_jpeg_shape(data), image.shape)
        raise
    frame, at = JPEG_FRAMES[channels]
    if found.shape != image.shape or not (data.startswith(frame, at) or frame in data):
        _check_shape(_jpeg_shape(data), image.shape)


TOO_LARGE = f"its image is too large; at most {MAX_PIXELS:,} pixels are decoded"


def _check_pixels(high: int, wide: int) -> None:
    if high * wide > MAX_PIXELS:
        raise ValueError(TOO_LARGE)


def _check_shape(found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found != wanted:
        raise ValueError(f"its image is {found}, not {wanted}")


def _jpeg_shape(data: bytes) -> tuple[int, int, int]:
    """(h, w, c) by the header."""
    high, wide, space, _ = simplejpeg.decode_jpeg_header(data)
    return int(high), int(wide), JPEG_CHANNELS[space]


def _shape(image: Image.Image) -> tuple[int, int, int]:
    """(h, w, c) by the header; a palette holds colours."""
    if image.mode[0] in "IF":
        raise ValueError("its pixels are of more than 8 bits")
    channels = 3 if image.mode == "P" else len(image.getbands())
    return image.height, image.width, channels


def _pixels(image: Image.Image, channels: int) -> UInt8[np.ndarray, "h w c"]:
    mode = MODES[channels]
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], channels)
