"""Tests that streamed batches equal those of data in memory, from any step and process."""

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from resnet_jax.data import crops, memory, normalise, order, photographs, sources, stream
from resnet_jax.data.array_records import ArrayRecords
from resnet_jax.data.records import Records

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (150, 6, 4, 1)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (90, 8, 10, 3)).astype(np.uint8)
SIZES = [(30, 50), (70, 64), (41, 40), (64, 200), (33, 33), (90, 60), (48, 48)]
PHOTOGRAPHS = [RNG.integers(0, 256, (h, w, 3)).astype(np.uint8) for h, w in SIZES]
SEED, BATCH = 3, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory, prepare):
    """`grey` (PNG), `colour` (JPEG), `photographs` (PNG of many sizes)."""
    root = tmp_path_factory.mktemp("tfds")
    classes = np.arange(150) % 3
    grey = {"train": (GREY, classes), "test": (GREY[:30], classes[:30])}
    prepare(root, "grey", grey, "png", (6, 4, 1))
    colour = {"train": (COLOUR, classes[:90]), "validation": (COLOUR[:25], classes[:25])}
    prepare(root, "colour", colour, "jpeg", (8, 10, 3))
    many = (PHOTOGRAPHS, classes[: len(SIZES)])
    prepare(root, "photographs", {"train": many, "test": many}, "png", (None, None, 3))
    return str(root)


def opened(folder, name, split="train"):
    return sources.records(sources.info(name, folder), folder, split)


def train(records, first, last, rows=None, shape=None, batch=BATCH, **options):
    """All batches of these steps: images and labels, (steps, rows, ...)."""
    rows, shape = np.arange(batch) if rows is None else rows, shape or records.shape
    with stream.train_batches(
        records, SEED, first, last, batch, np.asarray(rows), shape, **options
    ) as batches:
        return tuple(map(np.stack, zip(*batches, strict=True)))


@pytest.mark.parametrize("name", ["grey", "colour"])
def test_a_step_holds_what_resident_data_holds_at_the_same_indices(folder, name):
    held = sources.load(name, folder).train
    images, labels = train(opened(folder, name), 5, 45)
    indices = order.chunk_indices(SEED, 5, 40, BATCH, len(held))
    np.testing.assert_array_equal(images, held.images[indices])
    np.testing.assert_array_equal(labels, held.labels[indices])
    assert images.dtype == np.uint8 and labels.dtype == np.int32


def test_data_in_memory_is_streamed_too():
    digits = sources.load("digits", "").train
    images, labels = train(digits, 0, 9)
    indices = order.chunk_indices(SEED, 0, 9, BATCH, len(digits))
    np.testing.assert_array_equal(images, digits.images[indices])
    np.testing.assert_array_equal(labels, digits.labels[indices])


@pytest.mark.parametrize(("name", "shape"), [("colour", (8, 10, 3)), ("photographs", (16, 24, 3))])
def test_processes_share_out_the_rows_of_the_same_batches(folder, name, shape):
    records = opened(folder, name)
    whole = train(records, 2, 20, shape=shape)
    shares = [np.array([0, 1, 2, 6, 7, 8]), np.array([3, 4, 5, 9, 10, 11])]
    for rows in shares:
        for all_rows, own in zip(whole, train(records, 2, 20, rows, shape), strict=True):
            np.testing.assert_array_equal(own, all_rows[:, rows])


def recorded(records, monkeypatch):
    """A list of the indices that are read from the record files from now on."""
    indices_read, read = [], records.store.read
    monkeypatch.setattr(
        records.store, "read", lambda indices: indices_read.extend(indices) or read(indices)
    )
    return indices_read


def test_a_process_reads_no_other_rows(folder, monkeypatch):
    records = opened(folder, "grey")
    read = recorded(records, monkeypatch)
    train(records, 0, 5, rows=np.array([1, 4]))
    expected = order.chunk_indices(SEED, 0, 5, BATCH, len(records))[:, [1, 4]]
    assert sorted(read) == sorted(expected.ravel())


@pytest.mark.parametrize("keep", [True, False])
def test_a_small_split_is_read_once_and_stays_in_memory_encoded(folder, monkeypatch, keep):
    if not keep:
        monkeypatch.setattr(memory, "host_memory", lambda: 1000)
    records = opened(folder, "colour")
    read = recorded(records, monkeypatch)
    once = train(records, 0, 15, batch=6, threads=1)  # one epoch
    assert sorted(read) == list(range(90))
    for before, after in zip(once, train(records, 0, 15, batch=6), strict=True):
        np.testing.assert_array_equal(after, before)
    assert len(read) == (90 if keep else 180)


