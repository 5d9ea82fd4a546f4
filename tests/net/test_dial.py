"""Dialling: to the addresses given and no other, the first to stand wins, and nothing is left of the rest."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from tests.net.wires import Peer, turns, until

from doorward.api.errors import AddressInUse, ConnectionRefused, OutOfResources, Side, TimedOut, Unreachable
from doorward.net import dial as dialling
from doorward.net.dial import ATTEMPTS_MAX, dial, interleave
from doorward.net.leg import Leg
from doorward.net.poller import Poller
from doorward.net.reservation import Reservation
from doorward.policy.model import IPAddress

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = (IPv4Address(f"127.0.0.{number}") for number in (1, 2, 3))
LONG_S = 3600.0


def _free_port() -> int:
    """Free at all three addresses, and below those that the kernel gives to outgoing connections."""
    for port in random.sample(range(12_000, 30_000), 100):
        try:
            for address in (ONE, TWO, THREE):
                _bound(address, port).close()
        except OSError:
            continue
        return port
    raise AssertionError("no port is free")


def _bound(address: IPAddress, port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((str(address), port))
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def answering(address: IPAddress, port: int = 0) -> Iterator[int]:
    """A server that the kernel answers for; its port."""
    with _bound(address, port) as sock:
        sock.listen(16)
        yield sock.getsockname()[1]


@contextlib.contextmanager
def refusing(address: IPAddress, port: int = 0) -> Iterator[int]:
    """A port that is taken, where nobody listens."""
    with _bound(address, port) as sock:
        yield sock.getsockname()[1]


@contextlib.contextmanager
def silent(address: IPAddress, port: int = 0) -> Iterator[int]:
    """A server whose backlog is full: the kernel answers nothing."""
    with _bound(address, port) as sock, contextlib.ExitStack() as clients:
        sock.listen(0)
        for _ in range(3):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(sock.getsockname())
        yield sock.getsockname()[1]


@contextlib.contextmanager
def servers(*kinds: Any) -> Iterator[int]:
    """One server of each kind at 127.0.0.1, 127.0.0.2, …, all on one port."""
    with contextlib.ExitStack() as stack:
        port = _free_port()
        for kind, address in zip(kinds, (ONE, TWO, THREE), strict=False):
            port = stack.enter_context(kind(address, port))
        yield port


async def reach(poller: Poller, addresses: Sequence[IPAddress], port: int, timeout_s: float = 5) -> IPAddress:
    """Dial, check the leg, close it; the address that answered."""
    leg, address = await dial(poller, addresses, port, timeout_s)
    assert leg.side is Side.EXTERNAL
    assert leg.peer_name == (str(address), port)
    leg.close_now()
    return address


async def test_the_leg_carries_bytes(poller: Poller) -> None:
    with _bound(ONE) as server:
        server.listen()
        leg, address = await dial(poller, [ONE], server.getsockname()[1], 5)
        with Peer(server.accept()[0]) as peer:
            assert address == ONE
            await leg.send(b"hello")
            assert await peer.read(5) == b"hello"
            assert leg.local_name == peer.socket.getpeername()
            leg.close_now()


async def test_ipv6(poller: Poller) -> None:
    with answering(IPv6Address("::1")) as port:
        assert await reach(poller, [IPv6Address("::1")], port) == IPv6Address("::1")


async def test_nobody_listens(poller: Poller) -> None:
    with servers(refusing, refusing) as port:
        for addresses in ([ONE], [ONE, TWO]):
            with pytest.raises(ConnectionRefused) as caught:
                await dial(poller, addresses, port, 5)
            assert caught.value.side is Side.EXTERNAL


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH])
async def test_no_way_there(poller: Poller, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: number)
    with pytest.raises(Unreachable) as caught:
        await dial(poller, [ip_address("203.0.113.1")], 80, 5)
    assert caught.value.side is Side.EXTERNAL


async def test_nobody_answers_in_time(poller: Poller) -> None:
    with servers(silent, silent) as port:
        for addresses in ([ONE], [ONE, TWO]):
            with pytest.raises(TimedOut) as caught:
                await dial(poller, addresses, port, 0.05)
            assert caught.value.side is Side.EXTERNAL


async def test_the_next_is_tried_at_once_when_one_has_failed(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", LONG_S)
    with servers(refusing, refusing, answering) as port:
        assert await reach(poller, [ONE, TWO, THREE], port) == THREE


async def test_the_next_is_tried_after_a_moment_when_one_does_not_answer(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", 0.01)
    with servers(silent, answering) as port:
        assert await reach(poller, [ONE, TWO], port) == TWO


async def test_the_first_wins_and_the_next_is_not_bothered(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", LONG_S)
    with servers(answering, answering) as port:
        assert await reach(poller, [ONE, TWO], port) == ONE


async def test_one_that_was_slow_may_still_win_when_the_next_has_failed(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", 0.01)
    with servers(silent, refusing) as port:
        with pytest.raises(TimedOut):  # the slow one was not given up when the other was refused
            await dial(poller, [ONE, TWO], port, 0.1)


async def test_two_that_stand_at_once_leave_one(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", 0)
    with servers(answering, answering, answering) as port:
        for _ in range(20):
            await reach(poller, [ONE, TWO, THREE], port)


async def test_a_name_with_many_addresses_does_not_become_a_scan(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def refuse(_: socket.socket, where: object) -> int:
        tried.append(where)
        return errno.ECONNREFUSED

    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    many = [IPv4Address(int(IPv4Address("203.0.113.0")) + number) for number in range(64)]
    with pytest.raises(ConnectionRefused):
        await dial(poller, many, 80, 5)
    assert tried == [(str(address), 80) for address in many[:ATTEMPTS_MAX]]


async def test_a_connection_that_meets_itself_is_refused(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may pick the very port that is dialled, and then connects the socket to itself."""
    with refusing(ONE) as port:
        pass
    connect_ex = socket.socket.connect_ex

    def from_its_own_port(sock: socket.socket, where: tuple[str, int]) -> int:
        if not sock.getsockname()[1]:
            sock.bind(where)
        return connect_ex(sock, where)

    monkeypatch.setattr(socket.socket, "connect_ex", from_its_own_port)
    with pytest.raises(ConnectionRefused, match="itself"):
        await dial(poller, [ONE], port, 5)


