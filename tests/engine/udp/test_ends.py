from __future__ import annotations

import asyncio

import pytest

from doorward.api import BadArgument, NotConnected, Terminating
from doorward.engine.udp.ends import (
    PAYLOAD_BYTES_MAX,
    QUEUED_BYTES_MAX,
    QUEUED_DATAGRAMS_MAX,
    DatagramEnd,
    DatagramQueue,
    checked_peer,
)

pytestmark = pytest.mark.anyio

NAME = ("192.0.2.1", 53)


def make(peer: tuple[str, int] | None = None) -> tuple[DatagramQueue, DatagramEnd, list[object]]:
    queue, sent = DatagramQueue(), list[object]()
    return queue, DatagramEnd(queue, lambda data, name: sent.append((data, name)), peer), sent


async def test_datagrams_come_in_order_each_with_its_far_end() -> None:
    queue, end, _ = make()
    queue.put(b"one", NAME)
    queue.put(b"", ("::1", 9))
    assert await end.recv_from() == (b"one", NAME)
    assert await end.recv_from() == (b"", ("::1", 9))
    queue.put(b"three", NAME)
    assert await end.recv() == b"three"


async def test_a_datagram_is_cut_to_what_was_asked_for_and_the_rest_is_gone() -> None:
    queue, end, _ = make()
    queue.put(b"12345", NAME)
    queue.put(b"next", NAME)
    assert await end.recv_from(3) == (b"123", NAME)
    assert await end.recv(0) == b""


async def test_who_waits_is_woken_and_a_cancelled_wait_has_taken_nothing() -> None:
    queue, end, _ = make()
    waiting = asyncio.Task(end.recv())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    again = asyncio.Task(end.recv())
    await asyncio.sleep(0)
    queue.put(b"x", NAME)
    assert await again == b"x"


async def test_a_full_queue_drops_the_newest_and_counts() -> None:
    queue, end, _ = make()
    assert all(queue.put(bytes([n & 255]), NAME) for n in range(QUEUED_DATAGRAMS_MAX))
    assert not queue.put(b"x", NAME)
    assert queue.dropped == 1
    assert await end.recv() == b"\0"
    assert queue.put(b"x", NAME)


async def test_a_queue_is_full_by_bytes_as_well() -> None:
    queue, _, _ = make()
    largest = bytes(PAYLOAD_BYTES_MAX)
    taken = sum(queue.put(largest, NAME) for _ in range(QUEUED_DATAGRAMS_MAX))
    assert taken == QUEUED_BYTES_MAX // PAYLOAD_BYTES_MAX


async def test_two_tasks_cannot_read_one_socket() -> None:
    queue, end, _ = make()
    first = asyncio.Task(end.recv())
    await asyncio.sleep(0)
    with pytest.raises(BadArgument):
        await end.recv()
    queue.put(b"x", NAME)
    assert await first == b"x"


async def test_what_is_sent_goes_at_once_to_a_far_end_in_its_plain_form() -> None:
    _, end, sent = make()
    await end.send_to(bytearray(b"x"), ("::FFFF:192.0.2.1", 53))
    await end.send_to(memoryview(b"y"), ("2001:db8::0:1", 53))
    assert sent == [(b"x", NAME), (b"y", ("2001:db8::1", 53))]


async def test_send_needs_one_peer() -> None:
    _, end, sent = make()
    with pytest.raises(NotConnected):
        await end.send(b"x")
    _, end, sent = make(NAME)
    await end.send(b"x")
    assert sent == [(b"x", NAME)]


@pytest.mark.parametrize(
    "name", [("", 53), ("example.org", 53), ("192.0.2.1", 0), ("192.0.2.1", -1), ("192.0.2.1", 65_536)]
)
async def test_what_is_no_address_is_refused(name: tuple[str, int]) -> None:
    with pytest.raises(BadArgument):
        checked_peer(name)


async def test_what_no_datagram_can_carry_is_refused() -> None:
    _, end, sent = make(NAME)
    await end.send(bytes(PAYLOAD_BYTES_MAX))
    with pytest.raises(BadArgument):
        await end.send(bytes(PAYLOAD_BYTES_MAX + 1))
    assert len(sent) == 1


async def test_after_shutdown_one_can_still_receive_and_after_close_nothing() -> None:
    queue, end, sent = make(NAME)
    await end.shutdown()
    with pytest.raises(Terminating):
        await end.send(b"x")
    queue.put(b"x", NAME)
    assert await end.recv() == b"x"
    await end.close()
    await end.close()
    for call in (end.recv(), end.send(b"x"), end.recv_from(), end.send_to(b"x", NAME)):
        with pytest.raises(Terminating):
            await call
    assert sent == []
    assert not queue.put(b"x", NAME)


async def test_who_waits_when_it_ends_meets_the_end() -> None:
    _, end, _ = make()
    waiting = asyncio.Task(end.recv())
    await asyncio.sleep(0)
    end.end(Terminating("over"))
    with pytest.raises(Terminating):
        await waiting