@pytest.mark.parametrize(("name", "shape"), [("colour", (8, 10, 3)), ("photographs", (16, 24, 3))])
@pytest.mark.parametrize("small", [False, True])
def test_values_do_not_depend_on_threads_blocks_and_the_first_step(
    folder, name, shape, small, monkeypatch
):
    records = opened(folder, name)
    unbroken = train(records, 0, 30, shape=shape)
    if small:
        monkeypatch.setattr(stream, "READ", 5)  # parts of a batch
    for first, last, threads in ((0, 30, 1), (7, 30, 3), (29, 30, 2)):
        resumed = train(records, first, last, shape=shape, threads=threads)
        for all_steps, later in zip(unbroken, resumed, strict=True):
            np.testing.assert_array_equal(later, all_steps[first:last])


def test_a_far_step_is_reached_at_once(folder):
    held, far = sources.load("colour", folder).train, 10_000_000
    images, _ = train(opened(folder, "colour"), far, far + 2)
    indices = order.chunk_indices(SEED, far, 2, BATCH, len(held))
    np.testing.assert_array_equal(images, held.images[indices])


@pytest.mark.parametrize("name", ["grey", "colour"])
@pytest.mark.parametrize("batch", [7, 10, 64])
def test_evaluation_sees_every_example_once_in_order(folder, name, batch):
    held = sources.load(name, folder).test
    records = opened(folder, name, "test" if name == "grey" else "validation")
    rows = np.arange(batch)
    with stream.eval_batches(records, batch, rows, records.shape) as batches:
        images, labels, masks = (np.stack(part) for part in zip(*batches, strict=True))
    assert images.shape[1] == batch and masks.dtype == bool
    np.testing.assert_array_equal(images[masks], held.images)
    np.testing.assert_array_equal(labels[masks], held.labels)
    with stream.eval_batches(records, batch, rows[1::2], records.shape) as batches:
        shares = [np.stack(part) for part in zip(*batches, strict=True)]
    for whole, share in zip((images, labels, masks), shares, strict=True):
        np.testing.assert_array_equal(share, whole[:, 1::2])


@pytest.mark.parametrize("shape", [(16, 24, 3), (64, 64, 3), (20, 20, 1)])
def test_photographs_are_cropped_at_random_to_train_and_at_the_centre_to_evaluate(folder, shape):
    records = opened(folder, "photographs")
    if shape[-1] == 1:
        with pytest.raises(ValueError, match="cannot be batches of"):
            train(records, 0, 1, shape=shape)
        return
    images, labels = train(records, 4, 6, shape=shape)
    for step, indices in zip((4, 5), order.chunk_indices(SEED, 4, 2, BATCH, 7), strict=True):
        numbers = crops.draw(SEED, step, np.arange(BATCH))
        for row, index in enumerate(indices):
            expected = crops.crop(PHOTOGRAPHS[index], numbers[row], shape)
            np.testing.assert_array_equal(images[step - 4, row], expected)
            assert labels[step - 4, row] == index % 3
    with stream.eval_batches(records, 4, np.arange(4), shape) as batches:
        evaluated = np.concatenate([image[mask] for image, _, mask in batches])
    expected = [photographs.fit(Image.fromarray(pixels), shape) for pixels in PHOTOGRAPHS]
    np.testing.assert_array_equal(evaluated, expected)


def test_images_of_one_size_are_not_made_into_another(folder):
    with pytest.raises(ValueError, match=r"\(8, 10, 3\) cannot be batches of \(4, 4, 3\)"):
        train(opened(folder, "colour"), 0, 1, shape=(4, 4, 3))


def test_several_files_are_one_split(folder):
    parts = [opened(folder, "grey", split) for split in ("test", "train", "test")]
    files = [file for part in parts for file in part.store.record_files]
    both = Records("grey", "all", ArrayRecords(files), (6, 4, 1), 3)
    expected = np.concatenate([GREY[:30], GREY, GREY[:30]])
    assert len(both) == len(expected)
    indices = RNG.permutation(len(both))
    rows = indices.reshape(2, -1)
    for row, (images, _) in zip(rows, both.read(rows), strict=True):
        np.testing.assert_array_equal(images, expected[row])


def workers():
    return [t for t in threading.enumerate() if t is not threading.main_thread()]


def test_closing_early_leaves_no_threads(folder):
    before = set(workers())
    with stream.train_batches(
        opened(folder, "colour"), SEED, 0, 10**9, BATCH, np.arange(BATCH), (8, 10, 3), threads=3
    ) as batches:
        next(batches)
        assert set(workers()) - before
    assert not set(workers()) - before


