"""A run is measured on another data set by the names of its classes, not by their order."""

import numpy as np
import pytest
from PIL import Image

from resnet_jax.tasks import image_data, image_inputs
from resnet_jax.tasks.task import Arrays
from tests.recipes import recipe

SAVED = {"mean": [0.5] * 3, "std": [1.0] * 3, "classes": ["ant", "bee", "fly"]}


def folder(root, classes, test=""):
    """Write two grey images a class, whose level is the name's place in the run's names."""
    for name in classes:
        level = SAVED["classes"].index(name) if name in SAVED["classes"] else 9
        for i in range(2):
            file = root / test / name / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(file)
    return f"folder:{root}"


def measured(name, saved, stream="never"):
    """Return the labels that a run with three classes is measured by, and the images' levels."""
    config = recipe(
        "digits",
        data__name=name,
        data__shape=(8, 8, 3),
        data__stream=stream,
        model__num_classes=3,
    )
    dataset = image_data.test_dataset(config, saved)
    assert dataset.train is None
    if isinstance(dataset.test, Arrays):
        return dataset.test.target.tolist(), dataset.test.input[:, 0, 0, 0].tolist()
    with dataset.test.evaluate(4, np.arange(4)) as batches:
        rows = [(image[mask], label[mask]) for image, label, mask in batches]
    images, labels = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    return labels.tolist(), images[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize("classes", [("bee", "fly"), ("fly",), ("ant", "bee", "fly")])
def test_a_class_is_the_runs_class_of_the_same_name(tmp_path, classes, stream):
    labels, levels = measured(folder(tmp_path, classes), SAVED, stream)
    assert labels == levels and len(labels) == 2 * len(classes)


def test_the_training_split_of_the_other_data_is_not_read(tmp_path):
    folder(tmp_path, ("bee", "fly"), "test")
    (tmp_path / "train" / "bee").mkdir(parents=True)
    name = folder(tmp_path, ("bee", "fly"), "train")
    # A header that is whole, and pixels that are not.
    file = tmp_path / "train" / "fly" / "0.png"
    file.write_bytes(file.read_bytes()[:60])
    labels, levels = measured(name, SAVED)
    assert labels == levels == [1, 1, 2, 2]


def test_arrays_may_lack_the_last_classes(tmp_path):
    images = np.repeat(np.arange(2, dtype=np.uint8), 192).reshape(2, 8, 8, 3)
    np.savez(tmp_path / "a.npz", x_test=images, y_test=np.array([0, 1]))
    for saved in (SAVED, SAVED | {"classes": []}):
        assert measured(f"npz:{tmp_path}/a.npz", saved) == ([0, 1], [0, 1])
    # Its names count, whatever labels the split has.
    names = np.array(["fly", "bee", "ant"])
    np.savez(tmp_path / "b.npz", x_test=images, y_test=np.array([2, 1]), class_names=names)
    assert measured(f"npz:{tmp_path}/b.npz", SAVED) == ([0, 1], [0, 1])


def test_classes_that_the_run_does_not_have_are_refused(tmp_path):
    name = folder(tmp_path / "a", ("ant", "bees"))
    with pytest.raises(ValueError, match="has the class 'bees', which is none of the run's 3; nea"):
        measured(name, SAVED)
    # Without the run's names, a folder's classes count from 0: only the same number can be right.
    few = folder(tmp_path / "b", ("bee", "fly"))
    with pytest.raises(ValueError, match="has 2 classes and the run has 3, whose names"):
        measured(few, SAVED | {"classes": []})
    images = np.zeros((2, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "a.npz", x_test=images, y_test=np.array([0, 3]))
    with pytest.raises(ValueError, match="has 4 classes and the run has 3"):
        measured(f"npz:{tmp_path}/a.npz", SAVED)
    twice = SAVED | {"classes": ["ant", "ant", "bee"]}
    with pytest.raises(ValueError, match="several classes of the same name"):
        measured(folder(tmp_path / "c", ("ant", "bee")), twice)


def test_statistics_of_data_without_a_training_split_are_the_given_constants(tmp_path):
    data = {"data__name": folder(tmp_path, ("ant", "bee")), "data__shape": (8, 8, 3)}
    config = recipe("digits", model__num_classes=2, **data)
    with pytest.raises(ValueError, match="no split train, from which normalisation=per_pixel is c"):
        image_inputs.statistics(config, image_data.dataset(config))
    given = {"data__mean": (0.5, 0.25, 0.125), "data__std": (1.0, 2.0, 4.0)}
    config = recipe("digits", "normalisation=constants", model__num_classes=2, **data, **given)
    dataset = image_data.dataset(config)
    mean, std = list(given["data__mean"]), list(given["data__std"])
    names = {"mean": mean, "std": std, "classes": ["ant", "bee"]}
    assert image_inputs.statistics(config, dataset) == names and dataset.chance() == 0.5


@pytest.mark.parametrize("names", [["ant"], "abc", [1, 2, 3]])
def test_damaged_names_are_noticed(names):
    config = recipe("digits", data__shape=(8, 8, 3), model__num_classes=3)
    with pytest.raises(ValueError, match="names"):
        image_inputs.prepare(config, SAVED | {"classes": names})
