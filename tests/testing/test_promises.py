"""What a filter promises is kept for the test, which may use it, let it expire, and see what comes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.testing.conftest import MakeHarness
from tests.testing.plugins import Doing, Plugin, Upper

from doorward.api import (
    AccessDenied,
    BadArgument,
    Connection,
    ConnectionFlags,
    EventKind,
    IpFilter,
    NotSupported,
    Terminating,
)
from doorward.testing import Do, FilterHarness, Send

pytestmark = pytest.mark.anyio

SERVER = "198.51.100.1"


async def test_leave_to_connect_is_used_once(make_harness: MakeHarness) -> None:
    harness = make_harness()
    grant = harness.session.allow_connect(SERVER, 50000, last_port=50009)
    [given] = harness.grants
    assert (given.call, given.address, given.port, given.last_port) == ("allow_connect", SERVER, 50000, 50009)
    assert given.active
    connection = await given.use()
    assert connection.external_peer_name == (SERVER, 50000)
    assert ConnectionFlags.SECONDARY in connection.flags
    assert (grant.uses, grant.active, given.active) == (1, False, False)
    with pytest.raises(AccessDenied) as met:
        await given.use()
    assert met.value.reason == "bind_used"


async def test_the_holder_is_told_with_its_context(make_harness: MakeHarness) -> None:
    harness, plugin = make_harness(), Plugin()

    def connect(event: Any) -> None:
        holder = plugin.made[-1]
        event.connection.session.allow_connect(SERVER, 50000, multiple=True, holder=holder, context="data")

    plugin.handlers["connect"] = connect
    await harness.ask(plugin)
    [given] = harness.grants
    secondary = await given.use()
    assert plugin.heard == ["connect", "established"]
    assert (plugin.events[-1].connection, plugin.events[-1].context) == (secondary, "data")
    assert given.active


async def test_what_the_holder_raises_reaches_the_test(make_harness: MakeHarness) -> None:
    def established(event: Any) -> None:
        raise ZeroDivisionError("mine")

    harness, plugin = make_harness(), Plugin(established=established)
    await harness.ask(plugin)
    harness.session.allow_connect(SERVER, 50000, holder=plugin.made[-1])
    with pytest.raises(ZeroDivisionError):
        await harness.grants[0].use()


async def test_a_promise_ends_with_its_time_and_with_its_parent(make_harness: MakeHarness) -> None:
    harness, made = make_harness(), []

    def promise(connection: Connection) -> None:
        session = connection.session
        made.append(session.allow_connect(SERVER, 50000, parent=connection))
        made.append(session.allow_connect(SERVER, 50001, parent=connection))
        harness.grants[0].expire()
        assert [grant.active for grant in made] == [False, True]

    await harness.run(Doing(promise))
    assert [grant.active for grant in made] == [False, False]
    with pytest.raises(AccessDenied) as met:
        await harness.grants[1].use()
    assert met.value.reason == "bind_closed"


async def test_a_script_uses_what_was_promised_in_the_middle_of_a_conversation(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness()

    class Announced(Upper):
        def client_data(self, data: bytes) -> bytes:
            self.connection.session.allow_connect(SERVER, 50000, parent=self.connection)
            return data

    async def follow() -> None:
        while not harness.grants:  # noqa: ASYNC110 - the filter has no event of its own for it
            await asyncio.sleep(0)
        secondary = await harness.grants[0].use()
        assert secondary.external_peer_name == (SERVER, 50000)

    outcome = await harness.run(Announced(), client=[Send(b"pasv"), Do(follow)])
    assert outcome.end == "closed"
    assert harness.grants[0].grant is not None
    assert harness.grants[0].grant.uses == 1


async def test_who_may_arrive_is_decided_by_the_ip_filter(make_harness: MakeHarness) -> None:
    harness = make_harness()
    [listening] = await harness.session.bind_for_client(
        ("192.0.2.7", 4000), ip_filter=IpFilter(SERVER), multiple=True
    )
    [given] = harness.grants
    assert (given.leads_to, given.peers) == (("192.0.2.7", 4000), IpFilter(SERVER))
    assert (given.address, given.port) == listening.external_socket_name
    peer = await given.use((SERVER, 20))
    assert peer.external_peer_name == (SERVER, 20)
    with pytest.raises(AccessDenied) as met:
        await given.use(("203.0.113.66", 20))
    assert met.value.reason == "peer_not_admitted"
    listening.set_ip_filter(None)
    with pytest.raises(AccessDenied):
        await given.use((SERVER, 20))
    listening.kill()
    assert not given.active


async def test_a_port_for_one_peer_closes_behind_it(make_harness: MakeHarness) -> None:
    harness = make_harness()
    [listening] = await harness.session.bind_for_client(("192.0.2.7", 4000), ip_filter=IpFilter(SERVER))
    await harness.grants[0].use((SERVER, 20))
    with pytest.raises(AccessDenied) as met:
        await harness.grants[0].use((SERVER, 20))
    assert met.value.reason == "bind_used"
    with pytest.raises(Terminating):
        listening.set_ip_filter(None)
    assert harness.grants[0].connection is not None
    assert harness.grants[0].connection.end == ("closed", "ours")


async def test_a_datagram_port_is_used_by_its_peer(make_harness: MakeHarness) -> None:
    harness, plugin = make_harness(), Plugin()
    await harness.ask(plugin)
    [mapping] = await harness.session.bind_for_client(
        None, transport="udp", ip_filter=IpFilter(SERVER), holder=plugin.made[-1]
    )
    mapping.set_client_address(("192.0.2.7", 4000))
    [given] = harness.grants
    assert given.leads_to == ("192.0.2.7", 4000)
    with pytest.raises(AccessDenied):
        await given.use(("203.0.113.66", 20))
    assert await given.use((SERVER, 20)) is mapping
    assert plugin.heard == ["connect", "established"]


async def test_a_factory_is_there_to_be_called_and_cannot_be_used(make_harness: MakeHarness) -> None:
    harness = make_harness()
    harness.session.set_data_filter_factory(EventKind.ACCEPT, Upper, port=4000, multiple=True)
    [given] = harness.grants
    assert (given.event, given.address, given.port) == (EventKind.ACCEPT, "", 4000)
    assert given.factory is Upper
    with pytest.raises(NotSupported):
        await given.use()


async def test_the_engines_own_checks_hold(make_harness: MakeHarness) -> None:
    harness = make_harness()
    for address, port in (("127.0.0.1", 80), ("nowhere", 80), (SERVER, 0), ("192.0.2.254", 80)):
        with pytest.raises(BadArgument):
            harness.session.allow_connect(address, port)
    with pytest.raises(BadArgument):
        harness.session.allow_connect(SERVER, 80, timeout_s=None)
    assert harness.grants == []
    harness.session.end()
    with pytest.raises(Terminating):
        harness.session.allow_connect(SERVER, 80)


async def test_a_grant_is_a_context(make_harness: MakeHarness) -> None:
    harness: FilterHarness = make_harness()
    async with harness.session.allow_connect(SERVER, 50000):
        assert harness.grants[0].active
    assert not harness.grants[0].active
