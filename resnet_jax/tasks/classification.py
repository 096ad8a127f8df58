"""Classification of images: a label for each image, by cross-entropy."""

import math
from typing import Any

import jax
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.keys import (
    ANY,
    LARGEST,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SIZES,
    Config,
    Key,
    Switch,
    choice,
)
from resnet_jax.tasks import image_data, image_inputs
from resnet_jax.tasks.task import Batch, Example, Statistics, Sums, Task

# The most pixels on a side of a JPEG.
LARGEST_SIDE = 65_535


def example(config: Config) -> Example:
    """Return an image's shape (h, w, c), the number of classes, and the label's type."""
    label = jax.ShapeDtypeStruct((), np.int32)
    return Example(tuple(config.data.shape), config.model.num_classes, label)


def measure(logits: Float[Array, "b y"], batch: Batch) -> Sums:
    """Sum cross-entropy (nats), errors and examples over the examples of the mask.

    The target is a label (b,), or a distribution over the classes (b, y) with which the loss of an
    example is -sum_k y_k log p_k; an error then is another class than the distribution's largest.
    """
    labels = batch.target
    if labels.ndim == 2:
        losses = optax.softmax_cross_entropy(logits, labels.astype(logits.dtype))
        labels = labels.argmax(-1)
    else:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    wrong = (logits.argmax(-1).astype(labels.dtype) != labels).astype(losses.dtype)
    counted = batch.mask.astype(losses.dtype)
    return {
        "loss": (losses * counted).sum(),
        "error": (wrong * counted).sum(),
        "examples": counted.sum(),
    }


def evaluation(logits: Float[Array, "b y"], batch: Batch) -> Sums:
    """Add to `measure` the labels that are not among the five likeliest classes (error_top5)."""
    labels = batch.target
    best = lax.top_k(logits, min(5, logits.shape[-1]))[1]
    missed = (best.astype(labels.dtype) != labels[:, None]).all(-1)
    sums = measure(logits, batch)
    return sums | {"error_top5": (missed & batch.mask).astype(sums["error"].dtype).sum()}


def unlabelled(images: Any) -> Batch:
    """Return a batch of images without labels, to be prepared for a prediction."""
    rows = np.arange(len(images), dtype=np.int32)
    return Batch(images, None, rows, np.ones(len(images), bool))


def check_images(images: np.ndarray, config: Config, statistics: Statistics | None) -> None:
    """Refuse images that contradict what the network was trained on.

    Raises: ValueError for another shape than (n, h, w, c) and another type than uint8; given the
        run's statistics also for pixels that are all darker than a quarter of the training images'
        mean, such as 0 to 16. The message says how such images become uint8 from 0 to 255.
    """
    shape = tuple(config.data.shape)
    if images.shape[1:] != shape or images.ndim != 4 or not len(images):
        raise ValueError(
            f"images have the shape {images.shape}; give an array of shape "
            f"(n, {', '.join(map(str, shape))}) with n > 0"
        )
    too_dark = 0.0 if statistics is None else 255 * float(np.mean(statistics["mean"])) / 4
    number = images.dtype.kind in "buif"
    low, high = (float(images.min()), float(images.max())) if number else (math.nan, math.nan)
    if images.dtype == np.uint8 and not 0 < high < too_dark:
        return
    facts = f"images are {images.dtype}" + (f" from {low:g} to {high:g}" if number else "")
    if not number or not math.isfinite(high - low):
        remedy = "give finite numbers"
    elif low < 0:
        remedy = "give the images as they were before they were normalised"
    elif high > 255:
        remedy = "scale them so that white is 255"
    elif high <= 1 and images.dtype != np.uint8:
        remedy = "pass (255 * images).round().astype('uint8')"
    elif 0 < high < too_dark:
        remedy = (
            f"the mean pixel in training was {4 * too_dark:.0f}; if {high:g} is white, pass "
            f"(255 / {high:g} * images).round().astype('uint8')"
        )
    else:
        remedy = "pass images.round().astype('uint8')"
    raise ValueError(f"{facts}; this run takes uint8 from 0 to 255: {remedy}")


def _check(config: Config) -> None:
    data = config.data
    if len(data.shape) != 3:
        raise ValueError(f"data.shape={data.shape} must be (height, width, channels)")
    if max(data.shape[:2]) > LARGEST_SIDE:
        raise ValueError(
            f"data.shape={data.shape} has more than {LARGEST_SIDE} pixels on a side, the most that "
            "a JPEG can have"
        )
    numbers = math.prod(side + 2 * data.pad for side in data.shape[:2]) * data.shape[2]
    if numbers > LARGEST:
        raise ValueError(
            f"data.shape={data.shape} with data.pad={data.pad} makes images of {numbers} numbers; "
            f"jax counts them in 32 bits, to {LARGEST}"
        )
    if data.validation and config.replicas > 1:
        raise ValueError(
            f"data.validation={data.validation} with replicas={config.replicas}: each network has "
            "a best epoch of its own; use replicas=1"
        )
    if data.validation_seed and not data.validation:
        raise ValueError(
            f"data.validation_seed={data.validation_seed} changes nothing, because "
            "data.validation=0; leave it out or set data.validation"
        )
    image_inputs.check(config)


TASK = Task(
    "classification of images",
    build=image_data.dataset,
    build_test=image_data.test_dataset,
    unit=image_inputs.unit,
    keys={
        "data.name": Key("cifar10", ANY, "digits, npz:PATH, folder:PATH or a tfds name"),
        "data.dir": Key("", ANY, "the tensorflow-datasets folder; digits needs none"),
        "data.stream": Key(
            "auto",
            choice("auto", "always", "never"),
            "whether data is read while it is trained on; auto: if it does not fit on the device",
        ),
        "data.shape": Key((32, 32, 3), SIZES, "height, width and channels of an image"),
        "data.validation": Key(
            0, NOT_NEGATIVE, "training examples that are set aside to choose the best epoch"
        ),
        "data.validation_seed": Key(0, SEED, "seed of the permutation that sets them aside"),
        "model.num_classes": Key(10, POSITIVE, "classes of the data set"),
    }
    | image_inputs.KEYS,
    switches={
        "normalisation": Switch(
            "data.normalisation",
            image_inputs.NORMALISATIONS,
            "per_pixel",
            "how pixels are normalised",
        )
    },
    check=_check,
    example=example,
    statistics=image_inputs.statistics,
    prepare=image_inputs.prepare,
    measure=measure,
    evaluation=evaluation,
    protocol="center",
    score="error",
    shown=".2%",
)
