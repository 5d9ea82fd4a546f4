"""A published TCP port: who may come, what filters hear, where it leads, and what the server is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from tests.engine.publishing.houses import Street, name_of, passes, stream_port
from tests.engine.rig import Plugin, descriptors, entry, wait_for

from doorward.api import ClientKind, ConnectionFlags, DataFilter, EventKind, IpFilter, Refuse
from doorward.config.model import Limits
from doorward.engine.association import FilterEntry

pytestmark = pytest.mark.anyio

MakeStreet = Callable[..., Street]
INBOUND = (EventKind.BIND, EventKind.LISTEN, EventKind.ACCEPT, EventKind.ESTABLISHED)
LOOPBACK = (ip_network("127.0.0.0/8"),)
PARTNERS = (ip_network("198.51.100.0/24"),)


def hearing(plugin: Plugin) -> FilterEntry:
    return entry(plugin, events=INBOUND)


async def test_a_visitor_is_led_to_the_server_and_both_are_on_record(make_street: MakeStreet) -> None:
    street = make_street()
    house = await street.open()
    visitor = street.visit(house)
    server = await street.came()
    await server.send(b"220 ready")  # the server may be the first to speak
    assert await visitor.exactly(9) == b"220 ready"
    await passes(visitor, server)
    visitor.end()
    assert await server.rest() == b""
    await server.send(b"bye")  # the other direction goes on
    server.end()
    assert await visitor.rest() == b"bye"
    (record,) = await street.records("accept")
    assert (record.action, record.reason, record.rule, record.entry) == (
        "allow",
        "published",
        "web",
        "publish",
    )
    assert (record.address, record.port) == visitor.sock.getsockname()
    assert (record.client_address, record.client_port) == ("127.0.0.1", street.rig.server.port)
    assert (record.bytes_sent, record.bytes_received, record.end) == (17, 5, "closed")
    house.end()
    (bound,) = await street.records("bind")
    assert (bound.reason, bound.rule, bound.port, bound.end) == (
        "published",
        "web",
        name_of(house)[1],
        "closed",
    )
    assert record.parent == bound.connection
    assert street.ended == []


@pytest.mark.parametrize("options", [{"sources": PARTNERS}, {"windows": ()}])
async def test_who_may_not_come_or_not_now_is_reset_and_the_server_hears_nothing(
    make_street: MakeStreet, options: dict[str, Any]
) -> None:
    street = make_street()
    house = await street.open(**options)
    visitor = street.visit(house)
    assert await visitor.is_reset()
    (record,) = await street.records("accept")
    assert (record.action, record.reason, record.rule) == ("deny", "peer_not_admitted", "web")
    assert (record.address, record.port) == visitor.sock.getsockname()
    assert street.rig.server.nobody_came()


async def test_filters_hear_of_the_port_and_of_each_visitor_before_the_server_does(
    make_street: MakeStreet,
) -> None:
    seen: list[Any] = []
    go_on = asyncio.Event()

    async def accept(event: Any) -> None:
        seen.append(event)
        await go_on.wait()

    plugin = Plugin("it", [], accept=accept)
    street = make_street(hearing(plugin))
    house = await street.open(protocol="https")
    visitor = street.visit(house)
    await visitor.send(b"too early")
    await wait_for(lambda: bool(seen), "the event")
    assert street.rig.server.nobody_came()
    go_on.set()
    server = await street.came()
    assert await server.exactly(9) == b"too early"
    (event,) = seen
    assert event.remote == visitor.sock.getsockname()
    assert (event.local, event.protocol) == (name_of(house), "https")
    assert event.connection.flags & ConnectionFlags.FULL_PROXY
    assert event.listening.external_socket_name == name_of(house)
    assert [kind for _, kind in plugin.heard] == ["bind", "listen", "accept", "established"]
    assert plugin.sessions == [house.session]


@pytest.mark.parametrize("how", ["denies", "refuses", "raises"])
async def test_a_filter_may_turn_a_visitor_away_before_the_server_hears_of_it(
    make_street: MakeStreet, how: str
) -> None:
    async def accept(event: Any) -> None:
        if how == "raises":
            raise RuntimeError("oh")
        if how == "refuses":
            raise Refuse("unwelcome")
        event.connection.deny("unwelcome")

    street = make_street(hearing(Plugin("it", [], accept=accept)))
    house = await street.open()
    assert await street.visit(house).is_reset()
    (record,) = await street.records("accept")
    assert record.reason == ("filter_failed" if how == "raises" else "unwelcome")
    assert street.rig.server.nobody_came()


async def test_data_filters_stand_between_the_server_inside_and_the_visitor_outside(
    make_street: MakeStreet,
) -> None:
    class Naming(DataFilter):
        async def pump(self, internal: Any, external: Any, connection: Any) -> None:
            await external.send(b"inside says " + await internal.recv())
            await internal.send(b"outside says " + await external.recv())

    async def accept(event: Any) -> None:
        event.connection.attach_data_filter(Naming())

    street = make_street(hearing(Plugin("it", [], accept=accept)))
    visitor = street.visit(await street.open())
    server = await street.came()
    await server.send(b"hello")
    assert await visitor.exactly(17) == b"inside says hello"
    await visitor.send(b"hi")
    assert await server.exactly(15) == b"outside says hi"
    await passes(visitor, server)  # it has seen enough


async def test_a_filter_is_concerned_by_its_clients_kind(make_street: MakeStreet) -> None:
    plugin = Plugin("it", [])
    street = make_street(entry(plugin, events=INBOUND, clients={ClientKind.SOCKS}))
    house = await street.open()
    street.visit(house)
    await street.came()
    assert plugin.heard == []


async def test_a_filter_may_narrow_who_comes(make_street: MakeStreet) -> None:
    async def bind(event: Any) -> None:
        event.connection.set_ip_filter(IpFilter("127.0.0.2"))

    street = make_street(hearing(Plugin("it", [], bind=bind)))
    house = await street.open()
    assert await street.visit(house, "127.0.0.1").is_reset()
    street.visit(house, "127.0.0.2")
    await street.came()


async def test_a_filter_that_denies_the_port_keeps_it_closed_and_the_operator_is_told(
    make_street: MakeStreet,
) -> None:
    async def bind(event: Any) -> None:
        event.connection.deny("not_here")

    street = make_street(hearing(Plugin("it", [], bind=bind)))
    house = street.house()
    await wait_for(lambda: bool(street.ended), "it was told")
    assert street.ended == ["not_here"]
    assert not stream_port(house).is_open


async def test_a_filter_may_be_the_port_itself_and_hand_over_visitors_of_its_own(
    make_street: MakeStreet,
) -> None:
    listening: list[Any] = []

    class Asking(DataFilter):
        async def pump(self, internal: Any, external: Any, connection: Any) -> None:
            await internal.send(b"question")
            assert await internal.recv() == b"answer"

    async def bind(event: Any) -> None:
        event.connection.emulate_for_bind()
        event.connection.set_socket_name(("192.0.2.1", 443))
        listening.append(event.connection)

    street = make_street(hearing(Plugin("it", [], bind=bind)))
    house = await street.open()
    assert street.waits_unheard(house)
    listening[0].emulate_connection(Asking(), ("198.51.100.7", 1), ("192.0.2.1", 443))
    server = await street.came()
    assert await server.exactly(8) == b"question"
    await server.send(b"answer")
    (record,) = await street.records("accept")
    assert (record.action, record.address) == ("allow", "198.51.100.7")


# Limits, and what goes wrong


async def test_limits_count_each_visitor_by_itself(make_street: MakeStreet) -> None:
    street = make_street(limits=Limits(connections_per_client_max=1))
    house = await street.open()
    first = street.visit(house, "127.0.0.2")
    server = await street.came()
    assert await street.visit(house, "127.0.0.2").is_reset()
    street.visit(house, "127.0.0.3")
    await street.came()
    first.reset()
    assert await server.is_reset()
    await wait_for(lambda: len(street.rig.recorder.records) >= 2, "it is over")
    again = street.visit(house, "127.0.0.2")
    await passes(again, await street.came())
    reasons = [r.reason for r in street.rig.recorder.records if r.operation == "accept"]
    assert reasons.count("client_connections") == 1


async def test_the_first_of_a_scan_are_told_and_the_rest_is_counted(
    make_street: MakeStreet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorward.engine.publishing.visitors.TOLD_A_MINUTE_MAX", 2)
    street = make_street()
    house = await street.open(sources=PARTNERS)
    for _ in range(5):
        assert await street.visit(house).is_reset()
    assert len(await street.records("accept", 2)) == 2


async def test_without_room_visitors_wait_in_the_kernel(make_street: MakeStreet) -> None:
    street = make_street()
    house = await street.open()
    street.has_room = False
    visitor = street.visit(house)
    await visitor.send(b"x")
    for _ in range(20):
        await asyncio.sleep(0)
    assert street.rig.server.nobody_came()
    street.has_room = True
    await street.came()


async def test_while_the_log_cannot_be_written_visitors_are_refused_and_the_port_stays(
    make_street: MakeStreet,
) -> None:
    street = make_street()
    street.rig.recorder.trouble = "disk full"
    house = await street.open()
    assert await street.visit(house).is_reset()
    (record,) = await street.records("accept")
    assert record.reason == "log_unavailable"
    street.rig.recorder.trouble = None
    street.visit(house)
    await street.came()


async def test_a_visitor_that_leaves_before_the_dial_costs_the_server_nothing(
    make_street: MakeStreet,
) -> None:
    go_on, started = asyncio.Event(), asyncio.Event()

    async def accept(event: Any) -> None:
        started.set()
        await go_on.wait()

    street = make_street(hearing(Plugin("it", [], accept=accept)))
    visitor = street.visit(await street.open())
    await started.wait()
    visitor.reset()
    (record,) = await street.records("accept")
    assert (record.action, record.reason) == ("fail", "reset")
    go_on.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert street.rig.server.nobody_came()


@pytest.mark.parametrize("who", ["server", "visitor"])
async def test_a_reset_is_carried_over(make_street: MakeStreet, who: str) -> None:
    street = make_street()
    visitor = street.visit(await street.open())
    server = await street.came()
    await passes(visitor, server)
    (one, other) = (server, visitor) if who == "server" else (visitor, server)
    one.reset()
    assert await other.is_reset()
    (record,) = await street.records("accept")
    assert (record.action, record.end) == ("allow", "reset")


async def test_who_is_through_goes_on_when_the_port_closes(make_street: MakeStreet) -> None:
    street = make_street()
    house = await street.open()
    visitor = street.visit(house)
    server = await street.came()
    await passes(visitor, server)
    street.give_up_addresses()
    house.close()
    assert street.refuses(house)
    await passes(visitor, server)
    assert not house.is_over
    house.end()
    assert await visitor.is_reset()


async def test_closing_resets_those_who_have_said_nothing_yet(make_street: MakeStreet) -> None:
    street = make_street()
    house = await street.open(headers_from=LOOPBACK)
    proxy = street.visit(house)
    await proxy.send(b"PROXY")
    for _ in range(10):
        await asyncio.sleep(0)
    house.close()
    assert await proxy.is_reset()
    assert not [r for r in street.rig.recorder.records if r.operation == "accept"]


async def test_one_that_is_closed_before_filters_were_told_leaves_no_socket(make_street: MakeStreet) -> None:
    street = make_street()
    before = descriptors()
    house = street.house()
    house.close()
    street.give_up_addresses()
    assert descriptors() <= before
    assert street.ended == []


async def test_a_port_that_a_filter_kills_is_told_to_the_operator(make_street: MakeStreet) -> None:
    street = make_street()
    house = await street.open()
    (listening,) = street.rig.engine.connections.values()
    listening.kill()
    assert street.ended == ["killed"]
    assert not stream_port(house).is_open
