"""One client's flow, down at its sockets."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from tests.engine.publishing.houses import Street, datagram_port, name_of, receive
from tests.engine.rig import wait_for

from doorward.api.errors import DoorwardError
from doorward.engine.publishing.flow import Lent, _connected
from doorward.engine.publishing.servers import Server
from doorward.net.datagrams import DatagramSocket, Inbox

pytestmark = pytest.mark.anyio

MakeStreet = Callable[..., Street]


async def test_the_published_socket_is_lent_and_never_closed(make_street: MakeStreet) -> None:
    street = make_street()
    lender = DatagramSocket(Inbox(street.rig.poller), street.datagrams(), lambda payload, where: None)
    lent = Lent(lender)
    target = street.datagrams()
    assert not lent.open
    assert lent.send(b"x", target.getsockname())
    lent.close()
    assert lender.open
    assert (lent.name, lent.version) == (lender.name, 4)
    assert (await receive(target))[0] == b"x"
    assert not lent.send(bytes(70_000), target.getsockname())
    assert lent.dropped == 1


async def test_large_datagrams_pass_whole(make_street: MakeStreet) -> None:
    street = make_street()
    machine, client = street.datagrams(), street.datagrams()
    house = street.house(machine.getsockname()[1], transport="udp")
    client.sendto(bytes(60_000), name_of(house))
    data, way = await receive(machine)
    assert data == bytes(60_000)
    machine.sendto(b"", way)
    assert (await receive(client))[0] == b""


async def test_what_the_server_says_to_a_client_that_was_forgotten_is_dropped(
    make_street: MakeStreet,
) -> None:
    street = make_street()
    machine, client = street.datagrams(), street.datagrams()
    house = street.house(machine.getsockname()[1], transport="udp")
    client.sendto(b"x", name_of(house))
    _, way = await receive(machine)
    (flow,) = datagram_port(house)._flows.values()
    mapping = flow._mapping
    assert mapping is not None
    for destination in mapping.memory:
        mapping.forget(destination)
    machine.sendto(b"late", way)
    await wait_for(lambda: flow.unsent == 1, "it was dropped")
    (record,) = await street.records("destination")
    assert record.end == "idle_timeout"


async def test_a_machine_that_no_packet_can_reach_is_an_error_of_ours(make_street: MakeStreet) -> None:
    make_street()
    with pytest.raises(DoorwardError):
        _connected(Server(ip_address("255.255.255.255"), 9), None)  # not allowed without a word to the kernel


async def test_sockets_toward_machines_hear_nobody_else(make_street: MakeStreet) -> None:
    street = make_street()
    machine, stranger = street.datagrams(), street.datagrams()
    sock = _connected(Server(ip_address("127.0.0.1"), machine.getsockname()[1]), None)
    try:
        stranger.sendto(b"forged", sock.getsockname())
        machine.sendto(b"true", sock.getsockname())
        assert sock.recv(10) == b"true"
        with pytest.raises(BlockingIOError):
            sock.recv(10)
        assert sock.type == socket.SOCK_DGRAM
    finally:
        sock.close()
