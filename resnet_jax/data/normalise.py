"""Pixels to what the network sees, (x / 255 - mean) / std, by statistics of the training split."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from resnet_jax.data import stream
from resnet_jax.data.records import Records

BLOCK = 1000  # images


@dataclasses.dataclass(frozen=True, eq=False)
class Normalisation:
    """Mean and standard deviation of pixels in [0, 1]: one a channel, or a whole mean image."""

    mean: Float32[np.ndarray, "*h_w c"]
    std: Float32[np.ndarray, "c"]

    def to_json(self) -> dict[str, Any]:
        """Plain lists of numbers."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "Normalisation":
        """What `to_json` wrote, bit for bit."""
        return cls(np.array(saved["mean"], np.float32), np.array(saved["std"], np.float32))


def statistics(
    kind: str,
    train_images: UInt8[np.ndarray, "n h w c"],
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Normalisation:
    """The normalisation of a data set, exact to float32.

    per_pixel: the mean image is subtracted and nothing divided (He et al. 2015, arXiv:1512.03385,
    sec. 4.2). channel: each channel gets mean 0 and variance 1 over the training split; one that
    is constant is not divided. constants: `mean` and `std`, one number a channel.
    Raises: ValueError for another kind, or constants that do not match the channels.
    """
    return _statistics(kind, (train_images,), train_images.shape[-1], mean, std)


def streamed_statistics(
    kind: str, records: Records, mean: Sequence[float] = (), std: Sequence[float] = ()
) -> Normalisation:
    """As `statistics` of the same images in memory, bit for bit, in one pass over the split.

    Raises: ValueError as `statistics`, and for what has to be computed from images that differ in
        size: what a network sees of them are crops, drawn anew each time.
    """
    high, wide, channels = records.shape
    if kind == "constants":
        return _statistics(kind, (), channels, mean, std)
    if high is None or wide is None:
        raise ValueError(
            f"data.normalisation={kind} needs images of one size; for photographs use constants, "
            'such as --config.data.normalisation=constants --config.data.mean="(0.485, 0.456, '
            '0.406)" --config.data.std="(0.229, 0.224, 0.225)", the usual ones of ImageNet'
        )
    rows = np.arange(min(BLOCK, len(records)))
    with stream.eval_batches(records, len(rows), rows, (high, wide, channels)) as batches:
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
            # Integer sums are exact, and NumPy widens a buffer at a time.
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
                f"constants of normalisation are {channels} means and as many positive standard "
                f"deviations for images of {channels} channels, not {mean} and {std}"
            )
    else:
        raise ValueError(f"normalisation {kind!r} is not per_pixel, channel or constants")
    return Normalisation(means.astype(np.float32), stds.astype(np.float32))


def _count(images: UInt8[np.ndarray, "n h w c"], counts: np.ndarray) -> None:
    """Add to `counts` (c, 256) how often each channel takes each of the 256 levels."""
    for start in range(0, len(images), BLOCK):  # bincount widens what it counts to 8 bytes
        for channel, count in enumerate(counts):
            part = images[start : start + BLOCK, ..., channel]
            count += np.bincount(part.ravel(), minlength=256)


def apply(normalisation: Normalisation, images: UInt8[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """The network's input, float32."""
    pixels = images.astype(jnp.float32) / 255
    mean, std = (jnp.broadcast_to(x, images.shape) for x in (normalisation.mean, normalisation.std))
    return (pixels - mean) / std
