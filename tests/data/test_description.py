"""Tests that a tfds folder's description is read, or refused in one line."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax.data import description, sources

ABOUT = {
    "name": "tiny",
    "version": "1.0.0",
    "fileFormat": "array_record",
    "splits": [
        {"name": "train", "shardLengths": ["6", "5"], "filepathTemplate": "{DATASET}-{SPLIT}"},
        {"name": "test", "shardLengths": ["4"]},
    ],
}
IMAGE = {"shape": {"dimensions": ["8", "10", "3"]}, "dtype": "uint8"}
LABEL = {"numClasses": "3"}
FEATURES = {
    "featuresDict": {"features": {"image": {"image": IMAGE}, "label": {"classLabel": LABEL}}}
}


def write(root, about, features):
    folder = root / "tiny" / "1.0.0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_info.json").write_text(json.dumps(about))
    (folder / "features.json").write_text(json.dumps(features))
    return folder


def with_template(template, name="tiny", split="train"):
    about = copy.deepcopy(ABOUT) | {"name": name}
    about["splits"][0] |= {"filepathTemplate": template, "name": split}
    return about


def test_what_tfds_writes_is_read(tmp_path):
    about = with_template("{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}-of-{NUM_SHARDS}")
    folder = write(tmp_path, about, FEATURES)
    described = description.read(folder)
    assert described.files == {
        "train": [
            (folder / "tiny-train.array_record-00000-of-00002", 6),
            (folder / "tiny-train.array_record-00001-of-00002", 5),
        ],
        "test": [(folder / "tiny-test.array_record-00000-of-00001", 4)],
    }
    assert (described.shape, described.num_classes) == ((8, 10, 3), 3)
    assert described.form == "array_record"


@pytest.mark.parametrize(
    "about",
    [
        with_template("../../{SPLIT}"),
        with_template("/etc/passwd"),
        with_template("..\\{SPLIT}"),
        with_template("folder/{SPLIT}"),
        with_template(".."),
        with_template("a\0b"),
        with_template("{SPLIT.__class__.__mro__}"),
        with_template("{SPLIT!r:>1000000000}"),
        with_template("{UNKNOWN}"),
        with_template("{DATASET}", name="../../etc/passwd"),
        with_template("{DATASET}", name=".hidden"),
        with_template("{SPLIT}", split="../x"),
    ],
)
def test_a_record_file_lies_in_its_folder(tmp_path, about):
    write(tmp_path, about, FEATURES)
    with pytest.raises(ValueError, match="is damaged .its record file .* is not a file name"):
        sources.info("tiny", str(tmp_path))


@pytest.mark.parametrize(
    "name",
    ["../../etc", "..", "/etc", "tiny/../tiny", "tiny/1/2", "./tiny", "", "a\\b", "tiny/", "a\0"],
)
def test_a_data_set_lies_in_the_data_folder(tmp_path, name):
    folder = write(tmp_path / "data" / "tfds", ABOUT, FEATURES)
    write(tmp_path / "etc", ABOUT, FEATURES)
    root = folder.parent.parent
    for look in (sources.info, sources.load, sources.class_names):
        with pytest.raises(
            ValueError, match="is not the name of a data set; use NAME or NAME/CONFIG"
        ):
            look(name, str(root))
    assert sources.info("tiny", str(root)).num_classes == 3


@pytest.mark.parametrize("lengths", [["-6", "17"], [6, 1.5], [None], "65", [True], ["6 "], ["٣"]])
def test_numbers_of_examples_are_whole_and_not_negative(tmp_path, lengths):
    about = copy.deepcopy(ABOUT)
    about["splits"][0]["shardLengths"] = lengths
    write(tmp_path, about, FEATURES)
    with pytest.raises(ValueError, match="is damaged .*shardLengths"):
        sources.info("tiny", str(tmp_path))


def test_a_home_that_is_nobodys_is_no_folder():
    with pytest.raises(ValueError, match="data.dir='~nobody-of-that-name/x' is not a folder"):
        sources.info("tiny", "~nobody-of-that-name/x")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["-1", "0", "3", "x/y", "..", "uint8", "train"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


def places(value, path=()):
    """The path of every value in nested JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(tree, path, value):
    """A copy of nested JSON with another value at a path."""
    if not path:
        return value
    tree = copy.deepcopy(tree)
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return tree


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("described")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_other_json_is_one_line_or_a_data_set(root, draw):
    both = [ABOUT, FEATURES]
    which = draw.draw(st.integers(0, 1))
    path = draw.draw(st.sampled_from(list(places(both[which]))))
    both[which] = changed(both[which], path, draw.draw(JSON))
    folder = write(root, *both)
    try:
        about = sources.info("tiny", str(root))
    except ValueError as error:
        assert "\n" not in str(error)
        return
    assert about.num_classes > 0 and about.splits["train"] > 0
    for files in description.read(folder).files.values():
        assert all(path.parent == folder and count >= 0 for path, count in files)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\ud800", "null", '"text"', "[1]", "NaN"])
@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_what_is_no_object_is_named(tmp_path, file, text):
    folder = write(tmp_path, ABOUT, FEATURES)
    (folder / file).write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ValueError, match=f"{folder} is damaged .{file}"):
        sources.info("tiny", str(tmp_path))
    (folder / file).unlink()
    Path(folder / file).mkdir()
    with pytest.raises(ValueError, match=f"{tmp_path}"):
        sources.info("tiny", str(tmp_path))