def damaged(folder, tmp_path, prepare, kind):
    """The training split of a data set in which example 4 is damaged."""
    images = list(COLOUR[:9])
    labels = np.arange(9) % 3
    if kind == "image":
        images[4] = b"\xff\xd8\xff\xe0 no more of it"
    elif kind == "cut":  # its header equals those of the others
        images[4] = simplejpeg.encode_jpeg(COLOUR[4])[:-40]
    elif kind == "larger":
        images[4] = np.concatenate([COLOUR[4], COLOUR[4]])
    elif kind == "smaller":
        images[4] = COLOUR[4, :3]
    shape = (None, None, 3) if kind in ("larger", "smaller") else (8, 10, 3)
    split = (images, labels)
    prepare(tmp_path, "harmed", {"train": split, "test": split}, "jpeg", shape)
    about = sources.info("harmed", str(tmp_path))
    (file,) = (tmp_path / "harmed" / "1.0.0").glob("*train*")
    if kind == "file":
        data = bytearray(file.read_bytes())
        store = sources.records(about, str(tmp_path), "train").store
        record = store.serialised(np.array([4]))[0]
        at = data.index(record[-40:-20])
        data[at] ^= 1
        file.write_bytes(data)
    store = ArrayRecords([(file, 9)])
    return Records("harmed", "train", store, (8, 10, 3), 1 if kind == "label" else 3)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("image", "example 4: "),
        ("cut", "example 4: "),
        ("larger", r"example 4: its image is \(16, 10, 3\), not \(8, 10, 3\)"),
        ("smaller", r"example 4: its image is \(3, 10, 3\), not \(8, 10, 3\)"),
        ("file", "example 4: "),
        ("label", r"example [1245]: its label [12] is not in 0\.\.0"),
    ],
)
def test_a_bad_example_is_named_and_leaves_no_threads(folder, tmp_path, prepare, kind, message):
    records, before = damaged(folder, tmp_path, prepare, kind), set(workers())
    with pytest.raises(ValueError, match=f"data set 'harmed', split 'train', {message}") as error:
        train(records, 0, 10)
    assert "\n" not in str(error.value)
    assert not set(workers()) - before
    if kind == "cut":
        assert records.files(np.arange(9)).usual.all()
    if kind != "label":  # the others can still be read
        records.read(np.delete(np.arange(9), 4)[None])


def test_a_missing_file_is_named(folder, tmp_path):
    shutil.copytree(Path(folder) / "colour", tmp_path / "colour")
    records = opened(str(tmp_path), "colour")
    for file in (tmp_path / "colour").rglob("*train*"):
        file.unlink()
    with pytest.raises(ValueError, match=f"example .*record file is missing .*{tmp_path}"):
        train(records, 0, 1)


@pytest.mark.parametrize("kind", ["per_pixel", "channel"])
def test_streamed_statistics_are_those_of_data_in_memory(folder, kind, monkeypatch):
    monkeypatch.setattr(normalise, "BLOCK", 40)
    held = normalise.statistics(kind, sources.load("colour", folder).train.images)
    computed = normalise.streamed_statistics(kind, opened(folder, "colour"))
    np.testing.assert_array_equal(computed.mean, held.mean, strict=True)
    np.testing.assert_array_equal(computed.std, held.std, strict=True)


def test_photographs_take_constants_alone():
    store = ArrayRecords([(Path("unread"), 7)])
    records = Records("photographs", "train", store, (None, None, 3), 3)
    for kind in ("per_pixel", "channel"):
        with pytest.raises(ValueError, match=f"normalisation={kind} needs images of one size"):
            normalise.streamed_statistics(kind, records)
    computed = normalise.streamed_statistics("constants", records, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
    np.testing.assert_allclose(computed.mean, [0.5, 0.4, 0.3])


@pytest.mark.skipif("RESNET_JAX_DATA" not in os.environ, reason="RESNET_JAX_DATA is not set")
@pytest.mark.parametrize(
    ("name", "shape"), [("cifar10_jpeg", (32, 32, 3)), ("imagenet_sample", (224, 224, 3))]
)
def test_real_data_streams(name, shape):
    try:
        records = opened(os.environ["RESNET_JAX_DATA"], name)
    except ValueError as error:
        pytest.skip(str(error))
    images, labels = train(records, 0, 2, shape=shape, batch=16)
    assert images.shape == (2, 16, *shape) and len(set(labels.ravel())) > 5
    assert 60 < images.mean() < 190 and images.std() > 40
