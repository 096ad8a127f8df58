"""Image files to pixels: what is too large is refused by its header, before it is decoded."""

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


def decode_exactly(data: bytes, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an image of this shape (h, w, c); one of another is not decoded.

    Raises: ValueError with both shapes where they differ; as `decode` for what it cannot read.
    """
    if data.startswith(JPEG):
        _check_shape(_jpeg_shape(data), shape)
        return simplejpeg.decode_jpeg(data, SPACES[shape[-1]])
    image = open_image(io.BytesIO(data))
    _check_shape(_shape(image), shape)
    return _pixels(image, shape[-1])


def decode_usual(
    files: Sequence[bytes], shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "n h w c"]:
    """The pixels of files of which `usual` says that they are JPEGs of this shape.

    Raises: ValueError for one that is damaged.
    """
    # Threads wait for each other where one lets go of the GIL and wants it again, as a copy of
    # each image into its place would: two threads were as slow as one.
    found: Any = [simplejpeg.decode_jpeg(file, SPACES[shape[-1]]) for file in files]
    return np.frombuffer(bytearray().join(found), np.uint8).reshape(-1, *shape)


def usual(
    files: Sequence[bytes], shape: tuple[int | None, int | None, int]
) -> Bool[np.ndarray, "n"]:
    """Which of these are JPEGs of this shape (h, w, c), by a header as libjpeg writes it.

    To have the library read a header takes a quarter of the time that a small image takes to
    decode. Every segment is looked at, because none before the frame's may hold another frame, and
    a second frame is an error.
    """
    high, wide, channels = shape
    if high is None or wide is None or max(high, wide) >= 2**16 or channels not in (1, 3):
        return np.zeros(len(files), bool)
    tables = 1 if channels == 1 else 2
    frame = struct.pack(">HHBHHB", 0xFFC0, 8 + 3 * channels, 8, high, wide, channels)
    segments = rb"\xff\xd8\xff\xe0\x00\x10.{14}" + rb"\xff\xdb\x00\x43.{65}" * tables
    header = re.compile(segments + re.escape(frame), re.DOTALL)
    heads = [file[: 20 + 69 * tables + len(frame)] for file in files]
    found = {head for head in set(heads) if header.fullmatch(head)}  # most begin with equal bytes
    return np.array([head in found for head in heads])


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
