"""Who may enter the fast lane, and when everybody is back. What it is like in there stands in tests/entry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from tests.engine.rig import Rig, wait_for
from tests.engine.udp.rig import Client, Far, UdpRig, begin

from doorward.api.ip_filter import IpFilter
from doorward.engine.udp.client_address import SOCKETS_MAX, ClientAddress
from doorward.engine.udp.client_side import ClientEnd
from doorward.engine.udp.destination import Destination
from doorward.net.datagrams import DatagramSocket
from doorward.net.native_datagrams import Courier, is_available

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not is_available(), reason="doorward_native is not built: make native"),
]

MakeRig = Callable[..., Rig]


class Lane(Client):
    """A client's side with a socket, which native code may have."""

    ours: DatagramSocket
    client: Far
    begins = True  # has it a header for the destination?

    def end_for(self, destination: Destination) -> ClientEnd | None:
        header = b"%05d" % destination.port
        return ClientEnd(self.ours, self.client.name, header, b"A") if self.begins else None


@pytest.fixture
async def udp(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[UdpRig]:
    monkeypatch.setattr("doorward.engine.udp.mapping.ASKS_MASK", 0)
    rig = make_rig()
    side = Lane()
    udp = await begin(rig, side)
    udp.mapping.table.inbox.courier = Courier(rig.poller)
    side.client = udp.far()
    side.ours = udp.mapping.table.open("127.0.0.1", 0, lambda *_: None)
    yield udp
    udp.mapping.table.release(side.ours)
    udp.connection.kill()
    assert not udp.mapping.flowing
    assert not lent(udp)
    udp.mapping.table.close()


def lent(udp: UdpRig) -> int:
    courier = udp.mapping.table.inbox.courier
    assert courier is not None
    return len(courier)


async def flowing(udp: UdpRig, far: Far) -> Destination:
    """A destination in the lane, with one datagram that has come by here."""
    destination = udp.say(b"first", far.target)
    assert destination is not None
    await far.receive()
    await wait_for(lambda: destination.flow != 0, "the lane")
    return destination


async def by_lane(udp: UdpRig, far: Far, payload: bytes) -> None:
    """One datagram each way that nobody here sees."""
    side = udp.mapping.client
    assert isinstance(side, Lane)
    side.client.send(b"%05d" % far.name[1] + payload, side.ours.name)
    data, source = await far.receive()
    assert data == payload
    far.send(payload, source)
    assert await side.client.receive() == (b"A" + payload, side.ours.name)
    assert not side.heard


async def test_counts_and_time_go_on_wherever_a_datagram_passes(udp: UdpRig) -> None:
    far = udp.far()
    destination = await flowing(udp, far)
    before = destination.last
    await by_lane(udp, far, b"four")
    assert (destination.bytes_sent, destination.bytes_received) == (9, 4)
    assert destination.last > before
    assert destination.last == destination.last == udp.mapping.last
    udp.say(b"here", far.target)
    assert (destination.bytes_sent, destination.sent) == (13, 9)
    last = destination.last
    udp.mapping.table.fast_lane.leave(destination)
    udp.mapping.table.fast_lane.leave(destination)
    assert (destination.sent, destination.received, destination.last) == (13, 4, last)
    assert lent(udp) == 0


async def test_the_first_few_datagrams_stay_here(udp: UdpRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doorward.engine.udp.mapping.ASKS_MASK", 31)
    far = udp.far()
    for number in range(31):
        destination = udp.say(b"x", far.target)
        assert (await far.receive())[0] == b"x"
        assert destination is not None
        assert (destination.flow, lent(udp)) == (0, 0), number
    udp.say(b"x", far.target)
    await wait_for(lambda: udp.mapping.flowing == 1, "the lane")


async def test_two_destinations_of_one_peer_leave_and_what_is_left_of_them_may_come_back(udp: UdpRig) -> None:
    far, other = udp.far(), udp.far()
    first, beside = await flowing(udp, far), await flowing(udp, other)
    udp.rig._lookup = lambda _: (far.target.address,)  # type: ignore[assignment,return-value]  # it has one
    second = await udp.settle(udp.mapping.find(far.target._replace(host="far.test", address=None)))
    assert (first.flow, second.flow) == (0, 0)
    assert beside.flow
    udp.say(b"x", far.target)
    await far.receive()
    assert lent(udp) == 2
    assert first.flow == 0
    udp.mapping.forget(second)
    udp.say(b"x", far.target)
    await wait_for(lambda: first.flow != 0, "the lane")


async def test_what_is_denied_or_forgotten_is_in_no_lane(udp: UdpRig) -> None:
    far, other = udp.far(), udp.far()
    first, second = await flowing(udp, far), await flowing(udp, other)
    await by_lane(udp, far, b"x")
    udp.mapping.forget(first)
    assert (first.bytes_sent, first.bytes_received) == (6, 1)
    assert lent(udp) == 2
    udp.mapping.forget(second)
    assert lent(udp) == 0


async def test_a_filter_that_comes_after_the_asking_is_heard(udp: UdpRig) -> None:
    far = udp.far()

    def read() -> None:
        udp.connection.set_ip_filter(IpFilter("127.0.0.1"))

    for restrict in (read, udp.connection.kill):
        await flowing(udp, far)
        read()
        udp.connection.set_ip_filter(None)
        udp.say(b"asks", far.target)
        restrict()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (lent(udp), udp.mapping.flowing) == (0, 0)
        if udp.connection.end is None:
            udp.connection.set_ip_filter(None)
        await far.receive()


async def test_a_client_without_a_header_stays_here(udp: UdpRig) -> None:
    assert isinstance(udp.mapping.client, Lane)
    udp.mapping.client.begins = False
    far = udp.far()
    await udp.exchange(far)
    await udp.exchange(far)
    assert lent(udp) == 0


async def test_sockets_without_room_are_not_half_lent(udp: UdpRig, monkeypatch: pytest.MonkeyPatch) -> None:
    courier = udp.mapping.table.inbox.courier
    monkeypatch.setattr(courier, "flow", lambda *_: 0)
    await udp.exchange(udp.far())
    assert lent(udp) == 0


async def test_a_client_that_is_an_address_has_a_lane_for_each_peer(udp: UdpRig) -> None:
    side = udp.mapping.client = ClientAddress(udp.mapping)
    udp.mapping.admits = lambda _: True
    name = udp.mapping.table.listen(udp.mapping, "127.0.0.1", 0)
    client, peers = udp.far(), [udp.far() for _ in range(3)]
    udp.connection.extra.client_name = client.name
    for turn in range(10):
        for peer in peers:
            peer.send(b"%d" % turn, name)
            data, inner = await client.receive()
            client.send(b"back" + data, inner)
            assert await peer.receive() == (b"back%d" % turn, name)
    assert udp.mapping.flowing == 3
    assert lent(udp) == 4
    found = udp.mapping.memory.get(peers[0].target)
    assert found is not None
    assert (found.bytes_received, found.bytes_sent) == (10, 50)
    for _ in range(SOCKETS_MAX):
        udp.far().send(b"one more", name)
        await client.receive()
    assert found.flow == 0  # its socket has made room
    assert found.bytes_sent == 50
    assert len(udp.mapping.lent) <= SOCKETS_MAX + 1
    assert side.unsent == 0
