"""Random crops and mirror images, computed on the device inside the training step."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num

from resnet_jax.data.mixing import within


def pad_crop_flip(
    key: Key[Array, ""],
    images: Num[Array, "b h w c"],
    rows: Int[Array, "b"],
    pad: int,
    flip: bool,
    reflect: bool = False,
) -> Num[Array, "b h w c"]:
    """Images padded with `pad` pixels on each side and cropped back; half of them are mirrored.

    Each of the (2 pad + 1)^2 crops is equally likely. The padding is zeros, which are the mean of
    images that are already normalised, and black before; if `reflect`, it is the reflection of the
    image, without its outermost pixels. `rows` are the positions of the images in the global
    batch: the change of an image depends on `key` and on its row only, so that it does not depend
    on how devices share the batch.
    Source: He et al. 2015, arXiv:1512.03385, sec. 4.2.
    """
    if not pad and not flip:
        return images
    b, h, w, _ = images.shape
    # Everything is int32, so that a float64 run draws the numbers that a float32 run draws.
    ends = np.array([2 * pad + 1, 2 * pad + 1, 2], np.int32)
    draw = lambda row: jax.random.randint(jax.random.fold_in(key, row), (3,), 0, ends, np.int32)
    top, left, mirrored = jax.vmap(draw)(rows).T[:, :, None]
    y = top + np.arange(h, dtype=np.int32)[None, :]
    x = np.arange(w, dtype=np.int32)[None, :]
    x = left + (jnp.where(mirrored == 1, w - 1 - x, x) if flip else x)
    around = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    padded = jnp.pad(images, around, mode="reflect" if reflect else "constant")
    # A single gather is used because vmap(dynamic_slice) inside a scan takes ten times as long on
    # a CPU.
    image = np.arange(b)[:, None, None]
    return padded.at[image, y[:, :, None], x[:, None, :]].get(mode="promise_in_bounds")


def cut_out(
    key: Key[Array, ""], images: Float[Array, "b h w c"], rows: Int[Array, "b"], side: int
) -> Float[Array, "b h w c"]:
    """Images with zeros in a square of `side` pixels, whose centre is uniform over the pixels.

    `side` is even. What lies outside of the image is cut off, so that less may be erased.
    Source: DeVries & Taylor 2017, arXiv:1708.04552, sec. 3.2.
    """
    _, height, width, _ = images.shape
    ends = np.array([height, width], np.int32)
    draw = lambda row: jax.random.randint(jax.random.fold_in(key, row), (2,), 0, ends, np.int32)
    centres = jax.vmap(draw)(rows)
    half = np.int32(side // 2)
    inside = jax.vmap(lambda c: within(height, width, c - half, c + half))(centres)
    return jnp.where(inside[..., None], jnp.zeros((), images.dtype), images)
