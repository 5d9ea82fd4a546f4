from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.rig import Rig, wait_for
from tests.engine.udp.rig import Client, Far, UdpRig, attaching, begin, hearing

from doorward.api import AddressInUse, ClientKind, IpFilter, OutOfResources, Side
from doorward.engine.connection import Connection
from doorward.engine.operation import Operation
from doorward.engine.origin import Origin
from doorward.engine.target import Target
from doorward.engine.udp.mapping import Mapping
from doorward.engine.udp.opening import admitted_by_filter, lead_to_client, open_mapping

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
ORIGIN = Origin("socks5", ClientKind.SOCKS, "127.0.0.1", 4242)


async def attempt(rig: Rig, client: Callable[[Mapping], Client]) -> tuple[Connection, Mapping | None]:
    return await open_mapping(rig.engine, rig.engine.sessions.get("127.0.0.1", None), ORIGIN, client)


async def begun(rig: Rig) -> Connection:
    """A connection as whoever promises a port has begun it."""

    async def nothing() -> None:
        other = await begin(rig)
        connection.judged = other.connection.decision
        other.connection.kill()

    session = rig.engine.sessions.get("127.0.0.1", None)
    connection = rig.engine.begin(session, Target(None, None, 0), ORIGIN, Operation.UDP, "udp")
    await rig.engine.open(connection, nothing())
    rig.recorder.records.clear()
    return connection


async def test_a_mapping_is_allowed_as_a_place_to_send_from(make_rig: MakeRig) -> None:
    udp = await begin(make_rig(rules=[]))
    assert (udp.connection.decision.reason, udp.connection.decision.rule) == ("udp_mapping", None)
    udp.connection.kill()
    assert (udp.whole.action, udp.whole.reason, udp.whole.transport) == ("allow", "udp_mapping", "udp")


async def test_a_filter_may_deny_the_bind(make_rig: MakeRig) -> None:
    async def deny(event: Any) -> None:
        assert (event.transport, event.address, event.port) == ("udp", "", 0)
        event.connection.deny("no_udp_here")

    made: list[Mapping] = []

    def make(mapping: Mapping) -> Client:
        made.append(mapping)
        return Client()

    rig = make_rig(hearing([], bind=deny))
    connection, mapping = await attempt(rig, make)
    assert mapping is None
    assert connection.refusal is not None
    assert (connection.refusal.action, connection.refusal.reason) == ("deny", "no_udp_here")
    assert made == []
    assert len(rig.engine.udp) == 0


async def test_a_client_side_that_cannot_be_made_is_a_failure_on_record(make_rig: MakeRig) -> None:
    def fail(_: Mapping) -> Client:
        raise OutOfResources("no descriptor", side=Side.OURS)

    rig = make_rig()
    connection, mapping = await attempt(rig, fail)
    assert mapping is None
    assert connection.end is not None
    record = await rig.record()
    assert (record.action, record.reason, record.operation) == ("fail", "out_of_resources", "udp")
    assert len(rig.engine.udp) == 0


async def test_a_client_with_too_many_connections_gets_no_mapping(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.recorder.trouble = "the disk is full"
    connection, mapping = await attempt(rig, lambda _: Client())
    assert mapping is None
    assert connection.refusal is not None
    assert connection.refusal.reason == "log_unavailable"


async def test_peers_that_a_filter_admits_are_led_to_the_clients_address(make_rig: MakeRig) -> None:
    rig = make_rig()
    connection = await begun(rig)
    mapping = lead_to_client(connection, "127.0.0.1", 0, admitted_by_filter(connection))
    udp = UdpRig(rig, connection, mapping, Client())
    client, peer = udp.far(), udp.far("127.0.0.3")
    connection.extra.client_name = client.name
    name = connection.external_socket_name
    peer.send(b"nobody is admitted", name)
    await wait_for(lambda: mapping.strangers == 1, "the stranger")
    connection.set_ip_filter(IpFilter("127.0.0.3"))
    peer.send(b"hello", name)
    data, inner = await client.receive()
    assert data == b"hello"
    client.send(b"answer", inner)
    assert await peer.receive() == (b"answer", name)
    connection.kill()
    assert udp.record_of(peer.target).bytes_received == 5
    assert udp.whole.detail == "dropped: 1 from strangers"


async def test_a_port_that_is_taken_says_so_and_leaves_nothing(make_rig: MakeRig) -> None:
    rig = make_rig()
    connection = await begun(rig)
    taken = Far()
    with pytest.raises(AddressInUse):
        lead_to_client(connection, *taken.name, admitted_by_filter(connection))
    with pytest.raises(AddressInUse):
        lead_to_client(connection, "", taken.name[1], admitted_by_filter(connection))
    taken.close()
    assert (len(rig.engine.udp), +rig.engine.udp._ports) == (0, {})


async def test_what_was_attached_before_begins_with_it(make_rig: MakeRig) -> None:
    udp = await begin(make_rig(hearing([], bind=attaching())))
    assert udp.mapping.filters.chain is None