@pytest.mark.parametrize("addresses", [[ONE], [ONE, TWO]], ids=["one", "several"])
async def test_cancelling_leaves_nothing(
    poller: Poller, monkeypatch: pytest.MonkeyPatch, addresses: list[IPAddress]
) -> None:
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", 0)
    with servers(silent, silent) as port:
        task = asyncio.get_running_loop().create_task(dial(poller, addresses, port, LONG_S))
        await until(lambda: len(poller) == len(addresses))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert len(poller) == 0


async def test_cancelling_while_the_losers_are_ended_closes_the_winner_too(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    won: list[Leg] = []
    end, connect = dialling._end, dialling._connect

    async def cancelled_end(attempts: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await end(attempts)

    async def seen_connect(*arguments: Any) -> Leg:
        won.append(await connect(*arguments))
        return won[-1]

    monkeypatch.setattr(dialling, "_end", cancelled_end)
    monkeypatch.setattr(dialling, "_connect", seen_connect)
    monkeypatch.setattr(dialling, "ATTEMPT_DELAY_S", 0.01)
    with servers(silent, answering) as port:
        task = asyncio.get_running_loop().create_task(dial(poller, [ONE, TWO], port, LONG_S))
        await asyncio.wait([task])
    assert task.cancelled()
    assert [leg.open for leg in won] == [False]


async def test_without_descriptors_it_is_our_own_shortage(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", none_left)
        for addresses in ([ONE], [ONE, TWO]):
            with pytest.raises(OutOfResources) as caught:
                await dial(poller, addresses, 80, 5)
            assert caught.value.side is Side.OURS


async def test_it_goes_out_from_where_it_was_told_to(poller: Poller) -> None:
    reservation = Reservation("127.0.0.1", 0)
    with answering(ONE) as port:
        leg, _ = await dial(poller, [IPv6Address("2001:db8::1"), ONE], port, 5, reservation.name)
        assert leg.local_name == reservation.name
        leg.close_now()
    reservation.close()
    with answering(ONE) as port, pytest.raises(AddressInUse):
        await dial(poller, [ONE], port, 5, ("192.0.2.1", 0))


async def test_without_room_for_a_watch_nothing_is_left(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(poller, "watch", full)
    with servers(silent) as port:
        with pytest.raises(OutOfResources) as caught:
            await dial(poller, [ONE], port, 5)
    assert caught.value.side is Side.OURS
    await turns(2)


@pytest.mark.parametrize(
    ("addresses", "order"),
    [
        (["192.0.2.1"], ["192.0.2.1"]),
        (["192.0.2.1", "192.0.2.2", "::1", "::2"], ["192.0.2.1", "::1", "192.0.2.2", "::2"]),
        (["::1", "192.0.2.1", "192.0.2.2"], ["::1", "192.0.2.1", "192.0.2.2"]),
        (["::1", "::2", "::3", "192.0.2.1"], ["::1", "192.0.2.1", "::2", "::3"]),
    ],
)
def test_families_take_turns(addresses: list[str], order: list[str]) -> None:
    assert interleave([ip_address(a) for a in addresses]) == [ip_address(a) for a in order]
