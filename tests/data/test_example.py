"""Tests that the parser agrees with the protocol buffer library."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_jax.data import example

RECORD = st.fixed_dictionaries(
    {
        "image": st.binary(min_size=1, max_size=300),
        "label": st.integers(-(2**63), 2**63 - 1),
        "others": st.dictionaries(
            st.text(max_size=9).filter(lambda key: key not in ("image", "label")),
            st.one_of(st.binary(max_size=200), st.integers(0, 2**63 - 1), st.floats(width=32)),
            max_size=3,
        ),
        "first": st.sampled_from(["image", "label", "others"]),
    }
)


def message(image, label, others=(), first="image"):
    """A serialised Example of the library whose first feature is `first`."""
    from tensorflow_datasets.proto import tf_example_pb2

    built = tf_example_pb2.Example()
    features = {"image": {"image": image}, "label": {"label": label}, "others": dict(others)}
    for group in [features.pop(first), *features.values()]:
        for key, value in group.items():
            feature = built.features.feature[key]
            if isinstance(value, bytes):
                feature.bytes_list.value.append(value)
            elif isinstance(value, int):
                feature.int64_list.value.append(value)
            else:
                feature.float_list.value.append(value)
    return built.SerializeToString()


@settings(max_examples=60, deadline=None)
@given(st.lists(RECORD, min_size=1, max_size=6))
def test_label_and_image_are_those_of_the_library(records):
    stored = [message(**record) for record in records]
    labels, begins, ends = example.parse(stored)
    for record, data, label, begin, end in zip(records, stored, labels, begins, ends, strict=True):
        assert label == record["label"]
        assert data[begin:end] == record["image"]


def test_a_label_that_is_not_packed_is_read_too():
    packed, single = b"\x1a\x04\n\x02\xac\x02", b"\x1a\x03\x08\xac\x02"
    record = message(b"file", 300)
    assert packed in record
    shorter = record.replace(b"\x12\x06" + packed, b"\x12\x05" + single)
    at = shorter.index(b"\n\x05label") - 1
    shorter = bytes([shorter[0], shorter[1] - 1]) + shorter[2:at] + bytes([shorter[at] - 1])
    shorter += record[at + 1 :].replace(b"\x12\x06" + packed, b"\x12\x05" + single)
    assert example.parse([shorter, record])[0].tolist() == [300, 300]


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record[:-1],
        lambda record: record + b"\n",
        lambda record: b"",
        lambda record: b"\n",
        lambda record: b"\xff" * 40,
        lambda record: b"\x00" + record[1:],
        lambda record: record.replace(b"image", b"photo"),
        lambda record: record.replace(b"label", b"digit"),
        lambda record: record.replace(b"\x1a\x03\n\x01", b"\x1a\x03\n\x00"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_what_is_no_such_example_is_refused(damage, place):
    whole = message(b"file", 5)
    broken = damage(whole)
    assert broken != whole
    records = [whole, whole]
    records[place] = broken
    with pytest.raises(ValueError, match="not a tf.train.Example of an image and a label"):
        example.parse(records)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 60), st.binary(min_size=1, max_size=8))
def test_no_bytes_make_it_hang_or_read_beyond_a_record(noise, at, patch):
    whole = message(b"file", 5, {"id": b"x"})
    for record in (noise, whole[:at] + patch + whole[at + len(patch) :]):
        try:
            _, begins, ends = example.parse([record, whole])
        except ValueError:
            continue
        assert (begins >= 0).all() and (begins <= ends).all()
        assert (ends <= np.array([len(record), len(whole)])).all()
