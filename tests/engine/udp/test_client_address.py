from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.engine.rig import Rig, wait_for
from tests.engine.udp.rig import UdpRig, begin

from doorward.engine.udp.client_address import SOCKETS_MAX, ClientAddress
from doorward.engine.udp.destination import FarEnd

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


async def make(make_rig: MakeRig) -> tuple[UdpRig, ClientAddress, tuple[str, int]]:
    """A mapping whose client is an address that anybody may be led to."""
    udp = await begin(make_rig())
    side = udp.mapping.client = ClientAddress(udp.mapping)
    udp.mapping.admits = lambda _: True
    return udp, side, udp.mapping.table.listen(udp.mapping, "127.0.0.1", 0)


async def test_each_peer_has_a_port_of_its_own_toward_the_client(make_rig: MakeRig) -> None:
    udp, _, name = await make(make_rig)
    client, one, other = udp.far(), udp.far(), udp.far()
    udp.connection.extra.client_name = client.name
    ports = []
    for peer in (one, other):
        peer.send(b"hello", name)
        data, inner = await client.receive()
        assert data == b"hello"
        ports.append(inner)
        client.send(b"answer", inner)
        assert await peer.receive() == (b"answer", name)
    assert ports[0] != ports[1]


async def test_only_the_client_can_answer(make_rig: MakeRig) -> None:
    udp, side, name = await make(make_rig)
    client, peer, other = udp.far(), udp.far(), udp.far()
    udp.connection.extra.client_name = client.name
    peer.send(b"hello", name)
    _, inner = await client.receive()
    other.send(b"not mine", inner)
    await wait_for(lambda: side.intruders == 1, "the other")
    assert peer.is_silent()
    udp.connection.kill()
    assert udp.whole.detail == "dropped: 1 not from the client"


async def test_before_the_clients_address_is_known_nothing_is_delivered(make_rig: MakeRig) -> None:
    udp, side, name = await make(make_rig)
    client, peer = udp.far(), udp.far()
    peer.send(b"early", name)
    await wait_for(lambda: side.unsent == 1, "the first")
    udp.connection.extra.client_name = client.name
    peer.send(b"hello", name)
    assert (await client.receive())[0] == b"hello"


async def test_a_forgotten_peer_takes_its_socket_with_it(make_rig: MakeRig) -> None:
    udp, _, name = await make(make_rig)
    client, peer = udp.far(), udp.far()
    udp.connection.extra.client_name = client.name
    peer.send(b"hello", name)
    _, inner = await client.receive()
    destination = udp.mapping.memory.get(peer.target)
    assert destination is not None
    udp.mapping.forget(destination)
    client.send(b"late", inner)
    assert not udp.mapping.table.is_ours(inner)
    assert peer.is_silent()


async def test_more_sources_than_sockets_share_them(make_rig: MakeRig) -> None:
    udp, side, _ = await make(make_rig)
    client = udp.far()
    udp.connection.extra.client_name = client.name
    for number in range(1, SOCKETS_MAX + 10):
        assert side.deliver(b"x", FarEnd(("192.0.2.1", number)))
    assert len(side._sockets) == SOCKETS_MAX


async def test_without_a_descriptor_it_is_dropped(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    udp, side, _ = await make(make_rig)
    udp.connection.extra.client_name = udp.far().name

    def fail(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("doorward.net.datagrams.socket.socket", fail)
    assert not side.deliver(b"x", FarEnd(("192.0.2.1", 9)))
    monkeypatch.undo()
    assert side.unsent == 1


async def test_an_ipv4_peer_reaches_an_ipv6_client(make_rig: MakeRig) -> None:
    udp, _, name = await make(make_rig)
    client, peer = udp.far("::1"), udp.far()
    udp.connection.extra.client_name = client.name
    peer.send(b"hello", name)
    data, inner = await client.receive()
    assert data == b"hello"
    client.send(b"answer", inner)
    assert await peer.receive() == (b"answer", name)
