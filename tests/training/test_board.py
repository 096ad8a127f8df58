"""What TensorBoard is given, as its own format's reader sees it; and a disk that takes no more."""

import struct
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto import event_pb2

from resnet_jax.training.board import Board

MESSAGES: Any = event_pb2


def events(folder):
    """Records of: length (uint64), its checksum (uint32), data, its checksum."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield MESSAGES.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_points_come_after_what_a_start_forgets(tmp_path):
    for first in (0, 6):
        board = Board(tmp_path / "board", first)
        board.add_scalar("train/loss", 0.5, first + 2)
        board.add_scalar("train/loss", 0.25, first + 4)
        board.close()
    found = list(events(tmp_path / "board"))
    assert [e.file_version for e in found[::4]] == ["brain.Event:2"] * 2
    starts = [(e.step, e.session_log.status) for e in found[1::4]]
    assert starts == [(0, MESSAGES.SessionLog.START), (6, MESSAGES.SessionLog.START)]
    points = [(e.step, v.tag, v.simple_value) for e in found for v in e.summary.value]
    assert points == [
        (step, "train/loss", v) for step, v in ((2, 0.5), (4, 0.25), (8, 0.5), (10, 0.25))
    ]
    assert all(e.wall_time > 1e9 for e in found)


def test_a_point_is_there_when_it_is_the_first_and_all_when_it_is_closed(tmp_path):
    board = Board(tmp_path, 0)
    board.add_scalar("a", 1.0, 1)
    assert len(list(events(tmp_path))) == 3
    board.add_scalar("a", 2.0, 2)
    board.close()
    assert len(list(events(tmp_path))) == 4


def test_a_disk_that_is_full_is_an_error_where_it_is_used(tmp_path):
    board = Board(tmp_path, 0)
    file: Any = board._file
    file._writer.close()
    file._writer = Path("/dev/full").open("wb")  # noqa: SIM115
    with pytest.raises(OSError, match="No space left"):
        board.add_scalar("a", 1.0, 1)
    with pytest.raises(OSError, match="No space left"):
        board.close()
    assert file._writer.closed
