"""Tests of data.name=npz:PATH: arrays in a file or a folder are loaded, streamed or refused."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from resnet_jax.data import npz, order, sources, stream

RNG = np.random.default_rng(0)


def arrays(shape=(6, 4, 3), train=30, test=10, **changes):
    """The four arrays of a data set with 3 classes; `changes` replaces or (None) removes some."""
    made = {
        "x_train": RNG.integers(0, 256, (train, *shape)).astype(np.uint8),
        "y_train": np.arange(train) % 3,
        "x_test": RNG.integers(0, 256, (test, *shape)).astype(np.uint8),
        "y_test": np.arange(test) % 3,
    }
    return {key: a for key, a in (made | changes).items() if a is not None}


def write(path, content, form):
    """Write the arrays as a file or a folder, and return data.name."""
    if form == "folder":
        path.mkdir()
        for key, array in content.items():
            np.save(path / f"{key}.npy", array)
        return f"npz:{path}"
    path = path.with_suffix(".npz")
    (np.savez_compressed if form == "compressed" else np.savez)(path, **content)
    return f"npz:{path}"


FORMS = pytest.mark.parametrize("form", ["file", "compressed", "folder"])


@FORMS
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 1), (6, 4, 3), (5, 5, 4)])
def test_arrays_come_back_as_they_are(tmp_path, form, shape):
    content = arrays(shape, y_train=(np.arange(30) % 3).reshape(-1, 1).astype(np.uint8))
    name = write(tmp_path / "data", content, form)
    loaded = sources.load(name, "")
    expected_shape = shape if len(shape) == 3 else (*shape, 1)
    splits = {"train": 30, "test": 10}
    assert loaded.info == sources.DatasetInfo(name, "", expected_shape, 3, splits)
    assert loaded.info == sources.info(name, "") and not loaded.streamed
    for split in ("train", "test"):
        examples = getattr(loaded, split)
        expected = content[f"x_{split}"].reshape(-1, *expected_shape)
        np.testing.assert_array_equal(examples.images, expected)
        np.testing.assert_array_equal(examples.labels, content[f"y_{split}"].ravel())
        assert examples.labels.dtype == np.int32
        assert sources.records(loaded.info, "", split) is examples
        with pytest.raises(ValueError, match="read-only"):
            examples.images[0] = 0
    assert sources.class_names(name, "") == ()


@FORMS
def test_arrays_stream_in_the_order_of_resident_data(tmp_path, form):
    content = arrays()
    name = write(tmp_path / "data", content, form)
    streamed = sources.dataset(name, "", "always")
    assert streamed.streamed and not sources.dataset(name, "", "auto").streamed
    assert streamed.fingerprint == sources.load(name, "").fingerprint
    with stream.train_batches(streamed.train, 3, 0, 8, 12, np.arange(12), (6, 4, 3)) as batches:
        images, labels = (np.stack(part) for part in zip(*batches, strict=True))
    indices = order.chunk_indices(3, 0, 8, 12, 30)
    np.testing.assert_array_equal(images, content["x_train"][indices])
    np.testing.assert_array_equal(labels, content["y_train"][indices])


def test_data_too_large_for_the_device_are_streamed(tmp_path, monkeypatch):
    name = write(tmp_path / "data", arrays(), "folder")
    monkeypatch.setattr(sources, "device_limit", lambda device: 1000)
    assert sources.dataset(name, "", "auto").streamed
    with pytest.raises(ValueError, match="GB on the device"):
        sources.load(name, "")


def test_the_images_of_a_folder_are_not_copied_to_memory(tmp_path):
    name = write(tmp_path / "data", arrays(), "folder")
    images = sources.dataset(name, "", "always").train.images
    while images.base is not None and not isinstance(images, np.memmap):
        images = images.base
    assert isinstance(images, np.memmap)


def test_the_fingerprint_is_of_the_content_only(tmp_path):
    content = arrays()
    fingerprint = lambda path, content, form="file": (
        sources.load(write(tmp_path / path, content, form), "").fingerprint
    )
    reference = fingerprint("a", content)
    for path, form in (("b", "compressed"), ("c", "folder")):
        assert fingerprint(path, content, form) == reference
    columns = {key: np.asfortranarray(array) for key, array in content.items()}
    assert fingerprint("d", columns, "folder") == reference
    for key in content:
        changed = content[key].copy()
        changed.flat[0] = 1 - changed.flat[0] % 2
        assert fingerprint(f"changed_{key}", content | {key: changed}) != reference


def test_classes_are_counted_over_both_splits_and_may_have_names(tmp_path):
    content = arrays(y_test=np.full(10, 4), class_names=np.array(["a cat", "dog", "x", "y", "z"]))
    name = write(tmp_path / "data", content, "file")
    assert sources.info(name, "").num_classes == 5
    assert sources.class_names(name, "") == ("a cat", "dog", "x", "y", "z")


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "data", arrays(), "file")
    assert sources.info("npz:~/data.npz", "").num_classes == 3


FLOATS, INTEGERS = np.zeros((30, 6, 4, 3), np.float32), np.zeros((30, 6, 4, 3), np.int64)
REFUSED = {
    "missing": ({"x_test": None}, r"lacks x_test; its arrays are .*x_train"),
    "floats": ({"x_train": FLOATS}, r"x_train is float32.*multiply by 255 and cast"),
    "integers": ({"x_train": INTEGERS}, r"x_train is int64.*cast it: x_train.astype\('uint8'\)"),
    "objects": ({"x_train": np.array([None] * 30)}, "x_train is object"),
    "flat": ({"x_train": np.zeros((30, 72), np.uint8)}, r"x_train has shape \(30, 72\)"),
    "channels": ({"x_train": np.zeros((30, 3, 6, 5), np.uint8)}, r"np.moveaxis\(x_train, 1, -1\)"),
    "no pixels": ({"x_train": np.zeros((30, 0, 4, 3), np.uint8)}, "x_train has shape"),
    "other size": ({"x_test": np.zeros((10, 4, 6, 3), np.uint8)}, "need images of the same shape"),
    "lengths": ({"y_test": np.arange(9)}, "x_test has 10 images, but y_test has 9 labels"),
    "empty": ({"x_test": np.zeros((0, 6, 4, 3), np.uint8), "y_test": np.arange(0)}, "is empty"),
    "negative": ({"y_train": np.arange(30) - 4}, r"label -4 of y_train\[0\] is not in 0\.\."),
    "huge": ({"y_train": np.arange(30) + 2**40}, r"label \d+ of y_train\[0\] is not in 0\.\."),
    "real": ({"y_train": np.ones(30)}, "y_train is float64, and labels must be integers"),
    "pickled": ({"y_train": np.array([{}] * 30)}, "y_train is object, and labels must be"),
    "one-hot": ({"y_train": np.eye(30, dtype=int)}, r"one-hot labels use y_train.argmax\(-1\)"),
    "few names": ({"class_names": np.array(["a", "b"])}, "class_names is .*the labels need 3"),
    "bytes": ({"class_names": np.array([b"a", b"b", b"c"])}, "class_names is .*3 strings"),
}


@pytest.mark.parametrize("form", ["file", "folder"])
@pytest.mark.parametrize("kind", REFUSED)
def test_other_arrays_are_refused_in_one_line(tmp_path, kind, form):
    changes, message = REFUSED[kind]
    name = write(tmp_path / "data", arrays(**changes), form)
    with pytest.raises(ValueError, match=f"data set 'npz:.*{message}") as error:
        sources.info(name, "")
    assert "\n" not in str(error.value)


def test_another_path_is_refused_in_one_line(tmp_path):
    text = tmp_path / "text.npz"
    text.write_text("thesis")
    array = tmp_path / "array.npy"
    np.save(array, np.arange(3))
    for name, message in (
        ("npz", "'npz:' has no path; use npz:PATH"),
        ("npz:", "'npz:' has no path; use npz:PATH"),
        (f"npz:{tmp_path}/none.npz", "none.npz does not exist"),
        (f"npz:{text}", "text.npz is not an .npz file"),
        (f"npz:{array}", "array.npy is not an .npz file"),
        (f"npz:{tmp_path}", "lacks x_train, y_train, x_test, y_test; its arrays are array"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            sources.info(name, "")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["file", "compressed", "folder"])
def test_a_damaged_array_is_refused_in_one_line(tmp_path, form):
    path = Path(write(tmp_path / "data", arrays(), form).removeprefix("npz:"))
    file = path / "x_train.npy" if form == "folder" else path
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[200 if form == "compressed" else whole.index(b"NUMPY")] ^= 1
    for data in (whole[: len(whole) // 2], whole[:3], b"", changed):
        file.write_bytes(data)
        with pytest.raises(ValueError, match="data set 'npz:.*(damaged|not an .npz|read)") as error:
            sources.load.__wrapped__(f"npz:{path}", "")
        assert "\n" not in str(error.value)


def test_no_pickle_is_loaded(tmp_path):
    """The header tells that an array holds objects, and NumPy would refuse to unpickle them too."""

    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a pickle was loaded",)

    file = io.BytesIO()
    np.save(file, np.array([Trap()] * 30), allow_pickle=True)
    path = tmp_path / "data.npz"
    np.savez(path, **arrays(y_train=None))
    with zipfile.ZipFile(path, "a") as members:
        members.writestr("y_train.npy", file.getvalue())
    with pytest.raises(ValueError, match="y_train is object"):
        sources.info(f"npz:{path}", "")
    with pytest.raises(ValueError, match="y_train of .* cannot be read"):
        npz._read(path, "y_train")
