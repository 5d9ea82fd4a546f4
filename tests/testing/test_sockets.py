"""Sockets of filters, in memory: each call is legal where it is in the product, and the test holds the far end."""

from __future__ import annotations

import asyncio
import socket as constants

import pytest
from tests.testing.conftest import MakeHarness
from tests.testing.plugins import Doing

from doorward.api import (
    AccessDenied,
    AddressInUse,
    AlreadyExists,
    BadArgument,
    Connection,
    ConnectionRefused,
    IpFilter,
    NameNotFound,
    NetworkSocket,
    NotConnected,
    NotSupported,
    OutOfResources,
    PeerReset,
    Terminating,
)
from doorward.testing import Expect, Peer, ScriptedDatagramSocket, ScriptedSocket, Send

pytestmark = pytest.mark.anyio

PEER = ("198.51.100.9", 20)
KEEP_ALIVE = (constants.SOL_SOCKET, constants.SO_KEEPALIVE)


async def test_a_filters_connection_meets_the_tests_server(make_harness: MakeHarness) -> None:
    harness = make_harness(names={"auth.test": ["198.51.100.5"]})
    far = harness.serve("auth.test", 113)

    async def ask(connection: Connection) -> None:
        socket: NetworkSocket = connection.session.create_network_socket()
        await socket.connect("auth.test", 113)
        assert socket.peer_name == ("198.51.100.5", 113)
        await socket.send(b"who?")
        assert await socket.recv() == b"kim"
        await socket.close()

    auth = Peer("auth", far, [Expect(b"who?"), Send(b"kim")])
    outcome = await harness.run(Doing(ask), peers=[auth])
    assert (outcome.end, bytes(auth.received)) == ("closed", b"who?")
    assert len(harness.sockets) == 1


async def test_a_connect_fails_as_it_does_in_the_product(make_harness: MakeHarness) -> None:
    harness = make_harness(names={"a.test": ["198.51.100.5"]}, allows=lambda _, host, __: host != "bad.test")
    harness.serve("a.test", 80)
    socket = harness.session.create_network_socket()
    for host, port, error in (
        ("bad.test", 80, AccessDenied),
        ("none.test", 80, NameNotFound),
        ("a.test", 81, ConnectionRefused),
        ("a.test", 0, BadArgument),
    ):
        with pytest.raises(error):
            await socket.connect(host, port)
    with pytest.raises(NotConnected):
        await socket.recv()
    with pytest.raises(NotConnected):
        _ = socket.peer_name
    socket.set_ip_filter(IpFilter("203.0.113.0/24"))
    with pytest.raises(AccessDenied):
        await socket.connect("a.test", 80)
    socket.set_ip_filter(None)
    await socket.connect("a.test", 80)
    with pytest.raises(AlreadyExists):
        await socket.connect("a.test", 80)
    await socket.close()
    with pytest.raises(Terminating):
        await socket.send(b"x")


async def test_the_firewalls_own_asks_no_policy(make_harness: MakeHarness) -> None:
    harness = make_harness(allows=lambda *_: False)
    far = harness.serve("127.0.0.1", 80)
    socket = harness.firewall.create_network_socket()
    await socket.connect("127.0.0.1", 80)
    await far.send(b"hello")
    assert await socket.recv() == b"hello"
    await socket.shutdown()
    assert await far.recv() == b""


async def test_a_peer_is_accepted_if_the_ip_filter_admits_it(make_harness: MakeHarness) -> None:
    harness = make_harness()
    socket = harness.session.create_network_socket()
    assert isinstance(socket, ScriptedSocket)
    with pytest.raises(NotSupported):
        await socket.listen()
    await socket.bind("", 0)
    with pytest.raises(BadArgument):
        await socket.listen(0)
    with pytest.raises(NotSupported):
        await socket.accept()
    await socket.listen()
    with pytest.raises(AccessDenied):
        socket.arrive(PEER)
    socket.set_ip_filter(IpFilter(PEER[0]))
    far = socket.arrive(PEER)
    accepted: NetworkSocket = await socket.accept()
    assert (accepted.peer_name, accepted.socket_name) == (PEER, socket.socket_name)
    await far.send(b"hi")
    assert await accepted.recv() == b"hi"
    with pytest.raises(NotSupported):
        await socket.connect("198.51.100.1", 80)
    with pytest.raises(NotSupported):
        await socket.recv()


