"""Decoding of image files to pixels; the header tells whether an image is too large to decode."""

import io
import re
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from jaxtyping import Bool, UInt8
from PIL import Image

# The most pixels that are decoded: 256 MB as RGB, which is also Pillow's threshold for a warning.
MAX_PIXELS = (1 << 28) // 3
# Pillow would print its warning once and decode the image. The warning becomes an error for the
# whole process, because a context of warnings does not work in threads.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

# The formats that Pillow may open. Pillow also knows formats that start programs, and formats that
# are not images.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# Pillow's mode of an image, by the number of channels.
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# The JPEG library's colour space, by the number of channels.
SPACES = MODES | {1: "GRAY"}

JPEG = b"\xff\xd8"  # the first bytes of a JPEG file
# Warnings of the JPEG library about files whose image is complete: bytes between its data and the
# end marker (0xd9), or between the parts of its header, as some cameras and editors write them, and
# a version of the format that does not exist. Pillow and TensorFlow decode such files, too. (A
# flipped bit may cause the first warning; most flipped bits cause none.)
HARMLESS = re.compile(
    r"extraneous bytes before marker 0x(d9|da|db|c0|c4|dd|fe|e.)$|unknown JFIF revision number"
)
# The number of channels of a JPEG, by the colour space in its header.
JPEG_CHANNELS = {"Gray": 1, "YCbCr": 3, "RGB": 3, "CMYK": 4, "YCCK": 4}

TOO_LARGE = f"its image is too large; at most {MAX_PIXELS:,} pixels are decoded"


def open_image(file: Path | io.BytesIO) -> Image.Image:
    """An image whose header has been read; Pillow decodes the pixels on first use.

    Raises: ValueError if the file is not an image in one of FORMATS, or has more than MAX_PIXELS;
        OSError if the file cannot be opened.
    """
    try:
        image = Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(TOO_LARGE) from error
    except Image.UnidentifiedImageError as error:  # its message repeats the path
        raise ValueError(
            f"it is not an image in one of the formats {', '.join(FORMATS)}"
        ) from error
    try:
        _check_pixels(image.height, image.width)
    except ValueError:
        image.close()
        raise
    return image


def header_shape(path: Path) -> tuple[int, int, int]:
    """(h, w, c) of an image file by its header; grey images with an alpha channel have c = 2.

    Raises: as `open_image`, and ValueError if the pixels have more than 8 bits.
    """
    with open_image(path) as image:
        return _shape(image)


def decode(data: bytes, channels: int) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an image file in memory, of any size, converted to `channels` channels.

    Raises: ValueError as `open_image` does, and if the pixels have more than 8 bits; a codec may
        raise other types for a damaged file.
    """
    if data.startswith(JPEG):
        height, width, _ = _jpeg_shape(data)
        _check_pixels(height, width)
        return _decode_jpeg(data, channels)
    image = open_image(io.BytesIO(data))
    _shape(image)
    return _pixels(image, channels)


def decode_exactly(data: bytes, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an image of height h and width w, converted to c channels.

    An image of another size is not decoded. Channels are converted, as tensorflow-datasets and
    torchvision do it, because data sets of colours have a few grey or CMYK images.
    Raises: ValueError with both shapes if the sizes differ, and as `decode` does.
    """
    if data.startswith(JPEG):
        _check_shape(_jpeg_shape(data), shape)
        return _decode_jpeg(data, shape[-1])
    image = open_image(io.BytesIO(data))
    _check_shape(_shape(image), shape)
    return _pixels(image, shape[-1])


def decode_usual(
    files: Sequence[bytes], shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "n h w c"]:
    """The pixels of files that `usual` has recognised as JPEGs of this shape.

    Raises: ValueError if a file is damaged.
    """
    # The images are joined in a single call. A copy of each image into its place would release and
    # take the GIL once an image, and threads would wait for each other: two were as slow as one.
    decoded: Any = [simplejpeg.decode_jpeg(file, SPACES[shape[-1]]) for file in files]
    return np.frombuffer(bytearray().join(decoded), np.uint8).reshape(-1, *shape)


def usual(
    files: Sequence[bytes], shape: tuple[int | None, int | None, int]
) -> Bool[np.ndarray, "n"]:
    """A mask of the files that are JPEGs of this shape (h, w, c) with a header as by libjpeg.

    The JPEG library needs a quarter of a small image's decoding time to read its header; this test
    compares bytes. It covers every segment up to the frame's, because an earlier segment could
    hold a second frame, and a JPEG with two frames is an error.
    """
    height, width, channels = shape
    if height is None or width is None or max(height, width) >= 2**16 or channels not in (1, 3):
        return np.zeros(len(files), bool)
    tables = 1 if channels == 1 else 2
    frame = struct.pack(">HHBHHB", 0xFFC0, 8 + 3 * channels, 8, height, width, channels)
    segments = rb"\xff\xd8\xff\xe0\x00\x10.{14}" + rb"\xff\xdb\x00\x43.{65}" * tables
    header = re.compile(segments + re.escape(frame), re.DOTALL)
    heads = [file[: 20 + 69 * tables + len(frame)] for file in files]
    matching = {head for head in set(heads) if header.fullmatch(head)}  # most files share a head
    return np.array([head in matching for head in heads])


def _check_pixels(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ValueError(TOO_LARGE)


def _check_shape(actual: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Refuse an image of another height or width, or of more than MAX_PIXELS."""
    _check_pixels(*actual[:2])
    if actual[:2] != wanted[:2]:
        raise ValueError(f"its image is {actual}, not {wanted}")


def _decode_jpeg(data: bytes, channels: int) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of a JPEG. Raises: ValueError if some of its data are missing or damaged."""
    try:
        return simplejpeg.decode_jpeg(data, SPACES[channels])
    except ValueError as error:
        if not HARMLESS.search(str(error)):
            raise
        return simplejpeg.decode_jpeg(data, SPACES[channels], strict=False)


def _jpeg_shape(data: bytes) -> tuple[int, int, int]:
    """(h, w, c) by the header."""
    height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    return int(height), int(width), JPEG_CHANNELS[space]


def _shape(image: Image.Image) -> tuple[int, int, int]:
    """(h, w, c) by the header; a palette counts as RGB."""
    if image.mode[0] in "IF":
        raise ValueError("its pixels have more than 8 bits")
    channels = 3 if image.mode == "P" else len(image.getbands())
    return image.height, image.width, channels


def _pixels(image: Image.Image, channels: int) -> UInt8[np.ndarray, "h w c"]:
    mode = MODES[channels]
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], channels)
