"""Pixels to what the network sees, (x / 255 - mean) / std, by statistics of the training split."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8


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
    channels = train_images.shape[-1]
    if kind == "per_pixel":
        # Integer sums are exact, and NumPy widens a buffer at a time.
        means = train_images.sum(axis=0, dtype=np.int64) / (255 * len(train_images))
        stds = np.ones(channels)
    elif kind == "channel":
        counts = _histograms(train_images)
        levels = np.arange(256) / 255
        pixels = train_images[..., 0].size
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


def _histograms(images: UInt8[np.ndarray, "n h w c"]) -> np.ndarray:
    """How often each channel takes each of the 256 levels: (c, 256)."""
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for start in range(0, len(images), 1000):  # bincount widens what it counts to 8 bytes
        for channel, count in enumerate(counts):
            count += np.bincount(images[start : start + 1000, ..., channel].ravel(), minlength=256)
    return counts


def apply(normalisation: Normalisation, images: UInt8[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """The network's input, float32."""
    pixels = images.astype(jnp.float32) / 255
    mean, std = (jnp.broadcast_to(x, images.shape) for x in (normalisation.mean, normalisation.std))
    return (pixels - mean) / std
