"""Application filters are told of every event as the engine tells them, and the test hears what they made of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.testing.conftest import MakeHarness
from tests.testing.plugins import Echo, Plugin, Upper

from doorward.api import (
    AlreadyEmulated,
    ApplicationFilter,
    BadContext,
    ConnectionFlags,
    EventKind,
    FilterFailed,
    FilterStalled,
    IpFilter,
    NotConnected,
    Refuse,
)
from doorward.testing import Asked, ConversationBroken, Expect, Send

pytestmark = pytest.mark.anyio


async def test_what_was_done_on_a_connect_is_told(make_harness: MakeHarness) -> None:
    def connect(event: Any) -> None:
        event.connection.attach_data_filter(Upper(), context="c")
        event.connection.note("too_old", "plugin")
        event.connection.set_ip_filter(IpFilter("192.0.2.0/24"))
        event.connection.emulate_for_connect(Echo())

    asked = await make_harness().ask(Plugin(connect=connect))
    assert [(type(f), f.context) for f in asked.attached] == [(Upper, "c")]
    assert isinstance(asked.emulator, Echo)
    assert (asked.denied, asked.notes) == (None, ("too_old",))
    assert asked.connection.flags is ConnectionFlags.EMULATED
    assert asked.connection.ip_filter == IpFilter("192.0.2.0/24")


async def test_calls_are_legal_where_the_engine_says_so(make_harness: MakeHarness) -> None:
    def connect(event: Any) -> None:
        connection = event.connection
        with pytest.raises(NotConnected):
            _ = connection.external_peer_name
        with pytest.raises(BadContext):
            connection.emulate_for_bind()
        connection.emulate_for_connect(Echo())
        with pytest.raises(AlreadyEmulated):
            connection.emulate_for_connect(Echo())

    asked = await make_harness().ask(Plugin(connect=connect))
    with pytest.raises(BadContext):
        asked.connection.attach_data_filter(Upper())
    with pytest.raises(BadContext):
        asked.connection.deny()


@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), Refuse("no_more")])
async def test_what_a_handler_raises_reaches_the_test(make_harness: MakeHarness, error: Exception) -> None:
    def connect(event: Any) -> None:
        raise error

    with pytest.raises(type(error)) as met:
        await make_harness().ask(Plugin(connect=connect))
    assert met.value is error


async def test_a_handler_that_does_not_come_back_is_told(make_harness: MakeHarness) -> None:
    async def connect(event: Any) -> None:
        await asyncio.Event().wait()

    with pytest.raises(FilterStalled):
        await make_harness(timeout_s=0.02).ask(Plugin(connect=connect))


async def test_settings_of_a_rule_lie_over_the_filters_own_and_are_compiled(
    make_harness: MakeHarness,
) -> None:
    class Compiled(Plugin):
        def compile_settings(self, settings: Any) -> object:
            return sorted(settings.items())

    harness, plugin = make_harness(), Compiled({"a": 1, "b": 2})
    await harness.ask(plugin)
    await harness.ask(plugin, settings={"b": 3})
    assert [event.settings for event in plugin.events] == [[("a", 1), ("b", 2)], [("a", 1), ("b", 3)]]


async def test_a_session_has_one_object_of_a_filter(make_harness: MakeHarness) -> None:
    harness, plugin = make_harness(), Plugin()
    await harness.ask(plugin)
    await harness.ask_bind(plugin)
    assert len(plugin.made) == 1


async def test_a_filter_is_not_asked_about_what_it_would_not_hear_of(make_harness: MakeHarness) -> None:
    class Default(Plugin):
        interest = ApplicationFilter.interest

    with pytest.raises(ConversationBroken, match="names connect, and not bind"):
        await make_harness().ask_bind(Default())


async def test_a_bind_is_told_and_then_that_it_listens(make_harness: MakeHarness) -> None:
    plugin = Plugin()
    asked = await make_harness().ask_bind(plugin, port=6000)
    assert plugin.heard == ["bind", "listen"]
    assert (plugin.events[0].port, plugin.events[1].port) == (6000, 6000)
    assert asked.connection.external_socket_name == ("192.0.2.254", 6000)


async def test_a_denied_bind_does_not_listen(make_harness: MakeHarness) -> None:
    plugin = Plugin(bind=lambda event: event.connection.deny("not_here"))
    asked = await make_harness().ask_bind(plugin)
    assert (asked.denied, plugin.heard) == ("not_here", ["bind"])


async def test_an_emulated_bind_needs_a_name_and_hands_over_peers(make_harness: MakeHarness) -> None:
    def bind(event: Any) -> None:
        event.connection.emulate_for_bind()
        event.connection.set_socket_name(("203.0.113.5", 7000))

    harness = make_harness()
    with pytest.raises(FilterFailed, match="set_socket_name"):
        await harness.ask_bind(Plugin(bind=lambda event: event.connection.emulate_for_bind()))
    asked = await harness.ask_bind(Plugin(bind=bind))
    assert asked.connection.external_socket_name == ("203.0.113.5", 7000)
    peer = asked.connection.emulate_connection(Echo(), ("198.51.100.9", 5), ("203.0.113.5", 7000))
    assert peer.external_peer_name == ("198.51.100.9", 5)
    assert harness.handed_over == [peer]
    outcome = await harness.run(connection=harness.handed_over[0], client=[Send(b"x"), Expect(b"x")])
    assert outcome.end == "closed"


async def test_a_udp_bind_may_attach_for_one_peer(make_harness: MakeHarness) -> None:
    def bind(event: Any) -> None:
        event.connection.attach_data_filter(Upper())
        event.connection.attach_data_filter_with_destination(Echo(), ("198.51.100.9", 53))

    asked = await make_harness().ask_bind(Plugin(bind=bind), "udp")
    assert [type(f) for f in asked.attached] == [Upper]
    assert {n: [type(f) for f in fs] for n, fs in asked.attached_for.items()} == {
        ("198.51.100.9", 53): [Echo]
    }


async def test_who_arrives_may_be_attached_to_or_denied(make_harness: MakeHarness) -> None:
    harness = make_harness()
    plugin = Plugin(accept=lambda event: event.connection.attach_data_filter(Upper()))
    asked = await harness.ask_accept(plugin, ("198.51.100.9", 20))
    assert [type(f) for f in asked.attached] == [Upper]
    assert plugin.events[0].remote == asked.connection.external_peer_name == ("198.51.100.9", 20)
    denying = Plugin(accept=lambda event: event.connection.deny("stranger"))
    bound = await harness.ask_bind(denying)
    assert (await harness.ask_accept(denying, listening=bound.connection)).denied == "stranger"
    assert denying.events[-1].listening is bound.connection


async def test_datagrams_to_a_destination_may_be_dropped_or_looked_into(make_harness: MakeHarness) -> None:
    harness = make_harness(host=None, address="198.51.100.1", port=53)
    plugin = Plugin(udp_destination=lambda event: event.connection.attach_data_filter(Upper()))
    asked = await harness.ask_udp_destination(plugin)
    assert [type(f) for f in asked.attached] == [Upper]
    destination = plugin.events[0].destination
    assert (destination.host, destination.address, destination.port) == (None, "198.51.100.1", 53)
    with pytest.raises(BadContext):
        destination.deny()
    denied = await harness.ask_udp_destination(Plugin(udp_destination=lambda e: e.destination.deny("no_dns")))
    assert denied.denied == "no_dns"


async def test_a_look_up_is_told_before_and_after(make_harness: MakeHarness) -> None:
    harness = make_harness(names={"a.test": ["198.51.100.5"]})
    plugin = Plugin()
    assert await harness.ask_resolve(plugin, name="a.test") == Asked(results=("198.51.100.5",))
    assert [event.before for event in plugin.events] == [True, False]
    answering = Plugin(resolve=lambda event: event.set_result("203.0.113.9"))
    assert (await harness.ask_resolve(answering, name="b.test")).results == ("203.0.113.9",)
    denying = Plugin(resolve=lambda event: event.deny("secret_name"))
    assert (await harness.ask_resolve(denying, name="a.test")).denied == "secret_name"
    assert (await harness.ask_resolve(plugin, address="198.51.100.5")).results == ("a.test",)


async def test_what_a_look_up_handler_raises_reaches_the_test(make_harness: MakeHarness) -> None:
    def resolve(event: Any) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError):
        await make_harness().ask_resolve(Plugin(resolve=resolve), name="server.example")


async def test_one_connection_is_told_of_from_its_beginning_to_its_end(make_harness: MakeHarness) -> None:
    harness, plugin = make_harness(), Plugin()
    asked = await harness.ask(plugin)
    await harness.established(plugin, asked.connection)
    assert asked.connection.external_peer_name == ("192.0.2.1", 80)
    grant = harness.session.allow_connect("198.51.100.1", 50000, parent=asked.connection)
    await harness.terminating(plugin, asked.connection, bytes_sent=5, bytes_received=7, end="idle_timeout")
    assert plugin.heard == ["connect", "established", "terminating"]
    assert len({event.connection.id for event in plugin.events}) == 1
    last = plugin.events[-1]
    assert (last.bytes_sent, last.bytes_received, last.end) == (5, 7, "idle_timeout")
    assert not grant.active


async def test_what_a_handler_raises_at_the_end_reaches_the_test(make_harness: MakeHarness) -> None:
    def terminating(event: Any) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError):
        await make_harness().terminating(Plugin(terminating=terminating))


async def test_a_factory_attaches_where_it_was_promised(make_harness: MakeHarness) -> None:
    harness, plugin = make_harness(), Plugin()
    harness.session.set_data_filter_factory(EventKind.CONNECT, Upper, address="192.0.2.1", port=80)
    first, second = await harness.ask(plugin), await harness.ask(plugin)
    assert [type(f) for f in first.attached] == [Upper]
    assert second.attached == ()
    assert [given.active for given in harness.grants] == [False]


async def test_a_connection_that_was_promised_is_secondary(make_harness: MakeHarness) -> None:
    harness, plugin = make_harness(host=None, address="198.51.100.1", port=50000), Plugin()
    harness.session.allow_connect("198.51.100.1", 50000)
    first, second = await harness.ask(plugin), await harness.ask(plugin)
    assert [event.is_secondary for event in plugin.events] == [True, False]
    assert (first.connection.decision.reason, second.connection.decision.reason) == ("granted", "rule_allow")


async def test_who_arrives_where_a_filter_listens_is_secondary(make_harness: MakeHarness) -> None:
    harness, plugin = make_harness(), Plugin()
    await harness.session.bind_for_client(("192.0.2.7", 4000), ip_filter=IpFilter("198.51.100.1"))
    await harness.ask_accept(plugin, listening=harness.grants[0].connection)
    await harness.ask_accept(plugin)
    assert [event.is_secondary for event in plugin.events] == [True, False]
