"""Classification of images: a label for each image, by cross-entropy."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float

from resnet_jax.data import augment, normalise, sources, stream
from resnet_jax.data.normalise import Normalisation
from resnet_jax.keys import (
    ANY,
    LARGEST,
    NOT_NEGATIVE,
    NUMBERS,
    POSITIVE,
    SIZES,
    Config,
    Key,
    Part,
    Switch,
    choice,
    nearest,
)
from resnet_jax.tasks.task import (
    Arrays,
    Batch,
    Dataset,
    Example,
    Prepare,
    Statistics,
    Sums,
    Task,
    check_batches,
)

# If the labels of a streamed split can only be read with more than COUNTED_BYTES of images, its
# classes are estimated from COUNTED examples, evenly spaced: a share of 0.5 then has a standard
# error of 0.7 percentage points.
COUNTED_BYTES, COUNTED = 10**9, 5_000
# The most pixels on a side of a JPEG.
LARGEST_SIDE = 65_535


def example(config: Config) -> Example:
    """Return an image's shape (h, w, c), the number of classes, and the label's type."""
    label = jax.ShapeDtypeStruct((), np.int32)
    return Example(tuple(config.data.shape), config.model.num_classes, label)


def measure(logits: Float[Array, "b y"], batch: Batch) -> Sums:
    """Sum cross-entropy (nats), errors and examples over the examples of the mask."""
    labels = batch.target
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


@dataclass(frozen=True, eq=False)
class ImageStream:
    """A split of images that is read while it is trained on; see data/stream.py."""

    examples: stream.Examples
    shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def example(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """The shapes and types of an image and its label."""
        return jax.ShapeDtypeStruct(self.shape, np.uint8), jax.ShapeDtypeStruct((), np.int32)

    def train(
        self, seed: int, first: int, last: int, batch_size: int, rows: np.ndarray, threads: int
    ) -> stream.Batches:
        """Return the batches (image, label) of the steps from `first` to `last` - 1."""
        return stream.train_batches(
            self.examples, seed, first, last, batch_size, rows, self.shape, threads
        )

    def evaluate(self, batch_size: int, rows: np.ndarray) -> stream.Batches:
        """Return batches (image, label, mask) that hold every example once."""
        return stream.eval_batches(self.examples, batch_size, rows, self.shape)


def dataset(config: Config) -> Dataset:
    """Load the config's data set, in memory or to be streamed (data.stream).

    Raises: ValueError, before anything is read, for a data set that is missing or that does not fit
        the config; and the errors of `sources.dataset`.
    """
    name = config.data.name
    info = sources.info(name, config.data.dir)
    check_fits(config, info)
    if "train" in info.used_splits:
        check_batches(config, name, info.splits["train"])
    return _dataset(config, sources.dataset(name, config.data.dir, config.data.stream))


def test_dataset(config: Config, saved: Statistics) -> Dataset:
    """Load only the test split, with the labels of the run that saved these statistics.

    A class of the data set is the run's class of the same name, and the data set may lack some of
    the run's classes. If the run or the data set has no names, labels are compared as numbers.
    Raises: ValueError, before an image is read, for images of another shape and for classes that
        the run does not have; and the errors of `sources.dataset`.
    """
    data = config.data
    info = sources.info(data.name, data.dir)
    if (fits := _fitting_shape(config, info)) != tuple(data.shape):
        raise ValueError(f"the images of {info.name} are {fits}, and the run's {tuple(data.shape)}")
    names = sources.class_names(data.name, data.dir)
    labels = run_labels(info, names, config.model.num_classes, saved_names(config, saved))
    loaded = sources.dataset(data.name, data.dir, data.stream, test_only=True)
    if labels is not None:
        loaded = dataclasses.replace(loaded, test=loaded.test.relabelled(labels))
    return _dataset(config, loaded)


def _dataset(config: Config, loaded: sources.Dataset) -> Dataset:
    def split(images: Any) -> Arrays | ImageStream:
        if loaded.streamed:
            return ImageStream(images, tuple(config.data.shape))
        return Arrays(images.images, images.labels)

    return Dataset(
        split(loaded.train) if loaded.train is not None else None,
        split(loaded.test),
        loaded.fingerprint,
        functools.partial(chance_error, loaded),
        loaded.info.test_split,
    )


def saved_names(config: Config, saved: Statistics) -> tuple[str, ...]:
    """Return the names of the classes that a run has saved, () if its data set had none.

    Raises: ValueError if they are not a string for each class.
    """
    names = saved.get("classes", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("the names of the classes are no list of strings")
    if len(names) not in (0, config.model.num_classes):
        raise ValueError(f"{len(names)} names for {config.model.num_classes} classes")
    return tuple(names)


def run_labels(
    info: sources.DatasetInfo, names: Sequence[str], num_classes: int, run_names: Sequence[str]
) -> np.ndarray | None:
    """Return the run's label of each class of a data set; None if its labels are the run's.

    `names` are those of the data set's classes, and `run_names` those of the run's `num_classes`.
    Raises: ValueError for classes that the run does not have.
    """
    if names and run_names and names != run_names:
        unknown = sorted(set(names) - set(run_names))
        if unknown:
            raise ValueError(
                f"{info.name} has the class {unknown[0]!r}, which is none of the run's "
                f"{num_classes}{nearest(unknown[0], tuple(run_names), 0.6)}"
            )
        if len(set(names)) < len(names) or len(set(run_names)) < len(run_names):
            raise ValueError(f"{info.name} or the run has several classes of the same name")
        return np.array([run_names.index(name) for name in names], np.int32)
    # Labels without names may leave out the last classes; a folder's labels count those it has.
    if info.num_classes > num_classes or (names and info.num_classes < num_classes):
        raise ValueError(
            f"{info.name} has {info.num_classes} classes and the run has {num_classes}, whose "
            "names it has not saved; give data with the same classes"
        )
    return None


def chance_error(loaded: sources.Dataset) -> float:
    """Return the error of always naming the largest class of the training split.

    Without a training split it is that of the test split. The labels of a large streamed split are
    estimated from COUNTED examples.
    """
    examples = loaded.test if loaded.train is None else loaded.train
    if isinstance(examples, sources.Split):
        labels = examples.labels
    else:
        count = len(examples)
        few = count if examples.store.label_bytes() <= COUNTED_BYTES else min(count, COUNTED)
        labels = examples.labels(np.linspace(0, count - 1, few).astype(np.int64))
    return 1 - float(np.bincount(labels, minlength=1).max()) / max(1, len(labels))


def check_fits(config: Config, info: sources.DatasetInfo) -> None:
    """Refuse a config whose image shape or number of classes is not the data set's.

    Raises: ValueError with both values and the override that mends it.
    """
    if (fits := _fitting_shape(config, info)) != (ours := tuple(config.data.shape)):
        raise ValueError(
            f"data.shape={ours}, but the images of {info.name} are {fits}; "
            f'use --config.data.shape="{fits}"'
        )
    if config.model.num_classes != info.num_classes:
        raise ValueError(
            f"model.num_classes={config.model.num_classes}, but {info.name} has "
            f"{info.num_classes}; use --config.model.num_classes={info.num_classes}"
        )


def _fitting_shape(config: Config, info: sources.DatasetInfo) -> tuple[int, ...]:
    """Return the images' shape; if they differ in size, any size can be cropped from them."""
    sizes = zip(config.data.shape, info.shape, strict=True)
    return tuple(ours if own is None else own for ours, own in sizes)


