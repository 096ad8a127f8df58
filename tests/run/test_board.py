"""TensorBoard's event files, read in their own format; and a full disk."""

import struct
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto import event_pb2

from resnet_jax.run.board import Board

MESSAGES: Any = event_pb2


def events(folder):
    """The events of all files. A record has length (uint64), checksum (uint32), data, checksum."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield MESSAGES.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_each_start_tells_from_which_step_on_earlier_scalars_are_invalid(tmp_path):
    for first in (0, 6):
        board = Board(tmp_path / "board", first)
        board.add_scalar("train/loss", 0.5, first + 2)
        board.add_scalar("train/loss", 0.25, first + 4)
        board.close()
    written = list(events(tmp_path / "board"))
    assert [e.file_version for e in written[::4]] == ["brain.Event:2"] * 2
    starts = [(e.step, e.session_log.status) for e in written[1::4]]
    assert starts == [(0, MESSAGES.SessionLog.START), (6, MESSAGES.SessionLog.START)]
    points = [(e.step, v.tag, v.simple_value) for e in written for v in e.summary.value]
    assert points == [
        (step, "train/loss", v) for step, v in ((2, 0.5), (4, 0.25), (8, 0.5), (10, 0.25))
    ]
    assert all(e.wall_time > 1e9 for e in written)


def test_the_first_scalar_is_written_at_once_and_the_others_on_closing(tmp_path):
    board = Board(tmp_path, 0)
    board.add_scalar("a", 1.0, 1)
    assert len(list(events(tmp_path))) == 3
    board.add_scalar("a", 2.0, 2)
    board.close()
    assert len(list(events(tmp_path))) == 4


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    board = Board(tmp_path, 0)
    (path,) = tmp_path.iterdir()
    file: Any = board._file
    file._writer.close()
    file._writer = Path("/dev/full").open("wb")  # noqa: SIM115
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        board.add_scalar("a", 1.0, 1)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        board.close()
    assert file._writer.closed
