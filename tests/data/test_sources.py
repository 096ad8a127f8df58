import dataclasses
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import array_records, sources
from resnet_jax.tasks import image_data

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (2100, 6, 4, 1)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (9, 8, 8, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, prepare):
    """`grey` (PNG), `colour` (JPEG, no test split), `mixed` (PNG of two sizes)."""
    root = tmp_path_factory.mktemp("tfds")
    classes = np.arange(len(GREY)) % 3
    grey = {"train": (GREY[:2050], classes[:2050]), "test": (GREY[2050:], classes[2050:])}
    prepare(root, "grey", grey, "png", (6, 4, 1))
    colour = {"train": (COLOUR[:6], classes[:6]), "validation": (COLOUR[6:], classes[6:9])}
    prepare(root, "colour", colour, "jpeg", (8, 8, 3))
    mixed = ([COLOUR[0], COLOUR[1, :5], COLOUR[2]], [0, 1, 2])
    prepare(root, "mixed", {"train": mixed, "test": mixed}, "png", (None, None, 3))
    return str(root)


def edited(folder, tmp_path, name, file, old, new):
    """The root of a copy of a data set in which `old` is replaced in a description file."""
    shutil.copytree(Path(folder) / name, tmp_path / name)
    path = tmp_path / name / "1.0.0" / file
    text = path.read_text("utf-8")
    changed = json.dumps(json.loads(text)).replace(old, new)
    assert changed != json.dumps(json.loads(text))
    path.write_text(changed)
    return str(tmp_path)


def test_digits_are_those_of_scikit_learn_and_need_no_folder():
    from sklearn.datasets import load_digits

    raw: Any = load_digits()
    digits = sources.load("digits", "")
    assert sources.info("digits", "") == digits.info
    assert digits.info.splits == {"train": len(digits.train), "test": len(digits.test)}
    assert len(digits.train) == 1500 and len(digits.test) == 297
    images = np.concatenate([digits.train.images, digits.test.images])
    assert images.shape[1:] == digits.info.shape and images.max() == 255
    np.testing.assert_array_equal(np.round(images[..., 0] * (16 / 255)), raw.images)
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    np.testing.assert_array_equal(labels, raw.target)


def test_digits_without_scikit_learn_say_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert sources.info("digits", "") == sources.DIGITS
    sources._in_memory.cache_clear()
    with pytest.raises(ValueError, match="needs scikit-learn.*pip install scikit-learn") as error:
        sources._load.__wrapped__("digits", "", False)
    assert "\n" not in str(error.value)


def test_the_digits_do_not_import_scikit_learn():
    program = (
        "import sys; from resnet_jax.data import sources; "
        "sources.load('digits', ''); sys.exit('sklearn' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hdf5:/data/a.h5", "unknown prefix 'hdf5'; the known prefixes are digits, npz, folder"),
        (":/data", "unknown prefix ''; the known prefixes are"),
        ("digits:/data", "digits has no path; use data.name=digits"),
    ],
)
def test_another_prefix_is_refused_in_one_line(name, message):
    for look in (sources.info, sources.load, sources.class_names):
        with pytest.raises(ValueError, match=message) as error:
            look(name, "")
        assert "\n" not in str(error.value)


def test_a_loader_is_a_function_and_a_line_in_the_table(monkeypatch):
    images = COLOUR.copy()

    def find(path, data_dir):
        splits = {"train": len(path), "test": len(path)}
        info = sources.DatasetInfo(f"toy:{path}", "1", (8, 8, 3), 2, splits)
        labels = np.zeros(len(path), np.int32)
        return sources.Source(info, lambda split: sources.Split(images[: len(path)], labels))

    monkeypatch.setitem(sources.LOADERS, "toy", find)
    for stream in ("never", "always"):
        dataset = sources.dataset("toy:abc", "", stream)
        assert len(dataset.train) == len(dataset.test) == 3
        assert dataset.fingerprint == sources.fingerprint(dataset.info, "")
        assert dataset.streamed == (stream == "always")


def test_png_comes_back_exactly_in_order(folder):
    grey = sources.load("grey", folder)
    assert grey.info == sources.DatasetInfo("grey", "1.0.0", (6, 4, 1), 3, grey.info.splits)
    assert grey.info.splits == {"train": 2050, "test": 50}
    np.testing.assert_array_equal(grey.train.images, GREY[:2050])
    np.testing.assert_array_equal(grey.test.images, GREY[2050:])
    np.testing.assert_array_equal(grey.train.labels, np.arange(2050) % 3)