def statistics(config: Config, dataset: Dataset) -> Statistics:
    """Return the normalisation that the config names, and the names of the classes.

    The normalisation is computed from the training split.
    Raises: ValueError for statistics of images that differ in size.
    """
    names = sources.class_names(config.data.name, config.data.dir)
    return _normalisation(config, dataset).to_json() | {"classes": list(names)}


def _normalisation(config: Config, dataset: Dataset) -> Normalisation:
    data, train = config.data, dataset.train
    constants = ()
    if data.normalisation == "constants":
        constants = tuple(data.mean), tuple(data.std)
    if train is None and not constants:
        raise ValueError(
            f"{data.name} has no split train, from which normalisation={data.normalisation} is "
            "computed; choose normalisation=constants in the config's argument"
        )
    if train is None:
        none = np.zeros((0, *data.shape), np.uint8)
        return normalise.statistics(data.normalisation, none, *constants)
    if isinstance(train, Arrays):
        return normalise.statistics(data.normalisation, train.input, *constants)
    images: Any = train.examples
    if isinstance(images, sources.Split):
        return normalise.statistics(data.normalisation, images.images, *constants)
    return normalise.streamed_statistics(data.normalisation, images, *constants)


def prepare(config: Config, statistics: Statistics) -> Prepare:
    """Return the function that normalises images and, given a key, crops and flips them."""
    data = config.data
    normalisation = Normalisation.from_json(statistics, tuple(data.shape))
    saved_names(config, statistics)

    def prepare_images(key: Any, batch: Batch) -> Batch:
        images = normalise.apply(normalisation, batch.input)
        if key is not None:
            images = augment.pad_crop_flip(key, images, batch.row, data.pad, data.flip)
        return dataclasses.replace(batch, input=images)

    return prepare_images


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
    "constants": Part(
        "given constants, for imported weights and photographs",
        keys={
            "data.mean": Key((), NUMBERS, "means of the channels, of pixels in [0, 1]"),
            "data.std": Key((), NUMBERS, "standard deviations of the channels"),
        },
        check=_check_constants,
    ),
}

TASK = Task(
    "classification of images",
    build=dataset,
    build_test=test_dataset,
    keys={
        "data.name": Key("cifar10", ANY, "digits, npz:PATH, folder:PATH or a tfds name"),
        "data.dir": Key("", ANY, "the tensorflow-datasets folder; digits needs none"),
        "data.stream": Key(
            "auto",
            choice("auto", "always", "never"),
            "whether data is read while it is trained on; auto: if it does not fit on the device",
        ),
        "data.shape": Key((32, 32, 3), SIZES, "height, width and channels of an image"),
        "data.pad": Key(4, NOT_NEGATIVE, "zeros on each side, before a random crop, in pixels"),
        "data.flip": Key(True, ANY, "whether half of the images are mirrored at random"),
        "model.num_classes": Key(10, POSITIVE, "classes of the data set"),
    },
    switches={
        "normalisation": Switch(
            "data.normalisation", NORMALISATIONS, "per_pixel", "how pixels are normalised"
        )
    },
    check=_check,
    example=example,
    statistics=statistics,
    prepare=prepare,
    measure=measure,
    evaluation=evaluation,
    protocol="center",
    score="error",
    shown=".2%",
)
