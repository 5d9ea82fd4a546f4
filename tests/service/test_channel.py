from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.service.channel import (
    DESCRIPTORS_MAX,
    PACKET_BYTES_MAX,
    AnyOrder,
    Begin,
    Channel,
    Drain,
    Prepare,
    Reply,
    Tell,
    close_all,
)
from doorward.service.share import Bound
from doorward.service.status import WorkerStatus

pytestmark = pytest.mark.anyio

PATIENCE_S = 5.0


class OurEnd:
    """One end and what came."""

    def __init__(self, sock: socket.socket, *, descriptors: bool) -> None:
        self.packets: list[tuple[bytes, list[int]]] = []
        self.ended = 0
        self._changed = asyncio.Event()
        self.channel = Channel(sock, self._receive, self._end, descriptors=descriptors)

    async def until(self, count: int = 0, *, ended: bool = False) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.packets) < count or (ended and not self.ended):
                self._changed.clear()
                await self._changed.wait()

    def _receive(self, data: bytes, descriptors: list[int]) -> None:
        self.packets.append((data, descriptors))
        self._changed.set()

    def _end(self) -> None:
        self.ended += 1
        self._changed.set()


@asynccontextmanager
async def channel(*, descriptors: bool) -> AsyncIterator[tuple[OurEnd, socket.socket]]:
    """Our end, and the naked socket of the other."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end = OurEnd(ours, descriptors=descriptors)
    with theirs:
        yield end, theirs
        end.channel.close()
        end.channel.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_words_and_descriptors_arrive_together_and_in_order() -> None:
    async with channel(descriptors=True) as (end, other):
        read, write = os.pipe()
        sender = Channel(other.dup(), lambda data, found: None, lambda: None, descriptors=False)
        sender.send(Drain(question=1, timeout_s=2), [read])
        sender.send(Tell(question=2))
        await end.until(2)
        orders = [msgspec.json.decode(data, type=AnyOrder) for data, _ in end.packets]
        assert orders == [Drain(question=1, timeout_s=2), Tell(question=2)]
        [received] = end.packets[0][1]
        assert end.packets[1][1] == []
        os.write(write, b"x")
        assert os.read(received, 1) == b"x"
        assert not os.get_inheritable(received)
        close_all([read, write, received])
        sender.close()


async def test_the_end_of_the_other_side_is_told_once() -> None:
    async with channel(descriptors=True) as (end, other):
        other.close()
        await end.until(ended=True)
        await asyncio.sleep(0)
        assert end.ended == 1
        with pytest.raises(OSError, match="descriptor"):
            end.channel.send(Tell())


async def test_what_is_closed_here_is_not_told() -> None:
    async with channel(descriptors=True) as (end, other):
        end.channel.close()
        other.close()
        await asyncio.sleep(0)
        assert end.ended == 0


async def test_a_supervisor_takes_no_descriptors() -> None:
    async with channel(descriptors=False) as (end, other):
        before = open_files()
        socket.send_fds(other, [b"{}"], [0, 1, 2])
        await end.until(1)
        assert end.packets == [(b"{}", [])]
        assert open_files() == before


@pytest.mark.parametrize("descriptors", [True, False])
async def test_a_packet_that_is_too_large_ends_the_channel(descriptors: bool) -> None:
    async with channel(descriptors=descriptors) as (end, other):
        before = open_files()
        socket.send_fds(other, [b"x" * (PACKET_BYTES_MAX + 1)], [0])
        await end.until(ended=True)
        assert end.packets == []
        assert open_files() <= before


async def test_as_many_descriptors_as_the_kernel_allows_fit() -> None:
    async with channel(descriptors=True) as (end, other):
        socket.send_fds(other, [b"{}"], [0] * DESCRIPTORS_MAX)
        await end.until(1)
        assert len(end.packets[0][1]) == DESCRIPTORS_MAX
        close_all(end.packets[0][1])


async def test_who_does_not_read_is_not_waited_for() -> None:
    async with channel(descriptors=True) as (end, _):
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 100_000:
                end.channel.send(Tell())
                sent += 1
        assert 0 < sent < 100_000
        with pytest.raises(OSError, match="bytes"):
            end.channel.send(Reply(1, "x" * PACKET_BYTES_MAX))


def test_every_order_survives_its_journey() -> None:
    begin = Begin(
        question=1,
        worker=1,
        workers=2,
        first_id=3,
        path="/p",
        log_level="info",
        listen=[Bound("proxy", "::1", 1080)],
        filters=[("a", "b")],
    )
    for order in (begin, Prepare(path="p", listen=[]), Tell(question=2)):
        assert msgspec.json.decode(msgspec.json.encode(order), type=AnyOrder) == order


@given(st.binary(max_size=100))
def test_any_bytes_are_a_reply_or_a_documented_error(data: bytes) -> None:
    try:
        msgspec.json.decode(data, type=Reply)
    except msgspec.DecodeError:
        pass


def test_a_reply_holds_a_status() -> None:
    reply = Reply(1, status=WorkerStatus(1, 2, "serving"))
    assert msgspec.json.decode(msgspec.json.encode(reply), type=Reply) == reply