def test_jpeg_is_decoded_as_pillow_does_and_validation_stands_in_for_test(folder, encode):
    colour = sources.load("colour", folder)
    decoded = [np.asarray(Image.open(encode(image, "jpeg"))) for image in COLOUR]
    np.testing.assert_array_equal(colour.train.images, decoded[:6])
    np.testing.assert_array_equal(colour.test.images, decoded[6:])
    assert colour.info.test_split == "validation"


def test_a_loaded_data_set_is_kept_and_cannot_be_changed(folder):
    grey = sources.load("grey", folder)
    assert sources.load("grey", folder) is grey
    with pytest.raises(ValueError, match="read-only"):
        grey.train.images[0] = 0


def test_the_fingerprint_is_of_name_version_and_content(folder, tmp_path, prepare):
    reference = sources.load("colour", folder).fingerprint
    assert sources.load.__wrapped__("colour", folder).fingerprint == reference
    fingerprints = {reference}
    for train, test in (([0, 1, 2, 0, 1, 1], [0, 1, 2]), ([0, 1, 2, 0, 1, 2], [0, 1, 1])):
        root = tmp_path / str(len(fingerprints))
        splits = {"train": (COLOUR[:6], train), "validation": (COLOUR[6:], test)}
        prepare(root, "colour", splits, "jpeg", (8, 8, 3))
        fingerprints.add(sources.load("colour", str(root)).fingerprint)
    shutil.copytree(Path(folder) / "colour", tmp_path / "renamed")
    fingerprints.add(sources.load("renamed", str(tmp_path)).fingerprint)
    assert len(fingerprints) == 4


def test_a_streamed_fingerprint_is_of_description_and_record_files(folder, tmp_path):
    about = sources.info("colour", folder)
    reference = sources.fingerprint(about, folder)
    assert sources.fingerprint(about, folder) == reference
    fingerprints = {reference, sources.fingerprint(sources.info("grey", folder), folder)}
    for file in ("features.json", "colour-validation.array_record-00000-of-00001"):
        shutil.copytree(Path(folder) / "colour", tmp_path / file / "colour")
        with (tmp_path / file / "colour" / "1.0.0" / file).open("a") as text:
            text.write("\n")
        fingerprints.add(sources.fingerprint(about, str(tmp_path / file)))
    assert len(fingerprints) == 4


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [
        (
            "gray",
            "{folder}",
            r"holds colour, grey, mixed \(nearest 'grey'\); .*prepare_tfds.sh gray",
        ),
        ("digit", "{folder}", r"nearest 'digits'"),
        ("grey", "", r"'grey' needs data.dir.*scripts/prepare_tfds.sh grey DATA_DIR.*'digits'"),
        ("grey", "/not/there", r"'/not/there' is not a folder.*scripts/prepare_tfds.sh grey"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_what_to_do(folder, name, root, message):
    for look in (sources.info, sources.load):
        with pytest.raises(ValueError, match=message) as error:
            look(name, root.format(folder=folder))
        assert "\n" not in str(error.value)


def test_images_that_differ_in_size_cannot_be_held_as_one_array(folder):
    assert sources.info("mixed", folder).shape == (None, None, 3)
    with pytest.raises(ValueError, match="'mixed' differ in size, so that they cannot be held"):
        sources.load("mixed", folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "dataset_info.json",
            '"array_record"',
            '"tfrecord"',
            "tfrecord form.*prepare_tfds.sh grey OTHER_DIR",
        ),
        (
            "dataset_info.json",
            '"test"',
            '"extra"',
            r"train \(2050 examples\), extra \(.*it needs examples in",
        ),
        (
            "dataset_info.json",
            '"test"',
            '"extra"',
            r"extra \(50 examples\); it needs",
        ),
        ("dataset_info.json", '"shardLengths"', '"lengths"', "damaged.*shardLengths"),
        ("features.json", '"label":', '"digit":', "no image .* 'label', but image, digit"),
        ("features.json", '"image": {"image"', '"photo": {"image"', "but photo, label"),
        ("features.json", '"uint8"', '"uint16"', "are uint16 with 1 channels"),
    ],
)
def test_a_data_set_that_says_it_is_something_else_is_refused(
    folder, tmp_path, file, old, new, message
):
    root = edited(folder, tmp_path, "grey", file, old, new)
    with pytest.raises(ValueError, match=message):
        sources.info("grey", root)