async def test_a_port_is_taken_once(make_harness: MakeHarness) -> None:
    session = make_harness().session
    first, second = session.create_network_socket(), session.create_network_socket()
    await first.bind("", 6000)
    with pytest.raises(AlreadyExists):
        await first.bind("", 6001)
    with pytest.raises(AddressInUse):
        await second.bind("", 6000)
    await first.close()
    await second.bind("", 6000)
    assert second.socket_name == ("192.0.2.254", 6000)


async def test_an_accept_ends_with_its_socket(make_harness: MakeHarness) -> None:
    socket = make_harness().session.create_network_socket()
    await socket.bind("", 0)
    await socket.listen()
    accepting = asyncio.get_running_loop().create_task(socket.accept())
    await asyncio.sleep(0)
    await socket.close()
    with pytest.raises(Terminating):
        async with asyncio.timeout(1):
            await accepting


async def test_who_waits_when_a_socket_closes_is_reset_and_one_too_many_finds_no_room(
    make_harness: MakeHarness,
) -> None:
    socket = make_harness().session.create_network_socket()
    assert isinstance(socket, ScriptedSocket)
    socket.set_ip_filter(IpFilter.everybody())
    await socket.bind("", 0)
    await socket.listen(1)
    far = socket.arrive(PEER)
    with pytest.raises(OutOfResources):
        socket.arrive(PEER)
    await socket.close()
    with pytest.raises(PeerReset):
        async with asyncio.timeout(1):
            await far.recv()


async def test_options_are_those_that_a_filter_may_set(make_harness: MakeHarness) -> None:
    session = make_harness().session
    socket, datagrams = session.create_network_socket(), session.create_network_socket("udp")
    socket.set_option(*KEEP_ALIVE, 1)
    assert socket.get_option(*KEEP_ALIVE) == 1
    with pytest.raises(NotSupported):
        socket.set_option(constants.SOL_SOCKET, constants.SO_BINDTODEVICE, 1)
    with pytest.raises(NotConnected):
        socket.get_option(constants.SOL_SOCKET, constants.SO_RCVBUF)
    with pytest.raises(NotSupported):
        datagrams.get_option(*KEEP_ALIVE)
    with pytest.raises(BadArgument):
        session.create_network_socket("sctp")  # type: ignore[arg-type]  # nobody checks a filter's types


async def test_datagrams_are_kept_and_come_when_the_test_says(make_harness: MakeHarness) -> None:
    harness = make_harness(allows=lambda _, host, __: host != "203.0.113.66")
    socket = harness.session.create_network_socket("udp")
    assert isinstance(socket, ScriptedDatagramSocket)
    with pytest.raises(NotConnected):
        await socket.recv_from()
    await socket.send_to(b"a", PEER)
    await socket.send_to(b"refused", ("203.0.113.66", 53))
    assert socket.datagrams == [(b"a", PEER)]
    socket.arrive(b"answer", PEER)
    assert await socket.recv_from() == (b"answer", PEER)
    await socket.connect(*PEER)
    socket.arrive(b"stranger", ("203.0.113.5", 20))
    socket.arrive(b"again", PEER)
    assert await socket.recv() == b"again"
    await socket.send(b"b")
    assert socket.datagrams[-1] == (b"b", PEER)
    with pytest.raises(NotSupported):
        await socket.listen()
    with pytest.raises(NotSupported):
        await socket.accept()
    with pytest.raises(BadArgument):
        await socket.send_to(bytes(65_508), PEER)
    await socket.close()
    with pytest.raises(Terminating):
        await socket.send(b"c")


async def test_they_end_with_their_session(make_harness: MakeHarness) -> None:
    harness = make_harness()
    socket = harness.session.create_network_socket()
    harness.session.end()
    with pytest.raises(Terminating):
        await socket.bind("", 0)
