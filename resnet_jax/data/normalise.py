"""Normalisation of pixels, (x / 255 - mean) / std, by statistics of the training split."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32, UInt8

from resnet_jax.data import stream
from resnet_jax.data.dataset import Examples

BLOCK = 1000  # images


@dataclasses.dataclass(frozen=True, eq=False)
class Normalisation:
    """Mean and standard deviation of pixels in [0, 1].

    The mean has a number for each channel, or is a whole mean image.
    """

    mean: Float32[np.ndarray, "*h_w c"]
    std: Float32[np.ndarray, "c"]

    def to_json(self) -> dict[str, Any]:
        """The statistics as plain lists of numbers."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_json(cls, saved: dict[str, Any], shape: Sequence[int]) -> "Normalisation":
        """The normalisation that `to_json` wrote, bit for bit, for images of `shape` (h, w, c).

        Raises: ValueError for numbers that do not fit such images, that are not finite, or that
            images cannot be divided by.
        """
        mean, std = (np.array(saved[name], np.float32) for name in ("mean", "std"))
        if mean.shape not in (tuple(shape), tuple(shape[-1:])) or std.shape != tuple(shape[-1:]):
            raise ValueError(
                f"mean {mean.shape} and std {std.shape} do not fit images {tuple(shape)}"
            )
        if not np.isfinite(mean).all() or not np.isfinite(std).all() or not (std > 0).all():
            raise ValueError("mean and std must be finite, and std must be positive")
        return cls(mean, std)


def statistics(
    kind: str,
    train_images: UInt8[np.ndarray, "n h w c"],
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Normalisation:
    """The normalisation of a data set, exact to float32.

    per_pixel: subtract the mean image and divide by 1 (He et al. 2015, arXiv:1512.03385, sec. 4.2).
    channel: each channel gets mean 0 and variance 1 over the training split; a constant channel is
    not divided. constants: `mean` and `std` are given, one number for each channel.
    Raises: ValueError for another kind, or for constants that do not match the channels.
    """
    return _statistics(kind, (train_images,), train_images.shape[-1], mean, std)


def streamed_statistics(
    kind: str, records: Examples, mean: Sequence[float] = (), std: Sequence[float] = ()
) -> Normalisation:
    """The `statistics` of encoded images, computed in one pass over the split.

    The result equals that of the same images in memory bit for bit.
    Raises: ValueError as `statistics` does, and if statistics must be computed from images that
        differ in size, because the network sees random crops of such images.
    """
    shape: Any = records.shape
    height, width, channels = shape
    if kind == "constants":
        return _statistics(kind, (), channels, mean, std)
    if height is None or width is None:
        raise ValueError(
            f"normalisation={kind} needs images of one size; for photographs choose "
            "normalisation=constants in the config's argument, and give the usual constants of "
            'ImageNet: --config.data.mean="(0.485, 0.456, 0.406)" '
            '--config.data.std="(0.229, 0.224, 0.225)"'
        )
    rows = np.arange(min(BLOCK, len(records)))
    with stream.eval_batches(records, len(rows), rows, (height, width, channels)) as batches:
        return _statistics(kind, (image[mask] for image, _, mask in batches), channels)


def _statistics(
    kind: str,
    blocks: Iterable[UInt8[np.ndarray, "n h w c"]],
    channels: int,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Normalisation:
    if kind == "per_pixel":
        total, count = np.zeros((), np.int64), 0
        for block in blocks:
            # Integer sums are exact, and NumPy converts only a small buffer at a time.
            total = total + block.sum(axis=0, dtype=np.int64)
            count += len(block)
        means, stds = total / (255 * count), np.ones(channels)
    elif kind == "channel":
        counts = np.zeros((channels, 256), np.int64)
        for block in blocks:
            _count(block, counts)
        levels = np.arange(256) / 255
        pixels = counts[0].sum()
        means = counts @ levels / pixels
        stds = np.sqrt((counts * (levels - means[:, None]) ** 2).sum(axis=1) / pixels)
        stds[np.count_nonzero(counts, axis=1) == 1] = 1
    elif kind == "constants":
        means, stds = np.array(mean, np.float64), np.array(std, np.float64)
        if means.shape != (channels,) or stds.shape != (channels,) or not (stds > 0).all():
            raise ValueError(
                f"data.mean={mean} and data.std={std} do not fit images of {channels} channels; "
                f"give {channels} means and {channels} positive standard deviations"
            )
    else:
        raise ValueError(f"normalisation {kind!r} is not per_pixel, channel or constants")
    return Normalisation(means.astype(np.float32), stds.astype(np.float32))


def _count(images: UInt8[np.ndarray, "n h w c"], counts: np.ndarray) -> None:
    """Add to `counts` (c, 256) how often each channel takes each of the 256 levels."""
    for start in range(0, len(images), BLOCK):  # bincount converts its argument to 8 bytes a pixel
        for channel, count in enumerate(counts):
            part = images[start : start + BLOCK, ..., channel]
            count += np.bincount(part.ravel(), minlength=256)


def apply(normalisation: Normalisation, images: UInt8[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """The normalised images, float32: the network's input."""
    pixels = images.astype(jnp.float32) / 255
    mean, std = (jnp.broadcast_to(x, images.shape) for x in (normalisation.mean, normalisation.std))
    return (pixels - mean) / std


# Added to the variance of an image's levels, 0 to 255: an image of one colour has none.
CONTRAST_EPSILON = 10.0


def contrast(images: UInt8[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Global contrast normalisation: each image by itself, over all its pixels and channels.

        x' = (x - mean(x)) / sqrt(10 + var(x)),   x from 0 to 255

    Source: Coates et al. 2011 (AISTATS), sec. 3.1; pylearn2 has this form beside that of Goodfellow
    et al. 2013 (arXiv:1302.4389), in which the norm of a CIFAR image becomes 55, a deviation of
    0.99. Differs: the variance divides by n, not n - 1.
    """
    pixels = images.astype(jnp.float32)
    axes = (1, 2, 3)
    centred = pixels - pixels.mean(axes, keepdims=True)
    variance = jnp.square(centred).mean(axes, keepdims=True)
    return centred * lax.rsqrt(variance + CONTRAST_EPSILON)