def test_a_label_of_no_class_names_its_split_and_example(folder, tmp_path):
    root = edited(
        folder, tmp_path, "grey", "features.json", '"numClasses": "3"', '"numClasses": "2"'
    )
    with pytest.raises(ValueError, match=r"'train', example 2: its label 2 is not in 0\.\.1"):
        sources.load("grey", root)


def test_an_image_of_another_size_names_its_split_and_example(folder, tmp_path):
    root = edited(folder, tmp_path, "mixed", "features.json", '["-1", "-1",', '["8", "8",')
    with pytest.raises(ValueError, match=r"'train', example 1: its image is \(5, 8, 3\), not"):
        sources.load("mixed", root)


def test_a_missing_file_names_its_split(folder, tmp_path):
    shutil.copytree(Path(folder) / "colour", tmp_path / "colour")
    for file in (tmp_path / "colour").rglob("*validation*"):
        file.unlink()
    with pytest.raises(ValueError, match=f"'validation': its record file {tmp_path}.* is missing"):
        sources.load("colour", str(tmp_path))


def test_the_newest_version_is_taken(folder, tmp_path):
    for version in ("1.0.0", "9.0.0", "10.0.0", "incomplete.11.0.0"):
        shutil.copytree(Path(folder) / "colour" / "1.0.0", tmp_path / "colour" / version)
        path = tmp_path / "colour" / version / "dataset_info.json"
        path.write_text(path.read_text("utf-8").replace('"1.0.0"', f'"{version}"'))
    assert sources.info("colour", str(tmp_path)).version == "10.0.0"


def test_what_does_not_fit_is_refused_with_its_size_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(sources, "device_limit", lambda device: 2100 * 6 * 4 * 2 - 1)
    monkeypatch.setattr(sources, "_decode", lambda *_: pytest.fail("read"))
    with pytest.raises(ValueError, match="'grey' needs 0.0 GB on the device"):
        sources.load.__wrapped__("grey", folder)


def test_a_data_set_may_take_half_of_the_device():
    sources.check_fits(8 * 10**9, 16 * 10**9, "half")
    sources.check_fits(10**15, None, "unknown")
    with pytest.raises(ValueError, match="'imagenet2012' needs 192.3 GB .* has 16.0 GB"):
        sources.check_fits(192_300_000_000, 16 * 10**9, "imagenet2012")


def test_the_limit_is_the_devices_own_or_the_machines_memory():
    @dataclasses.dataclass
    class Device:
        platform: str
        stats: dict | None

        def memory_stats(self):
            return self.stats

    assert sources.device_limit(Device("gpu", {"bytes_limit": 5})) == 5
    assert sources.device_limit(Device("tpu", None)) is None
    limit = sources.device_limit(jax.devices("cpu")[0])
    assert limit is None or 10**8 < limit < 10**14


def test_class_names_are_the_folders_or_none(folder, tmp_path):
    assert sources.class_names("digits", "") == ()
    shutil.copytree(Path(folder) / "colour", tmp_path / "colour")
    path = tmp_path / "colour" / "1.0.0" / "label.labels.txt"
    path.write_text("a cat\ndog\nbird\n")
    assert sources.class_names("colour", str(tmp_path)) == ("a cat", "dog", "bird")
    path.unlink()
    assert sources.class_names("colour", str(tmp_path)) == ()
    with pytest.raises(ValueError, match="holds colour"):
        sources.class_names("grey", str(tmp_path))


