"""A port that is open on a client's behalf: who may come, how often, and what is left when it is over."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.filters import Copying
from tests.engine.rig import Plugin, Rig, wait_for
from tests.engine.visits import RULES, Visits, hearing

from doorward.api import DataFilter, EventKind, Refuse
from doorward.config.model import Limits
from doorward.engine.connection import Connection

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


async def test_a_peer_is_led_to_the_client_and_the_port_is_closed_behind_it(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES)
    here = Visits(rig)
    listening, port = await here.open()
    peer = here.visit(port.name)
    client = await here.came()
    assert here.refuses(port.name)
    await here.passes(peer, client)
    arrived = here.delivered[0]
    assert arrived is not listening
    assert arrived.extra.parent is listening
    assert arrived.external_peer_name == peer.sock.getsockname()
    assert arrived.external_socket_name == port.name
    peer.end()
    assert await client.rest() == b""
    client.end()
    bound, accepted = await here.record_of("bind"), await here.record_of("accept")
    assert (bound.action, bound.reason, bound.rule, bound.end) == ("allow", "rule_allow", "peers", "closed")
    assert (bound.address, bound.port) == ("127.0.0.1", port.name[1])
    assert (accepted.address, accepted.port) == peer.sock.getsockname()
    assert (accepted.action, accepted.end, accepted.parent) == ("allow", "closed", bound.connection)
    assert (accepted.bytes_sent, accepted.bytes_received) == (5, 5)


@pytest.mark.parametrize("how", ["denies", "refuses", "raises"])
async def test_a_filter_that_does_not_want_the_peer_has_it_reset_and_the_port_waits_on(
    make_rig: MakeRig, how: str
) -> None:
    wanted = False

    async def accept(event: Any) -> None:
        if wanted:
            return
        if how == "raises":
            raise RuntimeError("oh")
        if how == "refuses":
            raise Refuse("unwelcome")
        event.connection.deny("unwelcome")

    plugin = Plugin("it", [], accept=accept)
    rig = make_rig(hearing(plugin), rules=RULES)
    here = Visits(rig)
    _, port = await here.open()
    assert await here.visit(port.name).is_reset()
    refused = await here.record_of("accept")
    assert refused.reason == ("filter_failed" if how == "raises" else "unwelcome")
    await wait_for(lambda: len(plugin.ends) == 1, "it hears of the end")
    wanted = True
    peer = here.visit(port.name)
    await here.passes(peer, await here.came())


async def test_data_filters_of_the_event_stand_between_peer_and_client(make_rig: MakeRig) -> None:
    copying = Copying()

    async def accept(event: Any) -> None:
        event.connection.attach_data_filter(copying)

    rig = make_rig(hearing(Plugin("it", [], accept=accept)), rules=RULES)
    here = Visits(rig)
    _, port = await here.open()
    peer = here.visit(port.name)
    await here.passes(peer, await here.came())
    assert here.delivered[0].chain_scope is not None  # it is being carried here, by the filter


async def test_once_it_is_carried_a_reset_is_an_end_and_no_refusal(make_rig: MakeRig) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()

    class Deaf(DataFilter):
        async def pump(self, internal: Any, external: Any, connection: Any) -> None:
            started.set()
            await go_on.wait()

    async def accept(event: Any) -> None:
        event.connection.attach_data_filter(Deaf())

    rig = make_rig(hearing(Plugin("it", [], accept=accept)), rules=RULES)
    here = Visits(rig)
    _, port = await here.open()
    peer = here.visit(port.name)
    await started.wait()
    peer.reset()
    for _ in range(9):
        await asyncio.sleep(0)
    go_on.set()
    record = await here.record_of("accept")
    assert (record.action, record.end) == ("allow", "reset")


async def test_of_two_who_come_at_once_one_is_led_to_the_client_and_the_other_is_reset(
    make_rig: MakeRig,
) -> None:
    both = asyncio.Event()
    arrived: list[Connection] = []

    async def accept(event: Any) -> None:
        arrived.append(event.connection)
        if len(arrived) == 2:
            both.set()
        await both.wait()

    rig = make_rig(hearing(Plugin("it", [], accept=accept)), rules=RULES)
    here = Visits(rig)
    _, port = await here.open()
    peers = [here.visit(port.name), here.visit(port.name)]
    await here.came()
    refused = await here.record_of("accept")
    assert (refused.action, refused.reason) == ("deny", "bind_used")
    loser = next(p for p in peers if p.sock.getsockname() == (refused.address, refused.port))
    assert await loser.is_reset()
    assert len(here.clients) == 1


async def test_a_peer_that_resets_during_its_event_leaves_nothing_and_the_port_waits_on(
    make_rig: MakeRig,
) -> None:
    here_now, go_on = asyncio.Event(), asyncio.Event()

    async def accept(event: Any) -> None:
        here_now.set()
        await go_on.wait()

    rig = make_rig(hearing(Plugin("it", [], accept=accept)), rules=RULES)
    here = Visits(rig)
    _, port = await here.open()
    peer = here.visit(port.name)
    await here_now.wait()
    peer.reset()
    await wait_for(lambda: len(rig.engine.connections) == 1, "its connection is over at once")
    go_on.set()
    assert (await here.record_of("accept")).reason == "reset"
    here.visit(port.name)
    await here.came()


async def test_nobody_comes_in_time(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES, limits=Limits(bind_timeout_s=0.05))
    here = Visits(rig)
    _, port = await here.open()
    bound = await here.record_of("bind")
    assert (bound.action, bound.end, bound.ended_by) == ("allow", "timed_out", "external")
    assert here.refuses(port.name)
    assert port.over.is_set()


@pytest.mark.parametrize("state", ["bind", "listen", "open", "accept"])
async def test_it_may_be_killed_in_every_state(make_rig: MakeRig, state: str) -> None:
    async def kill(event: Any) -> None:
        getattr(event, "listening", event.connection).kill()

    rig = make_rig(hearing(Plugin("it", [], **{state: kill} if state != "open" else {})), rules=RULES)
    here = Visits(rig)
    connection, port = await here.asked()
    if state in ("bind", "listen"):
        assert (await here.record_of("bind")).reason == "killed"
        assert port is None
        return
    assert port is not None
    if state == "open":
        connection.kill()
    else:
        assert await here.visit(port.name).is_reset()
        assert (await here.record_of("accept")).reason == "bind_closed"
    assert (await here.record_of("bind")).end == "killed"
    assert here.refuses(port.name)
    await wait_for(port.over.is_set, "everything about it is over")


async def test_a_deny_in_on_listen_is_not_legal(make_rig: MakeRig) -> None:
    async def deny(event: Any) -> None:
        event.connection.deny()

    rig = make_rig(hearing(Plugin("it", [], listen=deny)), rules=RULES)
    connection, _ = await Visits(rig).asked()
    assert connection.refusal is not None
    assert connection.refusal.reason == "bad_context"


async def test_peers_beyond_those_in_their_events_wait_in_the_kernel(make_rig: MakeRig) -> None:
    go_on = asyncio.Event()
    arrived: list[Connection] = []

    async def accept(event: Any) -> None:
        arrived.append(event.connection)
        await go_on.wait()
        event.connection.deny()

    rig = make_rig(hearing(Plugin("it", [], accept=accept)), rules=RULES)
    here = Visits(rig)
    _, port = await here.open()
    peers = [here.visit(port.name) for _ in range(12)]
    await wait_for(lambda: len(arrived) == 12, "all of them")
    peers += [here.visit(port.name) for _ in range(12)]
    await wait_for(lambda: len(arrived) == 16, "as many as there is room for")
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(arrived) == 16
    go_on.set()
    assert all([await peer.is_reset() for peer in peers])
    assert len(arrived) == 24


async def test_limits_of_the_client_hold_for_who_arrives(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES, limits=Limits(connections_per_client_max=1))
    here = Visits(rig)
    _, port = await here.open()
    assert await here.visit(port.name).is_reset()
    assert (await here.record_of("accept")).reason == "client_connections"


async def test_established_is_told_when_both_legs_stand(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []
    rig = make_rig(hearing(Plugin("it", heard), EventKind.ESTABLISHED), rules=RULES)
    here = Visits(rig)
    _, port = await here.open()
    peer = here.visit(port.name)
    client = await here.came()
    await here.passes(peer, client)
    assert [kind for _, kind in heard] == [
        "bind",
        "listen",
        "accept",
        "established",
        "terminating",
    ]  # of the port


async def test_a_client_that_cannot_be_reached_costs_the_peer_and_is_on_record(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES)
    here = Visits(rig)

    async def deliver(connection: Connection) -> Any:
        raise Refuse("nobody_home")

    here.deliver = deliver  # type: ignore[method-assign]  # as a front end whose client has gone
    _, port = await here.open()
    assert await here.visit(port.name).is_reset()
    assert (await here.record_of("accept")).reason == "nobody_home"


async def test_a_reset_is_passed_on_both_ways(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES)
    here = Visits(rig)
    _, port = await here.open()
    peer = here.visit(port.name)
    client = await here.came()
    await here.passes(peer, client)
    peer.reset()
    assert await client.is_reset()
    assert (await here.record_of("accept")).end == "reset"


async def test_two_thousand_ports_leave_nothing(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES)
    here = Visits(rig)
    for number in range(2000):
        connection, port = await here.open()
        if number % 50 == 0:
            peer = socket.create_connection(port.name)
            await here.came(number // 50 + 1)
            peer.close()
            here.clients[-1].close()
        else:
            connection.kill()
    assert rig.engine.arrivals.open == 0
