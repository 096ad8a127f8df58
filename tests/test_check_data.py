"""What training would refuse is named before it starts, with file and index; and training refuses.

Every kind of damage is done to a small data set on disk.
"""

import io
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_jax import check_data
from resnet_jax import train as training
from resnet_jax.command import refusals
from resnet_jax.run import directory
from resnet_jax.tasks import TASKS
from resnet_jax.training import feeds, shard
from tests.in_process import command
from tests.recipes import changed, recipe

DIGITS = Path(__file__).parent.parent / "configs" / "digits.py"
RNG = np.random.default_rng(0)
SHAPE = (8, 10, 3)


def encoded(*shape, form="jpeg"):
    """An image file of this shape."""
    file = io.BytesIO()
    pixels = RNG.integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(pixels[..., 0] if shape[-1] == 1 else pixels).save(file, form)
    return file.getvalue()


def header(high, wide):
    """A JPEG whose header says that it is so large."""
    size = struct.pack(">HH", *SHAPE[:2])
    return encoded(*SHAPE).replace(size, struct.pack(">HH", high, wide))


def splits():
    """11 training examples in two record files, and 4 others."""
    rows = [(encoded(*SHAPE), i % 3) for i in range(15)]
    return {"train": [rows[:6], rows[6:11]], "test": [rows[11:]]}


def config(root, stream="auto", **changes):
    """Return the config of a small run on the data set `tiny` in `root`."""
    tiny = {"data__name": "tiny", "data__dir": str(root), "data__shape": SHAPE, "batch_size": 4}
    tiny |= {
        "model__num_classes": 3,
        "model__stages": (1,),
        "chunk_steps": 1,
        "data__stream": stream,
    }
    return recipe("digits", "depth=4", **(tiny | changes))


def dataset(config):
    return TASKS["classification"].build(config)


def check(capsys, config, workdir=None):
    """Return the status of a check, and the lines that it printed on each of the two streams."""
    status = 0
    try:
        with refusals():
            check_data.check(config, workdir)
    except SystemExit as left:
        status = left.code
    said = capsys.readouterr()
    return status, said.out.splitlines(), said.err.splitlines()


def test_data_with_a_test_split_alone_is_checked(tmp_path, write_tfds, capsys):
    rows = splits()["test"]
    write_tfds(tmp_path, "tiny", {"test": rows}, SHAPE)
    given = {"data__mean": (0.5,) * 3, "data__std": (1.0,) * 3}
    status, out, _ = check(capsys, config(tmp_path, data__normalisation="constants", **given))
    assert status == 0 and out[0].startswith("test: 4 examples of 3 classes"), out
    status, out, _ = check(capsys, config(tmp_path))
    assert status == 2 and "tiny has no split train, from which normalisation=" in out[0]
    with pytest.raises(ValueError, match="tiny has no split train; evaluate --data_name measures"):
        training.prepare(config(tmp_path), tmp_path / "run")


def train(config):
    """Read all that training and evaluation read of a data set, in two epochs."""
    loaded, mesh = dataset(config), shard.mesh(devices=1)
    TASKS["classification"].statistics(config, loaded)
    with feeds.feed(mesh, loaded, "train", config) as feed:
        for step in range(6):
            feed.draw(step, 1)
    with feeds.feed(mesh, loaded, "test", config) as feed:
        list(feed.batches())


def file(folder):
    """The second record file of the training split."""
    return folder / "tiny-train.array_record-00001-of-00002"


def cut(folder, size):
    data = file(folder).read_bytes()
    file(folder).write_bytes(data[: int(len(data) * size)])


def flip(folder, rows):
    """Change a bit in the middle of example 8's image."""
    data, image = bytearray(file(folder).read_bytes()), rows["train"][1][2][0]
    data[data.index(image[-40:]) + 5] ^= 1
    file(folder).write_bytes(data)


