"""One wire: what a filter's `recv` and `send` promise, on real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from tests.net.wires import SMALL_BUFFER_BYTES, Peer, connected, turns, until

from doorward.api.errors import (
    DoorwardError,
    LinkError,
    NotSupported,
    PeerReset,
    Side,
    Terminating,
    TimedOut,
)
from doorward.net.leg import CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, Leg, plain_name
from doorward.net.poller import Poller, Target

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


class Wire(NamedTuple):
    """A leg and the peer at its other end."""

    leg: Leg
    peer: Peer


@pytest.fixture
async def wire(poller: Poller) -> AsyncIterator[Wire]:
    ours, theirs = connected()
    wire = Wire(Leg(poller, ours, Side.EXTERNAL), Peer(theirs))
    yield wire
    wire.leg.close_now()
    theirs.close()


@pytest.fixture
async def narrow(poller: Poller) -> AsyncIterator[Wire]:
    """The same with buffers so small that sending soon has to wait."""
    ours, theirs = connected(SMALL_BUFFER_BYTES)
    wire = Wire(Leg(poller, ours, Side.EXTERNAL), Peer(theirs))
    yield wire
    wire.leg.close_now()
    theirs.close()


async def fill(leg: Leg) -> bytes:
    """Send until the kernel takes no more; what it took."""
    sent = bytearray()
    noise = os.urandom(64 * 1024)
    while True:
        task = asyncio.get_running_loop().create_task(leg.send_some(noise))
        await turns(3)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            return bytes(sent)
        sent += noise[: task.result()]


async def waiting(leg: Leg) -> asyncio.Task[bytes]:
    """A task that waits in `recv`."""
    task = asyncio.get_running_loop().create_task(leg.recv())
    await turns(3)
    assert not task.done()
    return task


async def test_bytes_arrive_whether_they_were_there_or_come_later(wire: Wire) -> None:
    wire.peer.push(b"there")
    assert await wire.leg.recv() == b"there"
    for number in range(5):
        task = await waiting(wire.leg)
        wire.peer.push(b"later %d" % number)
        assert await task == b"later %d" % number
    assert wire.leg.received == 5 + 5 * 7


async def test_the_end_of_the_stream_comes_again_and_again(wire: Wire) -> None:
    wire.peer.push(b"last")
    wire.peer.finish()
    assert await wire.leg.recv() == b"last"
    assert [await wire.leg.recv() for _ in range(3)] == [b"", b"", b""]
    await wire.leg.send(b"the other direction is open")
    assert await wire.peer.read(27) == b"the other direction is open"


async def test_an_end_right_behind_a_waited_for_message_is_not_missed(wire: Wire) -> None:
    task = await waiting(wire.leg)
    wire.peer.push(b"message")
    await task
    task = await waiting(wire.leg)
    wire.peer.push(b"last")
    wire.peer.finish()
    assert await task == b"last"
    assert await wire.leg.recv() == b""


async def test_urgent_bytes_do_not_hide_what_follows(wire: Wire) -> None:
    """A read stops short at the urgent mark, which looks like an empty socket."""
    task = await waiting(wire.leg)
    wire.peer.push(b"before")
    wire.peer.socket.send(b"!", socket.MSG_OOB)
    wire.peer.push(b"after")
    assert await task == b"before"
    assert (await asyncio.wait_for(wire.leg.recv(), 2)).endswith(b"after")


async def test_recv_takes_no_more_than_it_was_asked_for(wire: Wire) -> None:
    wire.peer.push(b"abcdef")
    assert await wire.leg.recv(2) == b"ab"
    assert await wire.leg.recv(3) == b"cde"
    assert await wire.leg.recv(3) == b"f"


async def test_a_kept_alive_leg_asks_the_peer_and_a_closed_one_minds_nothing(wire: Wire) -> None:
    wire.leg.keep_alive()
    assert wire.leg._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert wire.leg._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    wire.leg.close_now()
    wire.leg.keep_alive()


async def test_what_was_put_back_comes_first(wire: Wire) -> None:
    wire.peer.push(b"late")
    wire.leg.put_back(b"early")
    wire.leg.put_back(b"very ")
    assert await wire.leg.recv(7) == b"very ea"
    assert await wire.leg.recv() == b"rly"
    assert await wire.leg.recv() == b"late"
    assert wire.leg.received == 4, "bytes put back were counted when they came"


async def test_what_was_put_back_can_be_taken_back_once(wire: Wire) -> None:
    wire.leg.put_back(b"tunnel")
    assert await wire.leg.recv(1) == b"t"
    assert wire.leg.take_back() == b"unnel"
    assert wire.leg.take_back() == b""


async def test_chunks_grow_with_the_flow_and_shrink_after_it(wire: Wire) -> None:
    data = os.urandom(8 * MIB)
    sending = asyncio.get_running_loop().create_task(wire.peer.send(data))
    sizes: list[int] = []
    while sum(sizes) < len(data):
        await until(lambda: wire.peer.push(b"") == 0)
        await turns(4)
        sizes.append(len(await wire.leg.recv()))
    await sending
    assert sizes[0] <= CHUNK_BYTES_MIN
    assert max(sizes) == CHUNK_BYTES_MAX
    for _ in range(10):
        wire.peer.push(b"small")
        await wire.leg.recv()
    wire.peer.push(bytes(CHUNK_BYTES_MAX))
    assert len(await wire.leg.recv()) == CHUNK_BYTES_MIN


async def test_a_reset_is_raised_to_whoever_waits_and_ever_after(wire: Wire) -> None:
    task = await waiting(wire.leg)
    wire.peer.reset()
    with pytest.raises(PeerReset) as caught:
        await task
    assert caught.value.side is Side.EXTERNAL
    for call in (wire.leg.recv, lambda: wire.leg.send(b"x"), wire.leg.shutdown):
        with pytest.raises(PeerReset):
            await call()
    assert not wire.leg.open


async def test_shutdown_says_fin_and_leaves_the_other_direction_open(wire: Wire) -> None:
    await wire.leg.send(b"last")
    await wire.leg.shutdown()
    await wire.leg.shutdown()
    assert await wire.peer.read_to_end() == b"last"
    wire.peer.push(b"answer")
    assert await wire.leg.recv() == b"answer"


async def test_shutdown_may_be_repeated_when_both_sides_have_finished(wire: Wire) -> None:
    await wire.leg.shutdown()
    wire.peer.finish()
    assert await wire.leg.recv() == b""
    await wire.leg.shutdown()
    assert await wire.leg.recv() == b""


async def test_sending_after_shutdown_is_the_callers_mistake_and_resets_nobody(wire: Wire) -> None:
    await wire.leg.shutdown()
    with pytest.raises(Terminating):
        await wire.leg.send(b"late")
    wire.peer.push(b"still open")
    assert await wire.leg.recv() == b"still open"
    assert await wire.peer.read_to_end() == b""


async def test_shutdown_of_a_leg_whose_peer_has_reset_says_so(wire: Wire) -> None:
    wire.peer.reset()
    with pytest.raises(PeerReset):
        await wire.leg.shutdown()


async def test_abortive_shutdown_and_close_reset_the_peer(poller: Poller) -> None:
    for end in (Leg.shutdown, Leg.close):
        ours, theirs = connected()
        leg = Leg(poller, ours, Side.INTERNAL)
        with Peer(theirs) as peer:
            await end(leg, abortive=True)
            await peer.sees_reset()
        with pytest.raises(Terminating):
            await leg.recv()


async def test_close_says_fin_may_be_repeated_and_ends_every_wait(wire: Wire) -> None:
    task = await waiting(wire.leg)
    await wire.leg.close()
    await wire.leg.close(abortive=True)
    with pytest.raises(Terminating):
        await task
    with pytest.raises(Terminating):
        await wire.leg.send(b"x")
    assert await wire.peer.read_to_end() == b""


async def test_abort_raises_its_reason_to_reader_and_writer_alike(narrow: Wire) -> None:
    await fill(narrow.leg)
    reader = await waiting(narrow.leg)
    writer = asyncio.get_running_loop().create_task(narrow.leg.send(b"x"))
    await turns(3)
    narrow.leg.abort(TimedOut("too long", side=Side.OURS))
    narrow.leg.abort(PeerReset("the first reason stands"))
    for task in (reader, writer):
        with pytest.raises(TimedOut, match="too long"):
            await task
    await narrow.peer.sees_reset()


async def test_a_cancelled_recv_has_consumed_nothing(wire: Wire) -> None:
    task = await waiting(wire.leg)
    wire.peer.push(b"kept")
    task.cancel()
    await asyncio.wait([task])
    assert await wire.leg.recv() == b"kept"


async def test_a_cancelled_recv_that_was_already_woken_has_consumed_nothing(wire: Wire) -> None:
    task = await waiting(wire.leg)
    wire.peer.push(b"kept")
    wire.leg.ready(-1, -1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await wire.leg.recv() == b"kept"


async def test_a_cancelled_send_some_has_sent_nothing(narrow: Wire) -> None:
    sent = await fill(narrow.leg)
    assert narrow.leg.sent == len(sent)
    assert await narrow.peer.read(len(sent)) == sent
    await narrow.leg.send(b"next")
    assert await narrow.peer.read(4) == b"next"


async def test_send_waits_for_the_reader_and_loses_nothing(narrow: Wire) -> None:
    data = os.urandom(2 * MIB)
    for form in (data, bytearray(data), memoryview(data)):
        sending = asyncio.get_running_loop().create_task(narrow.leg.send(form))
        await turns(20)
        assert not sending.done()
        assert await narrow.peer.read(len(data)) == data
        await sending
    assert narrow.leg.sent == 3 * len(data)


async def test_a_full_direction_does_not_hold_up_the_other(narrow: Wire) -> None:
    await fill(narrow.leg)
    sending = asyncio.get_running_loop().create_task(narrow.leg.send(b"x"))
    await turns(3)
    narrow.peer.push(b"ping")
    assert await narrow.leg.recv() == b"ping"
    sending.cancel()
    await asyncio.wait([sending])


async def test_a_sender_learns_that_its_peer_is_gone(narrow: Wire) -> None:
    await fill(narrow.leg)
    sending = asyncio.get_running_loop().create_task(narrow.leg.send(b"x"))
    await turns(3)
    narrow.peer.reset()
    with pytest.raises(PeerReset):
        await sending


async def test_sending_nothing_is_nothing(wire: Wire) -> None:
    await wire.leg.send(b"")
    assert wire.leg.sent == 0


async def test_a_detached_leg_gives_its_descriptor_away_untouched(wire: Wire, poller: Poller) -> None:
    task = await waiting(wire.leg)
    wire.peer.push(b"watched")
    await task
    fd = wire.leg.detach()
    assert len(poller) == 0
    with pytest.raises(Terminating):
        await wire.leg.recv()
    wire.leg.close_now()
    wire.leg.abort(Terminating())
    with Peer(socket.socket(fileno=fd)) as ours:
        await wire.peer.send(b"alive")
        assert await ours.read(5) == b"alive"


async def test_detaching_with_bytes_put_back_or_somebody_waiting_is_our_own_bug(wire: Wire) -> None:
    wire.leg.put_back(b"would be lost")
    with pytest.raises(AssertionError):
        wire.leg.detach()
    wire.leg.take_back()
    task = await waiting(wire.leg)
    with pytest.raises(AssertionError):
        wire.leg.detach()
    task.cancel()
    await asyncio.wait([task])


async def test_names_are_the_kernels_and_an_ended_leg_has_none(wire: Wire) -> None:
    assert wire.leg.local_name == wire.peer.socket.getpeername()
    assert wire.leg.peer_name == wire.peer.socket.getsockname()
    wire.leg.close_now()
    for name in ("local_name", "peer_name"):
        with pytest.raises(LinkError):
            getattr(wire.leg, name)


async def test_a_leg_that_cannot_be_watched_ends(
    wire: Wire, poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, target: Target) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(poller, "watch", full)
    with pytest.raises(DoorwardError) as caught:
        await wire.leg.recv()
    assert caught.value.slug == "out_of_resources"
    assert caught.value.side is Side.OURS
    await wire.peer.sees_reset()


async def test_options_are_those_of_its_socket_until_it_ends(wire: Wire) -> None:
    wire.leg.set_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert wire.leg.get_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    with pytest.raises(NotSupported):
        wire.leg.set_option(socket.IPPROTO_TCP, 9_999, 1)
    wire.leg.close_now()
    with pytest.raises(NotSupported):
        wire.leg.get_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_an_ipv4_address_is_named_as_such_on_a_socket_of_both_families() -> None:
    assert plain_name(("::ffff:192.0.2.1", 80, 0, 0)) == ("192.0.2.1", 80)
    assert plain_name(("::1", 80, 0, 0)) == ("::1", 80)
    assert plain_name(("192.0.2.1", 80)) == ("192.0.2.1", 80)
