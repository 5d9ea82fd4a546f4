"""Texts and descriptors between two processes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from doorward.capture import passing


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    first, second = passing.pair()
    with first, second:
        yield first, second


def test_a_text_with_its_descriptors(ends: tuple[socket.socket, socket.socket]) -> None:
    reading, writing = os.pipe()
    passing.send(ends[0], "a pipe", [reading])
    os.close(reading)
    text, descriptors = passing.receive(ends[1])
    assert text == "a pipe"
    os.write(writing, b"x")
    os.close(writing)
    assert os.read(descriptors[0], 2) == b"x"
    assert not os.get_inheritable(descriptors[0])
    os.close(descriptors[0])


def test_packets_stay_apart_and_the_end_is_an_empty_one(ends: tuple[socket.socket, socket.socket]) -> None:
    passing.send(ends[0], "one")
    passing.send(ends[0], "two")
    ends[0].close()
    assert [passing.receive(ends[1])[0] for _ in range(3)] == ["one", "two", ""]


def test_a_text_is_cut_where_the_other_side_would(ends: tuple[socket.socket, socket.socket]) -> None:
    passing.send(ends[0], "x" * 10_000)
    assert len(passing.receive(ends[1])[0]) == passing.TEXT_BYTES_MAX


def test_a_packet_that_is_too_long_is_an_error_and_leaves_no_descriptor(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    socket.send_fds(ends[0], [b"x" * (passing.TEXT_BYTES_MAX + 1)], [ends[0].fileno()])
    with pytest.raises(OSError, match="cut"):
        passing.receive(ends[1])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
