"""Who may come through an open port: whom the IP filter and policy admit, or a promise, and nobody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from tests.engine.rig import LOCAL_RULE, Plugin, Rig, entry, wait_for
from tests.engine.visits import CLIENT, PEERS_RULE, RULES, Visits, hearing

from doorward.api import (
    ConnectionFlags,
    EventKind,
    NotFound,
    Scope,
)
from doorward.api.ip_filter import IpFilter
from doorward.config.model import Upstream
from doorward.engine.connection import Connection
from doorward.net.upstream.ways import Ways
from doorward.policy.model import Action, Rule
from doorward.policy.routes import Route, Routes

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
SERVER = IpFilter(CLIENT)
STRANGERS = Rule(
    "strangers",
    Action.DENY,
    to_networks=(ip_network("127.0.0.9/32"),),
    ports=PEERS_RULE.ports,
)


async def test_who_was_not_announced_is_reset_and_the_port_waits_on(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []
    rig = make_rig(hearing(Plugin("it", heard)), rules=RULES)
    here = Visits(rig)
    _, port = await here.open()
    stranger = here.visit(port.name, "127.0.0.2")
    assert await stranger.is_reset()
    assert ("it", "accept") not in heard
    turned_away = await here.record_of("accept")
    assert (turned_away.action, turned_away.reason, turned_away.address) == (
        "deny",
        "peer_not_admitted",
        "127.0.0.2",
    )
    here.visit(port.name)
    await here.came()
    assert heard[:3] == [("it", "bind"), ("it", "listen"), ("it", "accept")]


async def test_a_port_scan_is_counted_and_does_not_fill_the_log(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES)
    here = Visits(rig)
    connection, port = await here.open()
    for _ in range(40):
        assert await here.visit(port.name, "127.0.0.2").is_reset()
    connection.kill()
    await here.record_of("accept", 3)
    bound = await here.record_of("bind")
    assert (bound.end, bound.detail) == ("killed", "peers turned away: 40")


async def test_a_port_for_anybody_judges_each_who_comes(make_rig: MakeRig) -> None:
    rig = make_rig(rules=[PEERS_RULE])
    here = Visits(rig)
    connection, port = await here.open(None)
    assert connection.decision.reason == "judged_on_arrival"
    rig.engine.ruling = rig.ruling([], [LOCAL_RULE])  # a reload has taken the rule away
    assert await here.visit(port.name).is_reset()
    assert (await here.record_of("accept")).reason == "guarded_loopback"
    rig.engine.ruling = rig.ruling([], RULES)
    here.visit(port.name)
    await here.came()


async def test_who_is_reached_through_an_upstream_cannot_come_straight_to_us(make_rig: MakeRig) -> None:
    rig = make_rig(rules=[PEERS_RULE])
    here = Visits(rig)
    _, port = await here.open(None)
    far = Rule("far", Action.ALLOW, to_networks=(ip_network("127.0.0.2/32"),))
    corp = Upstream("corp", "socks5", ip_address("127.0.0.1"), 1)
    routes = Routes([Route(far, ("corp",))])
    ways = Ways(rig.poller, rig.resolver, routes, {"corp": corp})
    rig.engine.ruling = replace(rig.ruling([], [PEERS_RULE]), ways=ways)
    assert await here.visit(port.name, "127.0.0.2").is_reset()
    turned_away = await here.record_of("accept")
    assert (turned_away.action, turned_away.reason) == ("deny", "upstream_no_bind")
    here.visit(port.name)
    await here.came()


async def test_a_filter_narrows_whom_the_port_admits_and_cannot_widen_it(make_rig: MakeRig) -> None:
    async def narrow(event: Any) -> None:
        event.connection.set_ip_filter(IpFilter("127.0.0.3"))

    rig = make_rig(hearing(Plugin("it", [], bind=narrow)), rules=RULES)
    here = Visits(rig)
    connection, port = await here.open()
    assert await here.visit(port.name).is_reset()
    connection.set_ip_filter(None)
    assert await here.visit(port.name, "127.0.0.3").is_reset()
    connection.set_ip_filter(IpFilter.everybody())
    rig.engine.ruling = rig.ruling([], [LOCAL_RULE])
    assert await here.visit(port.name, "127.0.0.3").is_reset()  # policy has its say, whoever is admitted
    assert [r.reason for r in rig.recorder.records] == [
        "peer_not_admitted",
        "peer_not_admitted",
        "guarded_loopback",
    ]


async def provisional(make_rig: MakeRig, *more: Any) -> tuple[Rig, Visits, Connection]:
    """A client that is connected to the server, with a filter that has joined; no rule lets the server come."""
    rig = make_rig(hearing(Plugin("ftp", []), EventKind.CONNECT), *more, rules=[LOCAL_RULE])
    here = Visits(rig)
    return rig, here, await rig.connect(session=here.session)


async def test_what_no_rule_allows_is_bound_for_the_peer_of_a_filtered_connection_with_nobody_admitted(
    make_rig: MakeRig,
) -> None:
    _, here, control = await provisional(make_rig)
    listening, port = await here.open()
    assert (listening.decision.reason, listening.decision.rule) == ("provisional", "local")
    assert listening.ip_filter == IpFilter()
    assert await here.visit(port.name).is_reset()
    listening.set_ip_filter(IpFilter.everybody())
    assert await here.visit(port.name).is_reset()  # a filter cannot widen what policy says
    control.kill()


async def test_without_such_a_connection_or_filter_it_is_refused(make_rig: MakeRig) -> None:
    for entries, connect in (([], True), ([hearing(Plugin("ftp", []), EventKind.CONNECT)], False)):
        rig = make_rig(*entries, rules=[LOCAL_RULE])
        here = Visits(rig)
        control = await rig.connect(session=here.session) if connect else None
        connection, port = await here.asked()
        assert port is None
        assert connection.refusal is not None
        assert connection.refusal.reason == "guarded_loopback"
        if control is not None:
            control.kill()


async def test_what_a_rule_denies_is_not_bound_provisionally(make_rig: MakeRig) -> None:
    never = Rule("never", Action.DENY, ports=PEERS_RULE.ports)
    rig = make_rig(hearing(Plugin("ftp", []), EventKind.CONNECT), rules=[never, LOCAL_RULE])
    here = Visits(rig)
    control = await rig.connect(session=here.session)
    connection, port = await here.asked()
    assert port is None
    assert connection.refusal is not None
    assert (connection.refusal.reason, connection.refusal.rule) == ("rule_deny", "never")
    control.kill()


async def test_neither_another_sessions_connection_nor_a_filter_that_knows_nothing_of_binds_will_do(
    make_rig: MakeRig,
) -> None:
    rig, here, control = await provisional(make_rig)
    connection, port = await Visits(rig, "127.0.0.2").asked()
    assert port is None
    assert connection.refusal is not None
    control.kill()
    rig.engine.ruling = rig.ruling(
        [entry(Plugin("other", [])), hearing(Plugin("later", []), scope=Scope.SECONDARY)], [LOCAL_RULE]
    )
    control = await rig.connect(session=here.session)
    assert control.joined
    connection, port = await here.asked()
    assert port is None
    control.kill()


async def test_a_filter_admits_the_server_afterwards_and_once(make_rig: MakeRig) -> None:
    rig, here, control = await provisional(make_rig)
    listening, port = await here.open()
    grant = here.session.retroactive_allow_bind("tcp", port.name, ip_filter=SERVER, parent=control)
    assert grant.active
    assert grant.socket_name == port.name
    assert await here.visit(port.name, "127.0.0.2").is_reset()
    peer = here.visit(port.name)
    await here.passes(peer, await here.came())
    assert (grant.active, grant.uses) == (False, 1)
    arrived = here.delivered[0]
    assert ConnectionFlags.SECONDARY in arrived.flags
    assert (arrived.decision.reason, arrived.decision.rule) == ("granted", "local")
    assert listening.end is not None
    assert rig.engine.grants.alive == 0


@pytest.mark.parametrize("how", ["cancelled", "expired", "parent"])
async def test_with_the_grant_the_admission_ends_and_the_port_waits_on(make_rig: MakeRig, how: str) -> None:
    _, here, control = await provisional(make_rig)
    _, port = await here.open()
    grant = here.session.retroactive_allow_bind(
        "tcp", port.name, ip_filter=SERVER, parent=control, timeout_s=0.01 if how == "expired" else 60.0
    )
    if how == "cancelled":
        grant.cancel()
    elif how == "parent":
        control.kill()
    await wait_for(lambda: not grant.active, "the grant has ended")
    assert await here.visit(port.name).is_reset()
    again = here.session.retroactive_allow_bind("tcp", port.name, ip_filter=SERVER)
    here.visit(port.name)
    await here.came()
    assert not again.active


async def test_a_grant_that_goes_while_its_peer_is_in_the_event_closes_the_hole(make_rig: MakeRig) -> None:
    grants: list[Any] = []

    async def accept(event: Any) -> None:
        grants[0].cancel()

    _, here, control = await provisional(make_rig, hearing(Plugin("late", [], accept=accept)))
    _, port = await here.open()
    grants.append(here.session.retroactive_allow_bind("tcp", port.name, ip_filter=SERVER, parent=control))
    assert await here.visit(port.name).is_reset()
    assert (await here.record_of("accept")).reason == "bind_closed"


async def test_who_is_admitted_already_needs_no_grant(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES)
    here = Visits(rig)
    _, port = await here.open()
    assert not here.session.retroactive_allow_bind("tcp", port.name, ip_filter=SERVER).active
    wider = here.session.retroactive_allow_bind("tcp", port.name, ip_filter=IpFilter("127.0.0.0/24"))
    assert wider.active
    here.visit(port.name, "127.0.0.9")
    await here.came()


async def test_only_a_port_of_this_sessions_own_can_be_allowed(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES)
    here, other = Visits(rig), Visits(rig, "127.0.0.2")
    _, port = await other.open()
    session = here.session
    with pytest.raises(NotFound):
        session.retroactive_allow_bind("tcp", port.name, ip_filter=SERVER)
    with pytest.raises(NotFound):
        session.retroactive_allow_bind("tcp", (CLIENT, 1), ip_filter=SERVER)
    _, own = await here.open()
    somebody = rig.engine.sessions.get(CLIENT, "kim")  # at the same address
    with pytest.raises(NotFound):
        somebody.retroactive_allow_bind("tcp", own.name, ip_filter=SERVER)
    with pytest.raises(NotFound):
        session.retroactive_allow_bind("udp", port.name, ip_filter=SERVER)
    [promised] = await session.bind_for_client((CLIENT, 4000), address=CLIENT)
    with pytest.raises(NotFound):
        session.retroactive_allow_bind("tcp", promised.external_socket_name, ip_filter=SERVER)
    assert rig.engine.grants.alive == 1


async def test_a_port_for_anybody_is_none_for_whom_policy_refuses_and_a_grant_makes_it_one(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(rules=[STRANGERS, PEERS_RULE])
    here = Visits(rig)
    _, port = await here.open(None)
    name = (CLIENT, port.name[1])
    assert await here.visit(name, "127.0.0.9").is_reset()
    grant = here.session.retroactive_allow_bind("tcp", name, ip_filter=IpFilter("127.0.0.9"))
    assert grant.active
    here.visit(name, "127.0.0.9")
    await here.came()


async def test_with_the_port_what_was_promised_for_it_is_over(make_rig: MakeRig) -> None:
    rig, here, control = await provisional(make_rig)
    listening, port = await here.open()
    grant = here.session.retroactive_allow_bind("tcp", port.name, ip_filter=SERVER, parent=control)
    listening.kill()
    assert not grant.active
    assert rig.engine.grants.alive == 0
