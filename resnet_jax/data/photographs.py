"""Images of any format and size, resized and cropped for a network of a fixed input size."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from resnet_jax.data import images
from resnet_jax.data.images import MODES

# A network for images of fewer than CROPPED pixels a side sees the whole image. A larger network
# sees the centre: the short side is resized to 1 / PART of the input size (256 for 224), and the
# centre is cropped. That is the standard single-crop protocol.
CROPPED, PART = 64, 0.875


def read(path: Path, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "h w c"]:
    """The image in a file with size and channels `shape`; an image of that size is not resized.

    The image is resized bilinearly with antialiasing, and turned upright if its EXIF data say how.
    Raises: ValueError with the path if the file is missing, damaged, not an image, or too large
        (its header says so, and it is not decoded).
    """
    try:
        with images.open_image(path) as image:
            return fit(ImageOps.exif_transpose(image), shape)
    except FileNotFoundError as error:
        raise ValueError(f"image {path} does not exist") from error
    except Exception as error:  # every codec raises its own types
        raise ValueError(f"image {path} cannot be read ({error})") from error


def fit(image: Image.Image, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "h w c"]:
    """An image with size and channels `shape`; an image of that size is not resized.

    Raises: ValueError if the pixels are floating-point numbers.
    """
    height, width, channels = shape
    if image.mode.startswith("I;16"):  # Pillow's conversion would clip values above 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "I":
        image = Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown range")
    image = image if image.mode == MODES[channels] else image.convert(MODES[channels])
    if image.size != (width, height) and min(height, width) < CROPPED:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    elif image.size != (width, height):
        # The roundings are torchvision's; the small number keeps an exact 256 from becoming 255.
        scale = max(height / image.height, width / image.width) / PART
        size = int(scale * image.width + 1e-6), int(scale * image.height + 1e-6)
        left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
        image = image.resize(size, Image.Resampling.BILINEAR)
        image = image.crop((left, top, left + width, top + height))
    return np.asarray(image).reshape(height, width, channels)


def fit_pixels(
    pixels: UInt8[np.ndarray, "h w c"], shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "new_h new_w c"]:
    """The same as `fit` for an image that is already decoded."""
    return fit(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), shape)
