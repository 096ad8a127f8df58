"""From stored pixels to the network's input: normalisation, augmentation, and soft targets."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from resnet_jax.data import augment, mixing, normalise, sources
from resnet_jax.data.normalise import Normalisation
from resnet_jax.keys import (
    ANY,
    FRACTION,
    NOT_NEGATIVE,
    NUMBERS,
    Config,
    Key,
    Part,
    Rule,
    choice,
)
from resnet_jax.tasks.image_data import saved_names
from resnet_jax.tasks.task import Arrays, Batch, Dataset, Prepare, Statistics

# What is drawn beside the crops, whose keys are folded from rows: no row has these numbers.
MIXING, CUTOUT = 2**32 - 1, 2**32 - 2


def statistics(config: Config, dataset: Dataset) -> Statistics:
    """Return the normalisation that the config names, and the names of the classes.

    The normalisation is computed from the training split.
    Raises: ValueError for statistics of images that differ in size.
    """
    names = sources.class_names(config.data.name, config.data.dir)
    return _normalisation(config, dataset).to_json() | {"classes": list(names)}


def _normalisation(config: Config, dataset: Dataset) -> Normalisation:
    data, train, kind = config.data, dataset.train, config.data.normalisation
    if (known := given(config)) is not None:
        return known
    if train is None:
        raise ValueError(
            f"{data.name} has no split train, from which normalisation={kind} is computed; choose "
            "normalisation=constants in the config's argument"
        )
    if isinstance(train, Arrays):
        return normalise.statistics(kind, train.input)
    images: Any = train.examples
    if isinstance(images, sources.Split):
        return normalise.statistics(kind, images.images)
    return normalise.streamed_statistics(kind, images)


def given(config: Config) -> Normalisation | None:
    """Return the normalisation if the config alone says what it is, and None if data do."""
    data, kind = config.data, config.data.normalisation
    if kind not in ("constants", "contrast"):
        return None
    # Each image has its own contrast, of which these numbers say nothing.
    constants = (0.0,) * data.shape[-1], (1.0,) * data.shape[-1]
    if kind == "constants":
        constants = tuple(data.mean), tuple(data.std)
    return normalise.statistics("constants", np.zeros((0, *data.shape), np.uint8), *constants)


def prepare(config: Config, statistics: Statistics) -> Prepare:
    """Return the function that normalises images and, given a key, augments them.

    With a key, images are padded, cropped and mirrored, squares of them are cut out, and pairs are
    mixed, in this order. The target is then a distribution over the classes if labels are smoothed
    or mixed.
    """
    data, classes = config.data, config.model.num_classes
    normalisation = Normalisation.from_json(statistics, tuple(data.shape))
    saved_names(config, statistics)
    normal = functools.partial(normalise.apply, normalisation)
    if data.normalisation == "contrast":
        normal = normalise.contrast
    soft = data.mixup or data.cutmix or data.label_smoothing

    def prepare_images(key: Any, batch: Batch) -> Batch:
        if key is None:
            return dataclasses.replace(batch, input=normal(batch.input))
        images, target, rows = batch.input, batch.target, batch.row
        crop = functools.partial(
            augment.pad_crop_flip, pad=data.pad, flip=data.flip, reflect=data.padding == "reflect"
        )
        # Zeros are black before the normalisation and the mean after it.
        if data.padding == "black":
            images = normal(crop(key, images, rows))
        else:
            images = crop(key, normal(images), rows)
        if data.cutout:
            images = augment.cut_out(jax.random.fold_in(key, CUTOUT), images, rows, data.cutout)
        if soft:
            target = mixing.smoothed(target, classes, data.label_smoothing, images.dtype)
        if data.mixup or data.cutmix:
            key = jax.random.fold_in(key, MIXING)
            images, target = mixing.mix(key, images, target, data.mixup, data.cutmix)
        return dataclasses.replace(batch, input=images, target=target)

    return prepare_images


def unit(config: Config) -> int:
    """Return 2 if neighbours of a batch are mixed, so that no device may hold half of a pair."""
    return 2 if config.data.mixup or config.data.cutmix else 1


def check(config: Config) -> None:
    """Refuse augmentation that cannot be.

    Raises: ValueError with the value, the rule and what works.
    """
    data, side = config.data, min(config.data.shape[:2])
    if data.padding == "reflect" and data.pad >= side:
        raise ValueError(
            f"data.pad={data.pad} with data.padding=reflect: images of {side} pixels reflect at "
            f"most {side - 1}"
        )
    if data.padding == "black" and data.normalisation == "contrast":
        raise ValueError(
            "data.padding=black with normalisation=contrast: the black border would change an "
            "image's contrast; use data.padding=mean"
        )
    if data.cutout > 2 * side:
        raise ValueError(
            f"data.cutout={data.cutout} would cover every image of {side} pixels; use at most "
            f"{side}"
        )
    for name in ("mixup", "cutmix", "label_smoothing"):
        if data[name] and config.model.num_classes == 1:
            raise ValueError(
                f"data.{name}={data[name]} with one class: there is nothing to mix; set it to 0"
            )
    if unit(config) == 2 and config.batch_size // config.accumulate % 2:
        parts = f" / accumulate={config.accumulate}" if config.accumulate > 1 else ""
        raise ValueError(
            f"batch_size={config.batch_size}{parts} is odd, and mixup and cutmix mix pairs; use "
            f"--config.batch_size={config.batch_size + config.accumulate}"
        )


def _check_constants(config: Config) -> None:
    data, channels = config.data, config.data.shape[-1]
    if len(data.mean) != channels or len(data.std) != channels:
        raise ValueError(
            f"data.mean={data.mean} and data.std={data.std} with normalisation=constants: each "
            f"needs a number for each of the {channels} channels; set both --config.data.mean and "
            "--config.data.std"
        )
    if not all(value > 0 for value in data.std):
        raise ValueError(
            f"data.std={data.std} must hold positive numbers: pixels are divided by it"
        )


NORMALISATIONS = {
    "per_pixel": Part("the mean image is subtracted (He et al. 2015, sec. 4.2)"),
    "channel": Part("each channel gets mean 0 and variance 1"),
    "contrast": Part("each image gets mean 0 and variance 1 (global contrast normalisation)"),
    "constants": Part(
        "given constants, for imported weights and photographs",
        keys={
            "data.mean": Key((), NUMBERS, "means of the channels, of pixels in [0, 1]"),
            "data.std": Key((), NUMBERS, "standard deviations of the channels"),
        },
        check=_check_constants,
    ),
}
_EVEN = Rule(lambda side: side >= 0 and side % 2 == 0, "must be even and not negative")
# Beyond these the gamma variates of a Beta underflow, or the share is always 1/2.
_ALPHA = Rule(
    lambda alpha: alpha == 0 or 1e-3 <= alpha <= 1e3, "must be 0, or lie in [0.001, 1000]"
)
KEYS = {
    "data.pad": Key(4, NOT_NEGATIVE, "pixels on each side, before a random crop"),
    "data.padding": Key(
        "mean",
        choice("mean", "black", "reflect"),
        "what these pixels are: the mean (zeros after normalisation), black, or reflections",
    ),
    "data.flip": Key(True, ANY, "whether half of the images are mirrored at random"),
    "data.cutout": Key(0, _EVEN, "side of a square that is cut out of an image, in pixels"),
    "data.mixup": Key(0.0, _ALPHA, "alpha of mixup's Beta(alpha, alpha); 0 is none"),
    "data.cutmix": Key(0.0, _ALPHA, "alpha of cutmix's Beta(alpha, alpha); 0 is none"),
    "data.label_smoothing": Key(
        0.0, FRACTION, "epsilon: a target is (1 - epsilon) x its class + epsilon / classes"
    ),
}
