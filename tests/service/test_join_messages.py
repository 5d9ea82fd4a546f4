"""Packets between launchers and firewalls: whole or not at all."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest
from tests.service.joining import wanted

from doorward.capture import passing
from doorward.capture.sockets import Place
from doorward.service.join_messages import (
    DESCRIPTORS_MAX,
    PACKET_BYTES_MAX,
    BadPacket,
    Wanted,
    close_all,
    encode,
    join_path,
    receive,
)

PLACE = Place("tcp", "192.0.0.8", 1)


def test_the_socket_stands_beside_the_control_socket() -> None:
    assert join_path(Path("/run/doorward/control.sock")) == Path("/run/doorward/control.sock.join")


def test_a_packet_comes_with_its_descriptors_and_the_end_is_nothing() -> None:
    ours, theirs = passing.pair()
    with ours, theirs:
        socket.send_fds(theirs, [encode(wanted([PLACE]))], [theirs.fileno()])
        data, descriptors = receive(ours)
        assert msgspec.json.decode(data, type=Wanted) == wanted([PLACE])
        assert len(descriptors) == 1
        assert not os.get_inheritable(descriptors[0])
        close_all(descriptors)
        theirs.close()
        assert receive(ours) == (b"", [])


@pytest.mark.parametrize(("size", "count"), [(PACKET_BYTES_MAX + 1, 1), (1, DESCRIPTORS_MAX + 8)])
def test_one_that_is_too_large_is_refused_and_its_descriptors_are_closed(size: int, count: int) -> None:
    ours, theirs = passing.pair()
    reading, writing = os.pipe()
    with ours, theirs, os.fdopen(reading, "rb") as left:
        socket.send_fds(theirs, [b"x" * size], [writing] * count)
        os.close(writing)
        with pytest.raises(BadPacket):
            receive(ours)
        assert left.read(1) == b""


def test_a_command_line_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(BadPacket, match="command line"):
        encode(wanted([PLACE], words=["x" * PACKET_BYTES_MAX]))


@pytest.mark.parametrize(
    "wrong",
    [{"places": []}, {"places": ["x"] * 40}, {"program": "x" * 5000}, {"process": 0}, {"process": 2**40}],
)
def test_lengths_that_nobody_has_are_not_sound(wrong: dict[str, object]) -> None:
    assert wanted([PLACE]).is_sound()
    assert not msgspec.structs.replace(wanted([PLACE]), **wrong).is_sound()
