"""Tests of data.name=folder:PATH: image files in a folder for each class, as in torchvision."""

import shutil

import numpy as np
import pytest
from PIL import Image

from resnet_jax.data import folder, scan, sources, stream

RNG = np.random.default_rng(0)
SIZE = (8, 10)


def noise(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def write(root, images):
    """Write a dict of paths to pixels or the bytes of a file, and return data.name."""
    for path, content in images.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            Image.fromarray(content).save(file)
    return f"folder:{root}"


def tree(*shape, test="test"):
    """2 classes with 5 training and 3 test images of this shape; the paths are in sorted order."""
    return {
        f"{split}/{name}/{i}.png": noise(*shape)
        for split, count in (("train", (3, 2)), (test, (1, 2)))
        for name, n in zip(("ant", "bee"), count, strict=True)
        for i in range(n)
    }


@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_images_of_one_size_are_held_in_sorted_order(tmp_path, test):
    images = tree(*SIZE, 3, test=test)
    name = write(tmp_path, dict(reversed(images.items())))
    loaded = sources.load(name, "")
    split = "test" if test == "test" else "validation"
    assert loaded.info == sources.DatasetInfo(name, "", (*SIZE, 3), 2, {"train": 5, split: 3})
    assert loaded.info.test_split == split
    pixels = list(images.values())
    np.testing.assert_array_equal(loaded.train.images, pixels[:5])
    np.testing.assert_array_equal(loaded.test.images, pixels[5:])
    assert loaded.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert loaded.test.labels.tolist() == [0, 1, 1]
    assert sources.class_names(name, "") == ("ant", "bee")


def test_a_streamed_folder_gives_the_images_of_a_loaded_one(tmp_path):
    name = write(tmp_path, tree(*SIZE, 3))
    held, streamed = sources.load(name, ""), sources.dataset(name, "", "always")
    assert streamed.streamed and held.fingerprint.split("+")[0] == streamed.fingerprint
    assert streamed.fingerprint == sources.fingerprint(held.info, "")
    with stream.eval_batches(streamed.train, 2, np.arange(2), (*SIZE, 3)) as batches:
        images, labels, masks = (np.stack(part) for part in zip(*batches, strict=True))
    np.testing.assert_array_equal(images[masks], held.train.images)
    np.testing.assert_array_equal(labels[masks], held.train.labels)
    counts = scan.scan(streamed.train)
    assert counts.labels == {0: 3, 1: 2} and not counts.problems


def test_images_of_many_sizes_are_streamed_and_cropped(tmp_path):
    name = write(tmp_path, tree(*SIZE, 3) | {"train/bee/z.png": noise(30, 20, 3)})
    dataset = sources.dataset(name, "", "auto")
    assert dataset.streamed and dataset.info.shape == (None, None, 3)
    with stream.train_batches(dataset.train, 0, 0, 4, 3, np.arange(3), (16, 16, 3)) as batches:
        assert [image.shape for image, _ in batches] == [(3, 16, 16, 3)] * 4
    with pytest.raises(ValueError, match="differ in size"):
        sources.load(name, "")


@pytest.mark.parametrize("form", ["png", "jpg", "bmp", "gif", "pgm", "tiff", "webp", "JPEG"])
def test_grey_images_have_one_channel_unless_others_have_colours(tmp_path, form):
    grey = {path.replace("png", form): pixels for path, pixels in tree(*SIZE).items()}
    has_grey_form = form not in ("gif", "webp")  # palette, colours
    name = write(tmp_path / "grey", grey)
    assert sources.info(name, "").shape == (*SIZE, 1 if has_grey_form else 3)
    name = write(tmp_path / "both", grey | {"test/bee/z.png": noise(*SIZE, 3)})
    loaded = sources.load(name, "")
    assert loaded.info.shape == (*SIZE, 3)
    images = loaded.train.images.astype(int)
    assert abs(images - images[..., :1]).max() <= (0 if has_grey_form else 8)
    if form in ("png", "bmp", "pgm", "tiff"):
        np.testing.assert_array_equal(images[0, ..., 0], next(iter(grey.values())))


def test_other_files_and_hidden_names_are_ignored_and_deeper_folders_are_not(tmp_path):
    others = {"train/ant/notes.txt": b"thesis", "train/.cache/0.png": noise(*SIZE, 3)}
    others |= {"train/ant/._0.png": b"thesis", "test/readme.png": b"thesis"}
    deep = {"train/bee/images/old/9.png": noise(*SIZE, 3)}
    name = write(tmp_path, tree(*SIZE, 3) | others | deep)
    loaded = sources.load(name, "")
    assert loaded.info.splits == {"train": 6, "test": 3} and loaded.info.num_classes == 2
    np.testing.assert_array_equal(loaded.train.images[-1], next(iter(deep.values())))


def test_a_folder_of_unlabelled_test_images_is_passed_over(tmp_path):
    unlabelled = {"test/0.png": noise(*SIZE, 3)}
    name = write(tmp_path, tree(*SIZE, 3, test="val") | unlabelled)
    assert sources.info(name, "").splits == {"train": 5, "validation": 3}


def test_the_fingerprint_is_of_relative_paths_and_sizes(tmp_path):
    images = tree(*SIZE, 3)
    reference = write(tmp_path / "a", images)
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    fingerprint = lambda name: sources.fingerprint(sources.info(name, ""), "")
    assert fingerprint(f"folder:{tmp_path / 'moved'}") == fingerprint(reference)
    larger = write(tmp_path / "b", images)
    with (tmp_path / "b" / "test" / "bee" / "1.png").open("ab") as file:
        file.write(b"\0")
    renamed = write(tmp_path / "c", images)
    (tmp_path / "c" / "train" / "bee").rename(tmp_path / "c" / "train" / "wasp")
    (tmp_path / "c" / "test" / "bee").rename(tmp_path / "c" / "test" / "wasp")
    assert len({fingerprint(name) for name in (reference, larger, renamed)}) == 3


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "images", tree(*SIZE, 3))
    assert sources.info("folder:~/images", "").num_classes == 2


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({}, "/images is not a folder"),
        ({"train/0.png": noise(8, 8)}, "no folder train with a folder for each class"),
        ({"a/ant/0.png": noise(8, 8)}, "no folder train .*and its folders are: a"),
        (
            {"train/ant/0.png": noise(8, 8)},
            "no folder test, val, valid or validation .*test/CLASS/IMAGE",
        ),
        (tree(*SIZE) | {"test/cat/0.png": noise(8, 8)}, "class 'cat' of .*/test is not a class"),
        (tree(*SIZE) | {"train/cat/0.txt": b""}, "class 'cat' of .*/train has no image file"),
        ({"train/ant/0.png": noise(8, 8), "test/ant/0.txt": b""}, "/test has no image file"),
        (tree(*SIZE) | {"train/bee/x.jpg": b"thesis"}, "train/bee/x.jpg cannot be read .it is not"),
        (
            tree(*SIZE) | {"train/bee/x.jpg": b"", "test/bee/y.png": b""},
            "test/bee/y.png cannot be read .*, and 1 more images",
        ),
        (
            tree(*SIZE) | {"train/bee/x.png": noise(*SIZE).astype(np.uint16)},
            "train/bee/x.png cannot be read .its pixels have more than 8 bits",
        ),
    ],
)
def test_another_layout_or_a_damaged_header_is_refused_in_one_line(tmp_path, images, message):
    name = write(tmp_path / "images", images)
    with pytest.raises(ValueError, match=f"data set 'folder:.*{message}") as error:
        sources.info(name, "")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("unlabelled", ["test/images/0.png", "test/0.png", "test/ant/readme"])
