"""Random crops and flips, on the device and inside the step."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key


def pad_crop_flip(
    key: Key[Array, ""],
    images: Float[Array, "b h w c"],
    rows: Int[Array, "b"],
    pad: int,
    flip: bool,
) -> Float[Array, "b h w c"]:
    """Pad with `pad` zeros on each side, crop back at random, and mirror half of the images.

    Every one of the (2 pad + 1)^2 crops is equally likely. Images are normalised already, so that
    zero is the mean. `rows` are the images' places in the global batch: what happens to an image
    depends on `key` and its row, not on how the batch is shared out over devices.
    Source: He et al. 2015, arXiv:1512.03385, sec. 4.2.
    """
    if not pad and not flip:
        return images
    b, h, w, _ = images.shape
    # int32 throughout: a float64 run draws what a float32 run draws.
    ends = np.array([2 * pad + 1, 2 * pad + 1, 2], np.int32)
    draw = lambda row: jax.random.randint(jax.random.fold_in(key, row), (3,), 0, ends, np.int32)
    top, left, mirrored = jax.vmap(draw)(rows).T[:, :, None]
    y = top + np.arange(h, dtype=np.int32)[None, :]
    x = np.arange(w, dtype=np.int32)[None, :]
    x = left + (jnp.where(mirrored == 1, w - 1 - x, x) if flip else x)
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    # One gather: on a CPU vmap(dynamic_slice) takes ten times as long inside a scan.
    image = np.arange(b)[:, None, None]
    return padded.at[image, y[:, :, None], x[:, None, :]].get(mode="promise_in_bounds")