def test_looking_a_data_set_up_does_not_import_tfds(folder):
    program = (
        "import sys; from resnet_jax.data import sources; "
        f"sources.info('grey', {folder!r}); sys.exit('tensorflow_datasets' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.skipif("RESNET_JAX_DATA" not in os.environ, reason="RESNET_JAX_DATA is not set")
def test_a_real_data_set_has_the_statistics_it_is_known_for():
    from resnet_jax.data import normalise

    try:
        cifar = sources.load("cifar10_jpeg", os.environ["RESNET_JAX_DATA"])
    except ValueError as error:
        pytest.skip(str(error))
    assert Counter(cifar.train.labels.tolist()) == dict.fromkeys(range(10), 5000)
    assert Counter(cifar.test.labels.tolist()) == dict.fromkeys(range(10), 1000)
    # The published values of CIFAR-10; re-encoding as JPEG changes them a little.
    known = normalise.statistics("channel", cifar.train.images)
    np.testing.assert_allclose(known.mean, [0.4914, 0.4822, 0.4465], atol=0.003)
    np.testing.assert_allclose(known.std, [0.2470, 0.2435, 0.2616], atol=0.003)


@pytest.mark.parametrize("stream", ["never", "always"])
def test_errors_are_measured_on_the_validation_split_if_the_test_split_has_no_labels(
    tmp_path, write_tfds, stream
):
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (6, 6, 3)).astype(np.uint8)).save(file, "png")
    rows = lambda *labels: [[(file.getvalue(), label) for label in labels]]
    splits = {"train": rows(0, 1, 2), "validation": rows(2, 1), "test": rows(-1, -1, -1, -1)}
    write_tfds(tmp_path, "places", splits, (6, 6, 3))
    loaded = sources.dataset("places", str(tmp_path), stream)
    assert (loaded.info.test_split, len(loaded.test)) == ("validation", 2)
    write_tfds(tmp_path, "alone", {"train": rows(0, 1), "test": rows(-1, -1)}, (6, 6, 3))
    with pytest.raises(ValueError, match="has the labelled splits train .2 examples.; it needs"):
        sources.info("alone", str(tmp_path))


@pytest.mark.parametrize("stream", ["never", "always"])
def test_chance_is_the_error_of_the_largest_class_however_data_is_read(
    tmp_path, write_tfds, stream
):
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (6, 6, 3)).astype(np.uint8)).save(file, "png")
    rows = [[(file.getvalue(), int(i == 0)) for i in range(40)]]
    write_tfds(tmp_path, "fraud", {"train": rows, "test": rows}, (6, 6, 3))
    loaded = sources.dataset("fraud", str(tmp_path), stream)
    assert loaded.streamed == (stream == "always")
    assert image_data.chance_error(loaded) == pytest.approx(1 / 40)


def test_a_damaged_example_is_named_while_labels_are_counted(tmp_path, write_tfds):
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (6, 6, 3)).astype(np.uint8)).save(file, "png")
    rows = [[(file.getvalue(), 0) for _ in range(3)]]
    write_tfds(tmp_path, "cut", {"train": rows, "test": rows}, (6, 6, 3))
    (path,) = (tmp_path / "cut").rglob("*train*")
    data = bytearray(path.read_bytes())
    data[data.index(file.getvalue()) - 2] ^= 0xFF
    path.write_bytes(data)
    loaded = sources.dataset("cut", str(tmp_path), "always")
    with pytest.raises(ValueError, match="split 'train', example 0: .*record 0 of"):
        image_data.chance_error(loaded)


def test_chance_of_a_large_streamed_split_is_estimated(tmp_path, write_tfds, monkeypatch):
    monkeypatch.setattr(image_data, "COUNTED_BYTES", 100)
    monkeypatch.setattr(image_data, "COUNTED", 60)
    file = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (6, 6, 3)).astype(np.uint8)).save(file, "png")
    # In the order of their classes, as some data sets are.
    rows = [[(file.getvalue(), int(i >= 150)) for i in range(200)]]
    write_tfds(tmp_path, "sorted", {"train": rows, "test": rows}, (6, 6, 3))
    loaded = sources.dataset("sorted", str(tmp_path), "always")
    assert image_data.chance_error(loaded) == pytest.approx(0.25, abs=0.02)


def test_a_split_of_many_record_files_may_open_them_all(monkeypatch):
    usual = array_records.resource.getrlimit(array_records.resource.RLIMIT_NOFILE)
    asked = []
    limits = lambda soft, hard: monkeypatch.setattr(
        array_records,
        "resource",
        SimpleNamespace(
            RLIMIT_NOFILE=0,
            RLIM_INFINITY=-1,
            getrlimit=lambda _: (soft, hard),
            setrlimit=lambda _, limit: asked.append(limit),
        ),
    )
    limits(1024, 4096)
    array_records.allow_open_files(10)
    assert not asked
    array_records.allow_open_files(1024)
    assert asked == [(4096, 4096)]  # enough for a test split of as many
    limits(1024, -1)
    array_records.allow_open_files(1024)
    assert asked[-1][0] >= 2 * 1024 + array_records.SPARE_FILES
    limits(1024, 1080)
    with pytest.raises(ValueError, match="has 1088 record files, and this process may open 1080"):
        array_records.allow_open_files(1088)
    limits(-1, -1)
    array_records.allow_open_files(10**6)
    assert len(asked) == 2
    monkeypatch.undo()
    assert array_records.resource.getrlimit(array_records.resource.RLIMIT_NOFILE) == usual
