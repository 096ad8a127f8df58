"""Soft targets: label smoothing, and pairs of examples that are mixed (mixup, cutmix).

An example is mixed with its neighbour in the global batch: row 2j with row 2j + 1, and row 2j + 1
with row 2j. The batch is shuffled, so that this pairs examples at random, and no device needs the
rows of another device. Differs: the authors' codes draw a permutation of the batch, in which an
example may also meet itself. One share lambda is drawn for the whole batch, as in their codes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

Images = Float[Array, "b h w c"]
Targets = Float[Array, "b y"]


def smoothed(labels: Int[Array, "b"], classes: int, epsilon: float, dtype) -> Targets:
    """The distributions (1 - epsilon) onehot(label) + epsilon / classes, (b, classes).

    Source: Szegedy et al. 2016, arXiv:1512.00567, sec. 7, with a uniform prior.
    """
    return (1 - epsilon) * jax.nn.one_hot(labels, classes, dtype=dtype) + epsilon / classes


def neighbour(a: Float[Array, "b *rest"]) -> Float[Array, "b *rest"]:
    """The rows 1, 0, 3, 2, 5, 4, ...: each row's partner."""
    return a.reshape(-1, 2, *a.shape[1:])[:, ::-1].reshape(a.shape)


def mix(
    key: Key[Array, ""], images: Images, targets: Targets, mixup: float, cutmix: float
) -> tuple[Images, Targets]:
    """Images and targets of a batch, by mixup or cutmix with these alphas; 0 is none.

    If both are asked for, a batch gets one of the two with probability 1/2 each (as in timm).
    """
    if mixup and cutmix:
        which, key = jax.random.split(key)
        one = lambda: mixed_up(key, images, targets, mixup)
        other = lambda: cut_and_mixed(key, images, targets, cutmix)
        # An integer, so that a float64 run draws what a float32 run draws.
        return jax.lax.cond(jax.random.randint(which, (), 0, 2, jnp.int32) == 0, one, other)
    if mixup:
        return mixed_up(key, images, targets, mixup)
    return cut_and_mixed(key, images, targets, cutmix) if cutmix else (images, targets)


def mixed_up(
    key: Key[Array, ""], images: Images, targets: Targets, alpha: float
) -> tuple[Images, Targets]:
    """Mixup: lambda x + (1 - lambda) x' and the same of the targets, lambda ~ Beta(alpha, alpha).

    x' is the neighbour of x. Source: Zhang et al. 2018, arXiv:1710.09412, sec. 2.
    """
    share = jax.random.beta(key, alpha, alpha, dtype=jnp.float32).astype(images.dtype)
    blend = lambda a: share * a + (1 - share) * neighbour(a)
    return blend(images), blend(targets)


def cut_and_mixed(
    key: Key[Array, ""], images: Images, targets: Targets, alpha: float
) -> tuple[Images, Targets]:
    """Cutmix: a box of x' replaces the same box of x; the targets are mixed by the areas.

    x' is the neighbour of x. The box has sides sqrt(1 - lambda) of the image's, rounded down, with
    lambda ~ Beta(alpha, alpha) and a centre that is uniform over the pixels; what lies outside of
    the image is cut off. The targets' share is that of the pixels which stay. Every batch is mixed;
    the authors' code mixes a batch with a probability.
    Source: Yun et al. 2019, arXiv:1905.04899, eq. 1-2 and the authors' code.
    """
    of_share, of_centre = jax.random.split(key)
    height, width = images.shape[1:3]
    sides = jnp.array([height, width], jnp.float32)
    part = jnp.sqrt(1 - jax.random.beta(of_share, alpha, alpha, dtype=jnp.float32))
    half = (sides * part).astype(jnp.int32) // 2
    ends = jnp.array([height, width], jnp.int32)
    centre = jax.random.randint(of_centre, (2,), 0, ends, jnp.int32)
    inside = within(height, width, centre - half, centre + half)
    stays = 1 - inside.mean(dtype=images.dtype)
    mixed = jnp.where(inside[None, :, :, None], neighbour(images), images)
    return mixed, stays * targets + (1 - stays) * neighbour(targets)


def within(height: int, width: int, low: Int[Array, "2"], high: Int[Array, "2"]):
    """Whether each pixel (h, w) lies in the box [low, high) of rows and columns."""
    y, x = jnp.arange(height, dtype=jnp.int32), jnp.arange(width, dtype=jnp.int32)
    rows = (low[0] <= y) & (y < high[0])
    columns = (low[1] <= x) & (x < high[1])
    return rows[:, None] & columns[None, :]