def test_errors_are_measured_on_val_if_images_of_test_have_no_class(tmp_path, unlabelled):
    images = tree(8, 8, test="val")
    name = write(tmp_path, images | {unlabelled: noise(8, 8) if "png" in unlabelled else b""})
    (tmp_path / "train" / "__MACOSX").mkdir()
    info = sources.info(name, "")
    assert info.splits == {"train": 5, "validation": 3}


@pytest.mark.parametrize("inside", ["test/", "val/", "valid/", ""])
def test_a_folder_may_hold_one_split_alone(tmp_path, inside):
    images = {f"{inside}{name}/{i}.png": noise(8, 8) for name in ("ant", "bee") for i in range(3)}
    name = write(tmp_path / "images", images)
    info = sources.info(name, "")
    assert (info.num_classes, info.splits) == (2, {info.test_split: 6})
    for how in ("never", "always"):
        loaded = sources.dataset(name, "", how)
        assert loaded.train is None and len(loaded.test) == 6
    assert sources.class_names(name, "") == ("ant", "bee")


def test_a_name_without_a_path_is_refused():
    for name in ("folder", "folder:"):
        with pytest.raises(ValueError, match="'folder:' has no path; use folder:PATH"):
            sources.info(name, "")


@pytest.mark.parametrize("damage", ["cut", "missing", "other size"])
@pytest.mark.parametrize("stream", ["never", "always"])
def test_a_damaged_file_is_named_by_its_path(tmp_path, damage, stream):
    name = write(tmp_path, tree(*SIZE, 3))
    file = tmp_path / "train" / "bee" / "0.png"
    sources.info(name, "")  # reads the headers
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        write(tmp_path, {"train/bee/0.png": noise(9, 9, 3)})
    with pytest.raises(ValueError, match=f"split 'train', example 3: .*{file}") as error:
        sources.dataset(name, "", stream).train.read(np.arange(5)[None])
    assert "\n" not in str(error.value)


def test_headers_are_read_once(tmp_path, monkeypatch):
    name = write(tmp_path, tree(*SIZE, 3))
    sources.info(name, "")
    monkeypatch.setattr(folder, "_shape", lambda *_: pytest.fail("read again"))
    sources.dataset(name, "", "always")