def edit(folder, name, old, new):
    text = (folder / name).read_text("utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new))


# By the kind of damage: example 8, which is number 2 of its file, and what is said of it.
EXAMPLES = {
    "text": ((b"thesis", 1), "it is not an image in one of the formats BMP, GIF"),
    "no bytes": ((b"", 1), "it is not an image in one of the formats BMP, GIF"),
    "cut image": ((encoded(*SHAPE)[:-30], 1), "Premature end of JPEG"),
    "cut png": ((encoded(*SHAPE, form="png")[:-60], 1), ""),
    "larger": ((encoded(9, 10, 3), 1), r"its image is \(9, 10, 3\), not \(8, 10, 3\)"),
    "smaller": ((encoded(8, 9, 3), 1), r"its image is \(8, 9, 3\), not \(8, 10, 3\)"),
    "turned": ((encoded(10, 8, 3), 1), r"its image is \(10, 8, 3\), not \(8, 10, 3\)"),
    "larger png": ((encoded(9, 10, 3, form="png"), 1), r"is \(9, 10, 3\), not \(8, 10, 3\)"),
    "huge": ((header(60_000, 60_000), 1), "its image is too large; at most 89,478,485 pixels"),
    "label": ((encoded(*SHAPE), 3), r"its label 3 is not in 0\.\.2"),
    "negative": ((encoded(*SHAPE), -1), r"its label -1 is not in 0\.\.2"),
}

FILES = {
    "missing": (lambda folder: file(folder).unlink(), "its record file is missing", "missing"),
    "cut": (lambda folder: cut(folder, 0.5), "holds no examples, not the 5", "no examples"),
    "empty": (lambda folder: cut(folder, 0), "holds no examples, not the 5", "of 0 bytes cannot"),
    "few": (
        lambda folder: edit(folder, "dataset_info.json", '"5"', '"7"'),
        "holds 5 examples, not the 7",
        "holds 5 examples, not the 7",
    ),
    "many": (
        lambda folder: edit(folder, "dataset_info.json", '"5"', '"4"'),
        "holds 5 examples, not the 4",
        "holds 5 examples, not the 4",
    ),
    "lie": (
        lambda folder: edit(folder, "dataset_info.json", '"5"', '"9999999999"'),
        "holds 5 examples, not the 9999999999",
        "|".join(("cannot hold the 9999999999 examples", "GB on the device")),
    ),
}


@pytest.mark.parametrize("kind", [*EXAMPLES, "flipped"])
def test_a_bad_example_is_named_with_its_file_by_the_command_and_by_training(
    tmp_path, write_tfds, capsys, kind
):
    rows, says = splits(), ""
    if kind in EXAMPLES:
        rows["train"][1][2], says = EXAMPLES[kind]
    folder = write_tfds(tmp_path, "tiny", rows, SHAPE)
    if kind == "flipped":
        flip(folder, rows)
    line = f"data set 'tiny', split 'train', example 8: .*{says}.*record 2 of {file(folder)}"
    status, out, err = check(capsys, config(tmp_path))
    assert status == 2 and len(out) == 1 and len(err) == 1
    assert err[0].startswith("error: 1 problem with data set 'tiny'")
    assert re.search(line, out[0]), out[0]
    for stream in ("always", "never"):
        with pytest.raises((ValueError, OSError), match=line) as error:
            train(config(tmp_path, stream))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", FILES)
def test_a_bad_file_is_named_with_its_examples_by_the_command_and_by_training(
    tmp_path, write_tfds, capsys, kind
):
    damage, says, trained = FILES[kind]
    folder = write_tfds(tmp_path, "tiny", splits(), SHAPE)
    damage(folder)
    status, out, err = check(capsys, config(tmp_path))
    assert status == 2 and len(out) == 1 and err[0].startswith("error: 1 problem with")
    assert out[0].startswith("data set 'tiny', split 'train', examples 6 to ")
    assert says in out[0] and str(file(folder)) in out[0]
    for stream in ("always", "never"):
        with pytest.raises((ValueError, OSError), match=trained) as error:
            train(config(tmp_path, stream))
        assert "\n" not in str(error.value)


def test_every_problem_is_counted_and_twenty_are_listed(tmp_path, write_tfds, capsys):
    rows = [(encoded(*SHAPE), i // 10) for i in range(40)]  # the last ten of no class
    rows[3] = rows[7] = (encoded(4, 4, 3), 0)
    more = [(b"thesis", 1)] * 15
    folder = write_tfds(tmp_path, "tiny", {"train": [rows, rows[:2]], "test": [more]}, SHAPE)
    file(folder).unlink()
    status, out, err = check(capsys, config(tmp_path))
    assert status == 2 and err[0].startswith("error: 28 problems with data set 'tiny'")
    assert len(out) == 21 and out[-1] == "... and 8 more"
    assert "examples 40 to 41: its record file is missing" in out[0]
    named = [int(re.findall(r"'train', example (\d+):", line)[0]) for line in out[1:13]]
    assert named == [3, 7, *range(30, 40)]
    assert all("split 'test', example" in line for line in out[13:20])


def test_what_is_well_is_summed_up(tmp_path, write_tfds, capsys):
    write_tfds(tmp_path, "tiny", splits(), SHAPE)
    status, out, err = check(capsys, config(tmp_path))
    assert status == 0 and not err
    assert out[0] == "train: 11 examples of 3 classes, 3 to 4 of each; images 8x10x3"
    assert out[1] == "test: 4 examples of 3 classes, 1 to 2 of each; images 8x10x3"
    assert out[2] == f"fingerprint: {dataset(config(tmp_path)).fingerprint}"
    assert re.fullmatch(r"every image decoded, [\d,]+ images/s", out[3]) and len(out) == 4


def test_digits_need_no_folder(capsys):
    status, out, err = check(capsys, recipe("digits", "depth=8"))
    assert status == 0 and not err
    assert out[0] == "train: 1,500 examples of 10 classes, 146 to 153 of each; images 8x8x1"


@pytest.mark.parametrize("same_size", [True, False])
def test_a_folder_of_image_files_is_checked(tmp_path, same_size):
    for index, path in enumerate(("train/cat", "train/dog", "train/dog", "test/dog")):
        folder = tmp_path / path
        folder.mkdir(parents=True, exist_ok=True)
        shape = SHAPE if same_size else (8 + index, 9, 3)
        (folder / f"{index}.png").write_bytes(encoded(*shape, form="png"))
    words = (f"--config={DIGITS}:depth=8,normalisation=constants", f"--config.data.shape={SHAPE}")
    words += (f"--config.data.name=folder:{tmp_path}", "--config.model.num_classes=2")
    words += ("--config.data.mean=(0.5, 0.5, 0.5)", "--config.data.std=(1.0, 1.0, 1.0)")
    words += ("--config.batch_size=2", "--config.chunk_steps=1")
    done = command("check_data", *words)
    sizes = "8x10x3" if same_size else "8x9x3 to 10x9x3"
    assert done.status == 0, done.out + done.err
    assert done.out.startswith(f"train: 3 examples of 2 classes, 1 to 2 of each; images {sizes}\n")
    damaged = tmp_path / "train" / "dog" / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    done = command("check_data", *words)
    assert done.status == 2 and "split 'train', example 1: " in done.out
    assert str(damaged) in done.out and "Traceback" not in done.err


def test_a_task_without_a_data_set_has_nothing_to_check(capsys):
    status, out, err = check(capsys, recipe("reconstruction"))
    assert (status, out) == (2, []) and err == [
        "error: task=reconstruction has no data set to check"
    ]


def photographs(root, normalisation="constants", **changes):
    constants = {"data__mean": (0.5,) * 3, "data__std": (0.2,) * 3}
    changes |= constants if normalisation == "constants" else {}
    return config(root, data__normalisation=normalisation, **({"batch_size": 2} | changes))


def test_photographs_may_differ_in_size_and_be_grey(tmp_path, write_tfds, capsys):
    shapes = (8, 12, 3), (30, 20, 3), (16, 16, 1)
    rows = [(encoded(*shape), i) for i, shape in enumerate(shapes)]
    rows.append((encoded(9, 9, 4, form="png"), 0))
    write_tfds(tmp_path, "tiny", {"train": [rows], "test": [rows]}, (None, None, 3))
    status, out, _ = check(capsys, photographs(tmp_path))
    assert status == 0 and "1 to 2 of each; images 9x9x3 to 30x20x3" in out[0]
    train(photographs(tmp_path))
    for changes, says in (
        ({"normalisation": "channel"}, "needs images of one size"),
        ({"stream": "never"}, "differ in size, so that they cannot be held"),
    ):
        status, out, _ = check(capsys, photographs(tmp_path, **changes))
        assert status == 2 and len(out) == 1 and says in out[0]


@pytest.mark.parametrize("shape", [(60_000, 60_000), (10_000, 9_000)])
def test_a_photograph_that_is_too_large_is_refused_by_its_header(
    tmp_path, write_tfds, capsys, shape
):
    rows = [(encoded(*SHAPE), 0), (header(*shape), 0)]
    write_tfds(tmp_path, "tiny", {"train": [rows], "test": [rows[:1]]}, (None, None, 3))
    status, out, _ = check(capsys, photographs(tmp_path))
    assert status == 2 and "example 1: its image is too large; at most 89,478,485" in out[0]
    with pytest.raises((ValueError, OSError), match="example 1: its image is too large"):
        train(photographs(tmp_path))


def test_a_config_that_does_not_fit_is_a_problem_of_its_own(tmp_path, write_tfds, capsys):
    rows = splits()
    rows["train"][1][2] = EXAMPLES["label"][0]
    write_tfds(tmp_path, "tiny", rows, SHAPE)
    for changes, says in (
        ({"data.shape": (8, 8, 3)}, "data.shape=(8, 8, 3), but the images of tiny are (8, 10, 3)"),
        ({"model.num_classes": 7}, "model.num_classes=7, but tiny has 3"),
    ):
        status, out, err = check(capsys, changed(config(tmp_path), changes))
        assert status == 2 and len(out) == 2 and "example 8" in out[0] and out[1].startswith(says)
        assert err == ["error: 2 problems with data set 'tiny'; no run should start on it"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_split_is_refused(tmp_path, write_tfds, capsys, split):
    write_tfds(tmp_path, "tiny", splits() | {split: []}, SHAPE)
    status, out, err = check(capsys, config(tmp_path))
    assert status == 2 and not out and len(err) == 1 and f"{split} (0 examples)" in err[0]
    for stream in ("always", "never"):
        with pytest.raises(ValueError, match=rf"{split} \(0 examples\)"):
            train(config(tmp_path, stream))


def began(workdir, config):
    """Make a run's directory, as it is after the run's start."""
    directory.claim(workdir, config)
    directory.add_start(workdir, {"data_fingerprint": dataset(config).fingerprint})


@pytest.mark.parametrize("stream", ["always", "never"])
def test_data_that_changed_since_a_run_began_is_said(tmp_path, write_tfds, capsys, stream):
    rows, workdir = splits(), tmp_path / "run"
    write_tfds(tmp_path / "then", "tiny", rows, SHAPE)
    began(workdir, config(tmp_path / "then", stream))
    status, out, _ = check(capsys, config(tmp_path / "then", stream), workdir)
    assert status == 0 and out[-1] == f"unchanged since the run in {workdir} began"
    image, label = rows["train"][0][0]
    rows["train"][0][0] = (image, (label + 1) % 3)  # no file's size changes
    write_tfds(tmp_path / "content", "tiny", rows, SHAPE)
    status, out, _ = check(capsys, config(tmp_path / "content", stream), workdir)
    assert status == (2 if stream == "never" else 0)
    edit(write_tfds(tmp_path / "text", "tiny", rows, SHAPE), "features.json", "}", "} ")
    status, out, err = check(capsys, config(tmp_path / "text", stream), workdir)
    assert status == 2 and len(out) == len(err) == 1
    assert out[0].startswith(f"the data of the run in {workdir} has changed since it began")


def test_changed_files_are_said_beside_bad_ones(tmp_path, write_tfds, capsys):
    rows, workdir = splits(), tmp_path / "run"
    write_tfds(tmp_path / "then", "tiny", rows, SHAPE)
    began(workdir, config(tmp_path / "then"))
    rows["train"][1][2] = (encoded(60, 60, 3), 1)
    folder = write_tfds(tmp_path / "now", "tiny", rows, SHAPE)
    edit(folder, "features.json", "}", "} ")
    status, out, _ = check(capsys, config(tmp_path / "now"), workdir)
    assert status == 2 and len(out) == 2
    assert "example 8" in out[0] and "has changed since it began" in out[1]


def test_a_directory_without_a_run_and_a_damaged_one_are_said(tmp_path, capsys):
    (tmp_path / "damaged").mkdir()
    digits = recipe("digits", "depth=8")
    for text, says in (("[]", "no run"), ("{", "Expecting"), ("[1]", "damaged"), ("[{}]", "damag")):
        (tmp_path / "damaged" / "run.json").write_text(text)
        status, out, _ = check(capsys, digits, tmp_path / "damaged")
        assert status == 2 and len(out) == 1 and says in out[0]
    status, out, _ = check(capsys, digits, tmp_path / "none")
    assert status == 2 and "holds no run" in out[0]
    assert not (tmp_path / "none").exists()
