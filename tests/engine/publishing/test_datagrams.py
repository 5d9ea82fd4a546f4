"""A published UDP port: a flow for each client, what filters see of it, its limits and its ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from tests.engine.filters import Pumping
from tests.engine.publishing.houses import (
    Street,
    datagram_port,
    is_empty,
    name_of,
    receive,
)
from tests.engine.rig import Plugin, entry, wait_for

from doorward.api import EventKind, Interest, Side, StreamFilter
from doorward.config.model import Limits
from doorward.engine.association import FilterEntry
from doorward.engine.outcome import End
from doorward.engine.publishing import datagrams
from doorward.engine.publishing.house import House
from doorward.policy.model import PortRange

pytestmark = pytest.mark.anyio

MakeStreet = Callable[..., Street]
EVENTS = (EventKind.BIND, EventKind.UDP_DESTINATION)


def udp(street: Street, *machines: Any, **options: Any) -> tuple[House, Any]:
    """A published port, and the socket of its first machine."""
    machine = street.datagrams()
    return street.house(machine.getsockname()[1], *machines, transport="udp", **options), machine


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_each_client_has_its_own_way_to_the_server_and_back(make_street: MakeStreet) -> None:
    street = make_street()
    house, machine = udp(street)
    one, other = street.datagrams(), street.datagrams("127.0.0.2")
    one.sendto(b"from one", name_of(house))
    data, way_one = await receive(machine)
    assert data == b"from one"
    other.sendto(b"from other", name_of(house))
    data, way_other = await receive(machine)
    assert data == b"from other"
    assert way_one != way_other
    machine.sendto(b"to other", way_other)
    machine.sendto(b"to one", way_one)
    assert await receive(one) == (b"to one", name_of(house))
    assert await receive(other) == (b"to other", name_of(house))
    assert datagram_port(house).flows == 2
    house.end()
    for record in await street.records("destination", 2):
        assert (record.action, record.reason, record.rule) == ("allow", "published", "web")
        assert (record.client_port, record.transport) == (machine.getsockname()[1], "udp")
        sizes = {"127.0.0.1": (6, 8), "127.0.0.2": (8, 10)}
        assert (record.bytes_sent, record.bytes_received) == sizes[record.address or ""]
    assert {r.address for r in await street.records("udp", 2)} == {"127.0.0.1", "127.0.0.2"}


async def test_a_stranger_to_the_way_inside_reaches_nobody(make_street: MakeStreet) -> None:
    street = make_street()
    house, machine = udp(street)
    client, stranger = street.datagrams(), street.datagrams()
    client.sendto(b"x", name_of(house))
    _, way = await receive(machine)
    stranger.sendto(b"forged", way)
    machine.sendto(b"true", way)
    assert (await receive(client))[0] == b"true"
    assert is_empty(client)


async def test_who_may_not_come_is_dropped_with_a_record(make_street: MakeStreet) -> None:
    street = make_street()
    house, machine = udp(street, sources=(ip_network("198.51.100.0/24"),))
    client = street.datagrams()
    client.sendto(b"x", name_of(house))
    (record,) = await street.records("accept")
    assert (record.action, record.reason, record.transport) == ("deny", "peer_not_admitted", "udp")
    assert (record.address, record.port) == client.getsockname()
    assert is_empty(machine)
    assert datagram_port(house).flows == 0


async def test_a_silent_client_is_forgotten_and_may_come_again(make_street: MakeStreet) -> None:
    street = make_street(limits=Limits(udp_idle_timeout_s=0.05))
    house, machine = udp(street)
    client = street.datagrams()
    client.sendto(b"x", name_of(house))
    await receive(machine)
    (record,) = await street.records("udp")
    assert record.end == "idle_timeout"
    assert datagram_port(house).flows == 0
    client.sendto(b"y", name_of(house))
    assert (await receive(machine))[0] == b"y"


async def test_what_comes_while_a_client_is_looked_at_waits_in_order_within_bounds(
    make_street: MakeStreet,
) -> None:
    go_on = asyncio.Event()

    async def bind(event: Any) -> None:
        await go_on.wait()

    street = make_street(entry(Plugin("it", [], bind=bind), events=EVENTS))
    house, machine = udp(street)
    client = street.datagrams()
    for number in range(40):
        client.sendto(b"%d" % number, name_of(house))
    await turns()
    assert is_empty(machine)
    (flow,) = datagram_port(house)._flows.values()
    assert flow._held == [b"%d" % number for number in range(16)]
    go_on.set()
    assert [(await receive(machine))[0] for _ in range(16)] == [b"%d" % number for number in range(16)]
    await turns()
    assert is_empty(machine)


async def test_filters_hear_of_each_client_and_may_deny_it(make_street: MakeStreet) -> None:
    async def destination(event: Any) -> None:
        if event.destination.address == "127.0.0.2":
            event.destination.deny("unwelcome")

    plugin = Plugin("it", [], udp_destination=destination)
    street = make_street(entry(plugin, events=EVENTS))
    house, machine = udp(street, protocol="dns")
    unwelcome, welcome = street.datagrams("127.0.0.2"), street.datagrams("127.0.0.3")
    unwelcome.sendto(b"x", name_of(house))
    (record,) = await street.records("destination")
    assert (record.reason, record.address, record.protocol) == ("unwelcome", "127.0.0.2", "dns")
    welcome.sendto(b"y", name_of(house))
    assert (await receive(machine))[0] == b"y"
    assert is_empty(machine)
    assert [kind for _, kind in plugin.heard] == ["bind", "udp_destination"] * 2


async def test_a_denied_bind_is_remembered_for_a_moment(
    make_street: MakeStreet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "REFUSAL_REMEMBERED_S", 0.05)

    async def bind(event: Any) -> None:
        event.connection.deny("unwelcome")

    plugin = Plugin("it", [], bind=bind)
    street = make_street(entry(plugin, events=EVENTS))
    house, machine = udp(street)
    client = street.datagrams()
    client.sendto(b"1", name_of(house))
    await street.records("udp")
    for _ in range(5):
        client.sendto(b"2", name_of(house))
    await turns()
    (record,) = await street.records("udp")
    assert (record.action, record.reason) == ("deny", "unwelcome")
    await wait_for(lambda: datagram_port(house).flows == 0, "it is forgotten")
    assert is_empty(machine)


async def test_data_filters_of_a_flow_see_its_datagrams(make_street: MakeStreet) -> None:
    class Shouting(StreamFilter):
        def client_data(self, data: bytes) -> bytes:
            return data + b"!"

        def server_data(self, data: bytes) -> bytes:
            return data + b"?"

    async def bind(event: Any) -> None:
        event.connection.attach_data_filter(Shouting())

    street = make_street(entry(Plugin("it", [], bind=bind), events=EVENTS))
    house, machine = udp(street)
    client = street.datagrams()
    client.sendto(b"in", name_of(house))
    data, way = await receive(machine)
    assert data == b"in?"  # from outside: what a server is elsewhere
    machine.sendto(b"out", way)
    assert (await receive(client))[0] == b"out!"


async def test_a_filter_that_fails_costs_one_client_its_flow(make_street: MakeStreet) -> None:
    async def broken(internal: Any, external: Any, connection: Any) -> None:
        await external.recv_from()
        raise RuntimeError("oh")

    async def bind(event: Any) -> None:
        if event.connection.peer == ip_address("127.0.0.2"):
            event.connection.attach_data_filter(Pumping(broken))

    street = make_street(entry(Plugin("it", [], bind=bind), events=EVENTS))
    house, machine = udp(street)
    unlucky, other = street.datagrams("127.0.0.2"), street.datagrams("127.0.0.3")
    unlucky.sendto(b"x", name_of(house))
    (record,) = await street.records("udp")
    assert record.reason == "filter_failed"
    other.sendto(b"y", name_of(house))
    assert (await receive(machine))[0] == b"y"


async def test_one_address_may_have_so_many_flows_and_loses_one_unused(make_street: MakeStreet) -> None:
    street = make_street(limits=Limits(udp_mappings_per_client_max=2))
    house, machine = udp(street)
    clients = [street.datagrams("127.0.0.2") for _ in range(3)]
    neighbour = street.datagrams("127.0.0.3")
    for client in (neighbour, *clients):
        client.sendto(b"x", name_of(house))
        await receive(machine)
    (record,) = await street.records("udp")
    assert (record.end, record.address) == ("udp_mapping_evicted", "127.0.0.2")
    assert datagram_port(house).flows == 3
    neighbour.sendto(b"still here", name_of(house))
    assert (await receive(machine))[0] == b"still here"


async def test_the_table_has_a_cap(make_street: MakeStreet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagrams, "FLOWS_MAX", 2)
    street = make_street()
    house, machine = udp(street)
    for number in range(2, 12):
        street.datagrams(f"127.0.0.{number}").sendto(b"x", name_of(house))
        await receive(machine)
        assert datagram_port(house).flows <= 2
    assert {r.end for r in await street.records("udp", 8)} == {"udp_mapping_evicted"}


async def test_without_room_nobody_new_is_heard(make_street: MakeStreet) -> None:
    street = make_street()
    house, machine = udp(street)
    street.has_room = False
    client = street.datagrams()
    client.sendto(b"x", name_of(house))
    await wait_for(lambda: datagram_port(house).dropped == 1, "it was dropped")
    street.has_room = True
    client.sendto(b"y", name_of(house))
    assert (await receive(machine))[0] == b"y"


async def test_limits_count_each_client_by_itself(make_street: MakeStreet) -> None:
    street = make_street(limits=Limits(connects_per_minute_per_client_max=1))
    house, machine = udp(street)
    street.datagrams("127.0.0.2").sendto(b"first", name_of(house))
    assert (await receive(machine))[0] == b"first"
    street.datagrams("127.0.0.2").sendto(b"second", name_of(house))
    (record,) = await street.records("udp")
    assert record.reason == "client_connect_rate"
    street.datagrams("127.0.0.3").sendto(b"third", name_of(house))
    assert (await receive(machine))[0] == b"third"


async def test_a_machine_that_refuses_datagrams_hands_over_to_the_next(make_street: MakeStreet) -> None:
    street = make_street()
    machine, gone = street.datagrams(), street.datagrams()
    gone_port = gone.getsockname()[1]
    gone.close()
    house = street.house(gone_port, machine.getsockname()[1], transport="udp")
    client = street.datagrams()
    client.sendto(b"lost", name_of(house))
    (record,) = await street.records("udp")
    assert record.end == "connection_refused"
    assert street.changes == [(f"127.0.0.1:{gone_port}", "it refuses datagrams")]
    client.sendto(b"again", name_of(house))
    assert (await receive(machine))[0] == b"again"


async def test_when_probes_have_found_all_down_nothing_is_led_anywhere(make_street: MakeStreet) -> None:
    street = make_street()
    house, machine = udp(street)
    house.servers.down(house.servers.every[0], "probe")
    street.datagrams().sendto(b"x", name_of(house))
    (record,) = await street.records("udp")
    assert (record.action, record.reason) == ("fail", "servers_down")
    assert is_empty(machine)


async def test_a_socket_of_ours_is_nobodys_client(make_street: MakeStreet) -> None:
    street = make_street()
    house, machine = udp(street)
    client = street.datagrams()
    client.sendto(b"x", name_of(house))
    _, way = await receive(machine)  # a socket of the firewall's own
    assert street.rig.engine.udp.is_ours(way)
    assert street.rig.engine.udp.is_ours(name_of(house))
    other, other_machine = udp(street, name="other")
    lender = datagram_port(other)._socket
    assert lender is not None
    lender.send(b"round and round", name_of(house))
    await wait_for(lambda: datagram_port(house).dropped == 1, "it was dropped")
    assert is_empty(other_machine)
    other.end()
    house.end()
    assert not street.rig.engine.udp.is_ours(name_of(house))


async def test_closing_ends_every_flow(make_street: MakeStreet) -> None:
    street = make_street()
    house, machine = udp(street)
    client = street.datagrams()
    client.sendto(b"x", name_of(house))
    await receive(machine)
    house.close()
    (record,) = await street.records("udp")
    assert record.end == "closed"
    assert house.is_over


async def test_byte_limits_are_each_flows_own(make_street: MakeStreet) -> None:
    street = make_street(limits=Limits(bytes_max_per_direction=10))
    house, machine = udp(street)
    greedy, modest = street.datagrams("127.0.0.2"), street.datagrams("127.0.0.3")
    modest.sendto(b"12345", name_of(house))
    await receive(machine)
    greedy.sendto(b"1234567890", name_of(house))
    await receive(machine)
    greedy.sendto(b"x", name_of(house))
    (record,) = await street.records("udp")
    assert (record.end, record.address) == ("byte_limit", "127.0.0.2")
    modest.sendto(b"67890", name_of(house))
    assert (await receive(machine))[0] == b"67890"


async def test_a_flow_that_ends_while_it_is_opened_leaves_nothing_behind(
    make_street: MakeStreet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagrams, "REFUSAL_REMEMBERED_S", 0.05)
    ended = False

    async def bind(event: Any) -> None:
        nonlocal ended
        if not ended:
            ended = True
            street.rig.engine.ended(event.connection, End("connection_refused", Side.INTERNAL))

    street = make_street(entry(Plugin("it", [], bind=bind), events=EVENTS))
    house, machine = udp(street)
    client = street.datagrams()
    client.sendto(b"lost", name_of(house))
    await street.records("udp")
    await wait_for(lambda: datagram_port(house).flows == 0, "it is forgotten")
    client.sendto(b"again", name_of(house))
    assert (await receive(machine))[0] == b"again"


async def test_whose_flow_has_ended_is_counted_no_more(make_street: MakeStreet) -> None:
    street = make_street(limits=Limits(connections_per_client_max=1, udp_idle_timeout_s=0.05))
    house, machine = udp(street)
    client = street.datagrams()
    for count in range(1, 4):
        client.sendto(b"x", name_of(house))
        await receive(machine)
        await street.records("udp", count)
    assert {r.end for r in await street.records("udp", 3)} == {"idle_timeout"}


async def test_a_filter_for_the_published_port_hears_of_its_clients_whatever_port_they_have(
    make_street: MakeStreet,
) -> None:
    street = make_street()
    house, machine = udp(street)
    number = name_of(house)[1]
    plugin = Plugin("it", [])
    ports = (PortRange("udp", number, number),)
    concerned = FilterEntry("it", plugin, Interest.of(events=EVENTS), ports)
    street.rig.engine.ruling = street.rig.ruling([concerned])
    street.datagrams().sendto(b"x", name_of(house))
    await receive(machine)
    assert [kind for _, kind in plugin.heard] == ["bind", "udp_destination"]
