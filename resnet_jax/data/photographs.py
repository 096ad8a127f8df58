"""Images of any format and size, resized and cropped for a network of a fixed input size."""

import contextlib
import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from resnet_jax.data import images
from resnet_jax.data.images import MODES

# A network for images of fewer than CROPPED pixels a side sees the whole image. A larger network
# sees the centre: the short side is resized to 1 / PART of the input size (256 for 224), and the
# centre is cropped. That is the standard single-crop protocol.
CROPPED, PART = 64, 0.875
# If the whole resized image would have more than THIN times the pixels of its centre (a thin strip
# would take gigabytes), only the centre is resized. Pillow rounds the edges of a part, so that
# pixels may differ by up to 2 of 255 levels.
THIN = 16


def read(path: Path, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "h w c"]:
    """The image in a file with size and channels `shape`; an image of that size is not resized.

    The file is decoded as a data set's files are, and resized bilinearly with antialiasing. An EXIF
    orientation is ignored, as in training (torchvision and tensorflow-datasets ignore it, too).
    Raises: ValueError with the path if the file is missing, damaged, not an image, or too large
        (its header says so, and it is not decoded).
    """
    try:
        data = path.read_bytes()
        if data.startswith(images.JPEG):
            return fit_pixels(images.decode(data, shape[-1]), shape)
        with images.open_image(io.BytesIO(data)) as image:
            return fit(image, shape)
    except FileNotFoundError as error:
        raise ValueError(f"image {path} does not exist") from error
    except Exception as error:  # every codec raises its own types
        raise ValueError(f"image {path} cannot be read ({error})") from error


def is_turned(path: Path) -> bool:
    """Whether the EXIF data of an image file ask a viewer to turn or mirror it.

    Raises: as `images.open_image`.
    """
    with images.open_image(path) as image, contextlib.suppress(Exception):  # damaged EXIF data
        return image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return False


def fit(image: Image.Image, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "h w c"]:
    """An image with size and channels `shape`; an image of that size is not resized.

    Raises: ValueError if the pixels are numbers of unknown range: floating-point, of 32 bits, or of
        16 bits that are all small.
    """
    height, width, channels = shape
    if image.mode.startswith("I;16"):  # Pillow's conversion would clip values above 255
        if (most := int(np.asarray(image).max())) < 2**12:
            raise ValueError(
                f"its pixels have 16 bits and none is above {most}, so that white may be less than "
                "65535; save it with 8 bits"
            )
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "I" and image.format == "PPM":  # Pillow scales these to 16 bits
        image = Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
    if image.mode in ("I", "F"):
        kind = "floating-point numbers" if image.mode == "F" else "numbers of 32 bits"
        raise ValueError(f"its pixels are {kind} of unknown range; save it with 8 bits")
    image = image if image.mode == MODES[channels] else image.convert(MODES[channels])
    if image.size != (width, height) and min(height, width) < CROPPED:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    elif image.size != (width, height):
        # The roundings are torchvision's; the small number keeps an exact 256 from becoming 255.
        scale = max(height / image.height, width / image.width) / PART
        size = int(scale * image.width + 1e-6), int(scale * image.height + 1e-6)
        left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
        box = (left, top, left + width, top + height)
        if size[0] * size[1] <= THIN * width * height:
            image = image.resize(size, Image.Resampling.BILINEAR).crop(box)
        else:
            x, y = image.width / size[0], image.height / size[1]
            part = (x * box[0], y * box[1], x * box[2], y * box[3])
            image = image.resize((width, height), Image.Resampling.BILINEAR, part)
    return np.asarray(image).reshape(height, width, channels)


def fit_pixels(
    pixels: UInt8[np.ndarray, "h w c"], shape: tuple[int, int, int]
) -> UInt8[np.ndarray, "new_h new_w c"]:
    """The same as `fit` for an image that is already decoded."""
    return fit(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), shape)
