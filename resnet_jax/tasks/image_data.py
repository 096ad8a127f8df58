"""Data sets of images with labels, as the task classification takes them."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from resnet_jax.data import order, sources, stream
from resnet_jax.data.dataset import Subset
from resnet_jax.keys import Config, nearest
from resnet_jax.tasks.task import Arrays, Dataset, Statistics, check_batches

# If the labels of a streamed split can only be read with more than COUNTED_BYTES of images, its
# classes are estimated from COUNTED examples, evenly spaced: a share of 0.5 then has a standard
# error of 0.7 percentage points.
COUNTED_BYTES, COUNTED = 10**9, 5_000


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
        check_batches(config, name, trained_on(config, info))
    return _dataset(config, sources.dataset(name, config.data.dir, config.data.stream))


def trained_on(config: Config, info: sources.DatasetInfo) -> int:
    """Return the number of training examples that are not set aside for validation.

    Raises: ValueError if none is left.
    """
    whole, aside = info.splits["train"], config.data.validation
    if aside >= whole:
        raise ValueError(
            f"data.validation={aside} leaves nothing of the {whole} training examples of "
            f"{info.name}; use less, such as {max(1, whole // 10)}"
        )
    return whole - aside


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
        whole: Any = loaded.test
        loaded = dataclasses.replace(loaded, test=whole.relabelled(labels))
    return _dataset(config, loaded)


def _dataset(config: Config, loaded: sources.Dataset) -> Dataset:
    """Return the data set as the training code takes it, with the validation split set aside."""

    def split(images: Any, rows: np.ndarray | None = None) -> Arrays | ImageStream:
        if loaded.streamed:
            some = images if rows is None else Subset(images, rows)
            return ImageStream(some, tuple(config.data.shape))
        if rows is None:
            return Arrays(images.images, images.labels)
        return Arrays(images.images[rows], images.labels[rows])

    train, validation, data = None, None, config.data
    if loaded.train is not None and data.validation:
        count = len(loaded.train)
        kept, aside = order.held_out(data.validation_seed, data.validation, count)
        train, validation = split(loaded.train, kept), split(loaded.train, aside)
    elif loaded.train is not None:
        train = split(loaded.train)
    chance = functools.partial(chance_error, loaded)
    test = split(loaded.test)
    return Dataset(train, test, loaded.fingerprint, chance, loaded.info.test_split, validation)


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
    examples: Any = loaded.test if loaded.train is None else loaded.train
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
