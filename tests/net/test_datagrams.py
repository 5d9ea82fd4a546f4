from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator

import pytest
from tests.net.wires import open_descriptors

from doorward.api.errors import AddressInUse, OutOfResources
from doorward.net.datagrams import (
    DATAGRAM_BYTES_MAX,
    TURN_DATAGRAMS_MAX,
    DatagramSocket,
    Inbox,
    SocketAddress,
    open_datagrams,
)
from doorward.net.poller import Poller

pytestmark = pytest.mark.anyio

PATIENCE_S = 8.0


class Heard:
    """What one of our sockets has received."""

    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, SocketAddress]] = []

    def __call__(self, payload: memoryview, address: SocketAddress) -> None:
        self.datagrams.append((bytes(payload), address))

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.datagrams) < count:  # noqa: ASYNC110 - it is told by the kernel alone
                await asyncio.sleep(0)


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    """A test's own end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(PATIENCE_S)
        yield sock


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_datagram_comes_whole_with_who_has_sent_it_and_can_be_answered(
    poller: Poller, host: str
) -> None:
    heard, inbox = Heard(), Inbox(poller)
    one, other = open_datagrams(inbox, host, 0, heard), open_datagrams(inbox, host, 0, heard)
    where: SocketAddress = one.name if one.version == 4 else (*one.name, 0, 0)
    assert other.send(b"hello", where)
    await heard.wait(1)
    data, source = heard.datagrams[0]
    assert (data, source[:2]) == (b"hello", other.name)
    assert one.send(memoryview(b"answer"), source)
    await heard.wait(2)
    assert heard.datagrams[1] == (b"answer", where)
    one.close()
    other.close()


@pytest.mark.parametrize("size", [0, 1, 1500, 65_507])
async def test_every_size_that_udp_can_carry_comes_whole(
    poller: Poller, peer: socket.socket, size: int
) -> None:
    heard = Heard()
    ours = open_datagrams(Inbox(poller), "127.0.0.1", 0, heard)
    data = bytes(range(256)) * (size // 256 + 1)
    peer.sendto(data[:size], ours.name)
    await heard.wait(1)
    assert heard.datagrams == [(data[:size], peer.getsockname())]
    assert ours.send(data[:size], peer.getsockname())
    assert peer.recv(DATAGRAM_BYTES_MAX) == data[:size]
    ours.close()


async def test_a_datagram_too_large_to_be_sent_is_counted_and_the_socket_goes_on(
    poller: Poller, peer: socket.socket
) -> None:
    ours = open_datagrams(Inbox(poller), "127.0.0.1", 0, Heard())
    assert not ours.send(bytes(65_508), peer.getsockname())
    assert (ours.failed, ours.failure, ours.dropped) == (1, errno.EMSGSIZE, 0)
    assert ours.send(b"x", peer.getsockname())
    assert peer.recv(10) == b"x"
    ours.close()


async def test_what_the_kernel_has_no_room_for_is_dropped_and_counted(poller: Poller) -> None:
    ours = open_datagrams(Inbox(poller), "127.0.0.1", 0, Heard())
    number = iter([errno.EAGAIN, errno.ENOBUFS, errno.EPERM])

    class Full:
        def sendto(self, *_: object) -> None:
            raise OSError(next(number), "full")

        def fileno(self) -> int:
            return -1

        def close(self) -> None:
            pass

    real, ours._socket = ours._socket, Full()  # type: ignore[assignment]  # a kernel without room
    assert [ours.send(b"x", ("127.0.0.1", 9)) for _ in range(3)] == [False] * 3
    assert (ours.dropped, ours.failed, ours.failure) == (2, 1, errno.EPERM)
    ours._socket = real
    ours.close()


async def test_a_burst_is_taken_in_turns_and_nobody_else_is_kept_waiting(
    poller: Poller, peer: socket.socket
) -> None:
    heard, burst = Heard(), 3 * TURN_DATAGRAMS_MAX + 5
    ours = open_datagrams(Inbox(poller), "127.0.0.1", 0, heard, buffer_bytes=1 << 20)
    for number in range(burst):
        peer.sendto(number.to_bytes(2, "big"), ours.name)
    turns: list[int] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(heard.datagrams) < burst:
            before = len(heard.datagrams)
            await asyncio.sleep(0)
            turns.append(len(heard.datagrams) - before)
    assert max(turns) == TURN_DATAGRAMS_MAX
    assert [int.from_bytes(data, "big") for data, _ in heard.datagrams] == list(range(burst))
    ours.close()


async def test_exactly_one_turn_is_no_end(poller: Poller, peer: socket.socket) -> None:
    heard = Heard()
    ours = open_datagrams(Inbox(poller), "127.0.0.1", 0, heard)
    for _ in range(2):
        seen = len(heard.datagrams)
        for _ in range(TURN_DATAGRAMS_MAX):
            peer.sendto(b"x", ours.name)
        await heard.wait(seen + TURN_DATAGRAMS_MAX)
    ours.close()


async def test_a_peer_that_is_not_there_ends_nothing(poller: Poller, peer: socket.socket) -> None:
    """With IP_RECVERR the kernel tells of each refusal, once, in place of a datagram."""
    heard = Heard()
    ours = open_datagrams(Inbox(poller), "127.0.0.1", 0, heard)
    ours._socket.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: ip(7)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        nobody = gone.getsockname()
    for _ in range(5):
        ours.send(b"hello?", nobody)
    peer.sendto(b"still here", ours.name)
    await heard.wait(1)
    assert heard.datagrams == [(b"still here", peer.getsockname())]
    assert ours.failed in range(1, 5)  # a refusal is told at the next call, whichever that is
    ours.close()


async def test_a_socket_may_be_closed_by_what_it_receives(poller: Poller, peer: socket.socket) -> None:
    heard: list[bytes] = []

    def take(payload: memoryview, address: SocketAddress) -> None:
        heard.append(bytes(payload))
        ours.close()

    ours = open_datagrams(Inbox(poller), "127.0.0.1", 0, take)
    for _ in range(3):
        peer.sendto(b"x", ours.name)
    async with asyncio.timeout(PATIENCE_S):
        while not heard:  # noqa: ASYNC110 - it is told by the kernel alone
            await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)
    assert heard == [b"x"]
    assert not ours.open
    ours.close()


async def test_closed_between_two_turns_nothing_more_is_heard(poller: Poller, peer: socket.socket) -> None:
    heard = Heard()
    ours = open_datagrams(Inbox(poller), "127.0.0.1", 0, heard)
    for _ in range(TURN_DATAGRAMS_MAX + 1):
        peer.sendto(b"x", ours.name)
    await heard.wait(TURN_DATAGRAMS_MAX)
    ours.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(heard.datagrams) == TURN_DATAGRAMS_MAX
    assert not ours.send(b"x", peer.getsockname())


async def test_a_mistake_of_ours_costs_one_datagram_and_is_told(poller: Poller, peer: socket.socket) -> None:
    told: list[object] = []
    poller.loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    heard: list[bytes] = []

    def take(payload: memoryview, address: SocketAddress) -> None:
        heard.append(bytes(payload))
        if len(heard) == 1:
            raise ZeroDivisionError

    ours = open_datagrams(Inbox(poller), "127.0.0.1", 0, take)
    peer.sendto(b"one", ours.name)
    peer.sendto(b"two", ours.name)
    async with asyncio.timeout(PATIENCE_S):
        while len(heard) < 2:  # noqa: ASYNC110 - it is told by the kernel alone
            await asyncio.sleep(0)
    assert heard == [b"one", b"two"]
    assert [type(error) for error in told] == [ZeroDivisionError]
    poller.loop.set_exception_handler(None)
    ours.close()


async def test_what_cannot_be_bound_says_so_and_leaves_nothing(poller: Poller, peer: socket.socket) -> None:
    inbox = Inbox(poller)
    before = open_descriptors()
    with pytest.raises(AddressInUse):
        open_datagrams(inbox, "127.0.0.1", peer.getsockname()[1], Heard())
    with pytest.raises(AddressInUse):
        open_datagrams(inbox, "192.0.2.1", 9999, Heard())
    assert open_descriptors() == before


async def test_without_descriptors_or_watches_it_says_so(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_descriptors()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no more watches")

    monkeypatch.setattr(poller, "watch", fail)
    with pytest.raises(OutOfResources):
        open_datagrams(Inbox(poller), "127.0.0.1", 0, Heard())
    monkeypatch.undo()
    assert open_descriptors() == before


async def test_a_larger_buffer_is_asked_for_and_ipv6_is_ipv6_alone(poller: Poller) -> None:
    inbox = Inbox(poller)
    plain = open_datagrams(inbox, "::1", 0, Heard())
    large = open_datagrams(inbox, "::", 0, Heard(), buffer_bytes=1 << 20)

    def size(ours: DatagramSocket) -> int:
        return ours._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    assert size(large) >= size(plain)
    assert large._socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    plain.close()
    large.close()
