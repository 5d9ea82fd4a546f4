"""What filters, the log and the limits have to say about peers that come by a promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.rig import LOOPBACK, Plugin, Rig, entry, wait_for
from tests.engine.udp.expecting import HERE, World, promised
from tests.engine.udp.rig import Far, begin, hearing

from doorward.api import (
    Connection,
    DataFilter,
    EventKind,
    NotConnected,
    Scope,
    Socket,
    StreamFilter,
    UpstreamNoUdp,
)
from doorward.config.model import Limits
from doorward.engine.association import FilterEntry
from doorward.engine.ruling import Ruling
from doorward.engine.udp.destination import AT_DESTINATION
from doorward.policy.model import Action, PortRange, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


async def test_filters_hear_of_such_a_peer_by_scope_as_of_what_it_was_promised_for(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []
    told: list[Any] = []

    async def tell(event: Any) -> None:
        told.append((event.destination.port, event.protocol, event.is_secondary))

    def on(port: int, name: str, scope: Scope) -> FilterEntry:
        plugin = Plugin(name, heard, udp_destination=tell)
        interest = entry(plugin, events=(EventKind.UDP_DESTINATION,), scope=scope).interest
        return FilterEntry(name, plugin, interest, (PortRange("udp", port, port),), frozenset())

    server = Far()
    number = server.name[1]
    others = [
        on(number, "secondary", Scope.SECONDARY),
        on(number, "any", Scope.ANY),
        on(9, "else", Scope.ANY),
    ]
    world = await promised(make_rig, *others, near=server)
    assert heard == [("any", "udp_destination")]
    assert told == [(number, "chat", False)]
    peer = world.udp.far()
    await world.comes(peer)
    assert heard[1:] == [("secondary", "udp_destination"), ("any", "udp_destination")]
    assert told[1:] == [(peer.name[1], "chat", True)] * 2


async def test_a_filter_can_deny_such_a_peer_and_no_datagram_of_it_is_heard(make_rig: MakeRig) -> None:
    async def deny(event: Any) -> None:
        assert event.is_secondary
        event.destination.deny("not_that_one")

    plugin = Plugin("second", [], udp_destination=deny)
    second = entry(plugin, events=(EventKind.UDP_DESTINATION,), scope=Scope.SECONDARY)
    world = await promised(make_rig, second, multiple=True)
    peer = world.udp.far()
    for _ in range(3):
        peer.send(b"hello", world.ours)
    await wait_for(lambda: world.udp.mapping.dropped == 3, "all are dropped")
    record = world.udp.record_of(peer.target)
    assert (record.action, record.reason, record.parent) == (
        "deny",
        "not_that_one",
        world.udp.connection.id,
    )
    assert world.udp.client.heard == []
    assert world.grant.uses == 1


async def test_what_a_filter_has_denied_before_stays_denied(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []

    async def deny(event: Any) -> None:
        event.destination.deny()

    peer = Far()
    plugin = Plugin("second", heard, udp_destination=deny)
    second = FilterEntry(
        "second", plugin, entry(plugin, events=(EventKind.UDP_DESTINATION,), scope=Scope.ANY).interest
    )
    world = await promised(make_rig, near=Far())
    udp = world.udp
    udp.keep(peer)
    udp.rig.engine.ruling = udp.rig.ruling((second,), [Rule("all", Action.ALLOW, to_networks=LOOPBACK)])
    udp.say(b"x", peer.target)
    await udp.settle(udp.mapping.memory.get(peer.target))
    peer.send(b"y", world.ours)
    await wait_for(lambda: udp.mapping.dropped == 2, "both are dropped")
    assert heard == [("second", "udp_destination")]
    assert world.grant.active


async def test_who_promised_is_told_once_that_it_came_true(make_rig: MakeRig) -> None:
    contexts: list[object] = []

    async def established(event: Any) -> None:
        contexts.append(event.context)

    plugin = Plugin("holder", [], established=established)
    own = entry(plugin, events=(EventKind.UDP_DESTINATION,))
    world = await promised(make_rig, own)
    session = world.udp.connection.session
    world.grant.cancel()
    grant = session.retroactive_allow_bind(
        "udp",
        world.udp.connection.external_socket_name,
        ip_filter=HERE,
        holder=session.filter_of(own),
        context="mine",
    )
    await World(world.udp, world.server, [grant]).comes(world.udp.far())
    assert contexts == ["mine"]


async def test_while_the_log_cannot_be_written_nobody_comes(make_rig: MakeRig) -> None:
    world = await promised(make_rig, multiple=True)
    world.udp.rig.recorder.trouble = "the disk is full"
    peer = world.udp.far()
    for count in (1, 2):
        peer.send(b"hello", world.ours)
        await wait_for(lambda: world.udp.mapping.dropped == count, "it is dropped")  # noqa: B023 - waited for here
    assert world.udp.record_of(peer.target).reason == "log_unavailable"


async def test_where_the_way_leads_through_an_upstream_nobody_comes_directly(make_rig: MakeRig) -> None:
    class Ways:
        def expect_direct(self, inputs: object) -> None:
            raise UpstreamNoUdp("no datagrams", upstream="corp")

    world = await promised(make_rig)
    engine = world.udp.rig.engine
    ruling = engine.ruling
    engine.ruling = Ruling(ruling.policy, ruling.associations, ruling.limits, Ways())  # type: ignore[arg-type]
    peer = world.udp.far()
    peer.send(b"hello", world.ours)
    await wait_for(lambda: world.udp.mapping.dropped == 1, "it is dropped")
    assert world.udp.record_of(peer.target).reason == "upstream_no_udp"


async def test_who_comes_counts_like_a_new_destination(make_rig: MakeRig) -> None:
    world = await promised(make_rig)
    limits = Limits(connects_per_minute_per_client_max=1)
    engine = world.udp.rig.engine
    engine.ruling = Ruling(engine.ruling.policy, engine.ruling.associations, limits)
    world.udp.say(b"x", world.udp.far().target)
    await world.is_a_stranger(world.udp.far())
    assert world.grant.active


@pytest.mark.parametrize("where", ["handler", "pump", "stream"])
async def test_our_own_name_is_that_toward_the_destination_at_work(make_rig: MakeRig, where: str) -> None:
    told: list[tuple[str, int]] = []

    class Pump(DataFilter):
        async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
            told.append(connection.external_socket_name)

    class Stream(StreamFilter):
        def client_data(self, data: bytes) -> bytes:
            told.append(self.connection.external_socket_name)
            return data

    async def tell(event: Any) -> None:
        if where == "handler":
            told.append(event.connection.external_socket_name)
        else:
            event.connection.attach_data_filter(Pump() if where == "pump" else Stream())

    async def bind(event: Any) -> None:
        with pytest.raises(NotConnected):
            _ = event.connection.external_socket_name

    udp = await begin(make_rig(hearing([], udp_destination=tell, bind=bind)))
    sources = []
    for host in ("127.0.0.1", "::1"):
        far = udp.far(host)
        udp.say(b"x", far.target)
        sources.append((await far.receive())[1][1])
        if where == "stream":
            udp.say(b"y", far.target)
            assert AT_DESTINATION.get() is None
            assert told.pop() == told[-1]
    assert told == [("0.0.0.0", sources[0]), ("::", sources[1])]
    assert udp.connection.external_socket_name == told[0]
    assert AT_DESTINATION.get() is None
