"""Image files of any kind and size, made into what a network of one size takes."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from resnet_jax.data import images
from resnet_jax.data.images import MODES

# Networks for images of fewer pixels a side see the whole image; from here on the short side is
# made 1 / 0.875 as long (256 for 224) and the centre is cut out, the standard single-crop protocol.
CROPPED, PART = 64, 0.875


def read(path: Path, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "h w c"]:
    """The image in a file, of size and channels `shape`; one of that size is left as it is.

    Bilinear, with antialiasing; upright where the camera noted how it was held.
    Raises: ValueError naming a file that is missing, no image, damaged or too large to decode (by
        its header, before it is decoded).
    """
    try:
        with images.open_image(path) as image:
            return fit(ImageOps.exif_transpose(image), shape)
    except FileNotFoundError as error:
        raise ValueError(f"image {path} is not there") from error
    except Exception as error:  # every codec raises kinds of its own
        raise ValueError(f"image {path} cannot be read ({error})") from error


def fit(image: Image.Image, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "h w c"]:
    """An image of size and channels `shape`, as `read` says; one of that size is left as it is."""
    high, wide, channels = shape
    if image.mode.startswith("I;16"):  # Pillow would cut what is brighter than 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "I":
        image = Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of no known range")
    image = image if image.mode == MODES[channels] else image.convert(MODES[channels])
    if image.size != (wide, high) and min(high, wide) < CROPPED:
        image = image.resize((wide, high), Image.Resampling.BILINEAR)
    elif image.size != (wide, high):
        # torchvision's roundings; the small number keeps an exact 256 from becoming 255.
        scale = max(high / image.height, wide / image.width) / PART
        size = int(scale * image.width + 1e-6), int(scale * image.height + 1e-6)
        left, top = round((size[0] - wide) / 2), round((size[1] - high) / 2)
        image = image.resize(size, Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + wide, top + high))
    return np.asarray(image).reshape(high, wide, channels)


def fit_pixels(
    pixels: UInt8[np.ndarray, "h w c"], shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "high wide c"]:
    """As `fit`, of an image that is decoded already."""
    return fit(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), shape)
