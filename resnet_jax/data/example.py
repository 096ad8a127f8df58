"""tf.train.Example as tfds stores it: the labels and image files of many records at once.

A record is a protocol buffer (protobuf.dev/programming-guides/encoding): messages in messages, each
a tag of one byte, its length as a varint, and its bytes. What an image and a label need of it:

    Example    10 Features
    Features   10 Entry, once for each feature in any order
    Entry      10 key, 18 Feature
    Feature    10 BytesList, or 26 Int64List
    BytesList  10 bytes
    Int64List  10 varints, or 8 varint
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8

REFUSED = "it is no tf.train.Example of an image and a label"

Places = Int64[np.ndarray, "n"]


def parse(records: Sequence[bytes]) -> tuple[Places, Places, Places]:
    """Of each record its label, and where its image file begins and ends in it.

    All records go forward together, a feature at a time, in NumPy: the library, which parses one at
    a time, takes more than twice as long, and a sixth of what a small JPEG takes to decode.
    Raises: ValueError if a record is no Example that has an image and a label.
    """
    stops = np.cumsum([len(record) for record in records])
    data = np.frombuffer(b"".join((*records, b"\0\0")), np.uint8)
    starts = np.concatenate([[0], stops[:-1]])
    labels, begins, ends = np.zeros((3, len(records)), np.int64)
    labelled = np.zeros(len(records), bool)
    at, _ = _open(data, starts, 10, stops)
    rows = np.arange(len(records))
    while rows.size:
        entry, at = _open(data, at, 10, stops)
        key, feature = _open(data, entry, 10, at)
        begin, end = _open(data, feature, 18, at)
        image, label = (_equal(data, key, feature, name) for name in (b"image", b"label"))
        values, stop = _open(data, begin[image], 10, end[image])
        begins[rows[image]], ends[rows[image]] = _open(data, values, 10, stop)
        values, stop = _open(data, begin[label], 26, end[label])
        packed = data[values] == 10
        values[packed], stop[packed] = _open(data, values[packed], 10, stop[packed])
        values[~packed] += 1
        labels[rows[label]], after = _varints(data, values)
        labelled[rows[label]] = after <= stop
        left = at < stops
        rows, at, stops = rows[left], at[left], stops[left]
    if not (labelled & (ends > 0)).all():
        raise ValueError(REFUSED)
    return labels, begins - starts, ends - starts


def _open(
    data: UInt8[np.ndarray, "m"], at: Places, tag: int, stop: Places
) -> tuple[Places, Places]:
    """Where the message at `at` begins and ends, which has this tag and ends until `stop`."""
    size, begin = _varints(data, at + 1)
    end = begin + size
    if not ((data[at] == tag) & (begin <= end) & (end <= stop)).all():
        raise ValueError(REFUSED)
    return begin, end


def _varints(data: UInt8[np.ndarray, "m"], at: Places) -> tuple[Places, Places]:
    """The numbers at `at`, seven bits a byte from the lowest, and where each ends."""
    value, more, shift = np.zeros(len(at), np.int64), np.ones(len(at), bool), 0
    while more.any():
        byte = data[at]
        value[more] |= (byte[more] & np.int64(127)) << shift
        at, more, shift = at + more, more & (byte > 127), shift + 7
    return value, at


def _equal(data: UInt8[np.ndarray, "m"], begin: Places, end: Places, name: bytes):
    """Which of these keys are `name`."""
    same = end - begin == len(name)
    for i, letter in enumerate(name):
        same &= data[np.where(same, begin + i, 0)] == letter
    return same
