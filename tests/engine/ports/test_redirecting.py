"""Ports toward the client that lead to targets of a filter's choice, for that client alone, while it is good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.rig import Plugin, Rig, entry, wait_for
from tests.engine.visits import CLIENT, Visits

from doorward.api import BadArgument, EventKind, OutOfResources, Scope, SessionFilter, Terminating
from doorward.config.model import Limits
from doorward.engine.connection import Connection

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


async def parent_of(rig: Rig, here: Visits) -> Connection:
    """A connection to the target's own address, which alone may be promised on loopback."""
    connection = await rig.connect(session=here.session)
    assert connection.refusal is None
    return connection


async def test_the_client_is_led_to_the_target_though_no_rule_allows_it(make_rig: MakeRig) -> None:
    told: list[object] = []

    class Holder(SessionFilter):
        async def on_established(self, event: Any) -> None:
            told.append(event.context)

    rig = make_rig()
    here, server = Visits(rig), rig.another_server()
    parent = await parent_of(rig, here)
    rig.engine.ruling = rig.ruling([], [])
    [grant] = await here.session.redirect_connections(
        [(CLIENT, server.port)], parent=parent, holder=Holder(), context="media"
    )
    assert grant.socket_name is not None
    client = here.visit(grant.socket_name)
    outer = rig.keep(await server.accept())
    await here.passes(outer, client)
    assert told == ["media"]
    assert (grant.active, grant.uses) == (False, 1)
    assert here.refuses(grant.socket_name)
    client.close()
    outer.close()
    record = await here.record_of("connect")
    assert (record.entry, record.reason, record.rule, record.parent) == (
        "redirect",
        "granted",
        "local",
        parent.id,
    )
    assert (record.address, record.port, record.client_port) == (CLIENT, server.port, record.client_port)


async def test_of_two_connections_at_once_one_is_promised(make_rig: MakeRig) -> None:
    rig = make_rig()
    here, server = Visits(rig), rig.another_server()
    parent = await parent_of(rig, here)
    [grant] = await here.session.redirect_connections([(CLIENT, server.port)], parent=parent)
    assert grant.socket_name is not None
    first, second = here.visit(grant.socket_name), here.visit(grant.socket_name)
    await here.passes(rig.keep(await server.accept()), first)
    assert await second.is_reset()
    assert (await here.record_of("connect")).reason == "bind_used"
    assert (grant.uses, server.nobody_came()) == (1, True)


async def test_nobody_else_is_let_in(make_rig: MakeRig) -> None:
    rig = make_rig()
    here, server = Visits(rig), rig.another_server()
    parent = await parent_of(rig, here)
    [grant] = await here.session.redirect_connections([(CLIENT, server.port)], parent=parent)
    assert grant.socket_name is not None
    for _ in range(9):
        assert await here.visit(grant.socket_name, "127.0.0.2").is_reset()
    assert [r.reason for r in rig.recorder.records] == ["peer_not_admitted"] * 3
    assert grant.active
    assert server.nobody_came()


@pytest.mark.parametrize("how", ["cancel", "timeout", "parent", "session"])
async def test_the_port_closes_with_the_grant(make_rig: MakeRig, how: str) -> None:
    rig = make_rig()
    here, server = Visits(rig), rig.another_server()
    parent = await parent_of(rig, here)
    timeout_s = 0.01 if how == "timeout" else 60.0
    [grant] = await here.session.redirect_connections(
        [(CLIENT, server.port)], parent=parent, timeout_s=timeout_s
    )
    assert grant.socket_name is not None
    if how == "cancel":
        grant.cancel()
    elif how == "parent":
        parent.kill()
    elif how == "session":
        rig.engine.close_session(here.session)
    await wait_for(lambda: not grant.active, "it has ended")
    assert here.refuses(grant.socket_name)
    assert rig.engine.arrivals.open == 0


async def test_targets_have_consecutive_ports_in_their_order_and_may_be_used_again(make_rig: MakeRig) -> None:
    rig = make_rig()
    here, servers = Visits(rig), [rig.another_server() for _ in range(3)]
    parent = await parent_of(rig, here)
    grants = await here.session.redirect_connections(
        [(CLIENT, s.port) for s in servers], parent=parent, multiple=True, address="127.0.0.3"
    )
    first = grants[0].socket_name
    assert first is not None
    assert [g.socket_name for g in grants] == [("127.0.0.3", first[1] + i) for i in range(3)]
    for _ in range(2):
        for grant, server in zip(grants, servers, strict=True):
            assert grant.socket_name is not None
            client = here.visit(grant.socket_name)
            await here.passes(rig.keep(await server.accept()), client)
    assert [g.uses for g in grants] == [2, 2, 2]


async def test_filters_hear_of_it_as_a_secondary_connection_and_may_deny_it(make_rig: MakeRig) -> None:
    async def deny(event: Any) -> None:
        if event.is_secondary:
            event.connection.deny("not_this")

    plugin = Plugin("it", [], connect=deny)
    rig = make_rig(entry(plugin, events=(EventKind.CONNECT,), scope=Scope.ANY))
    here, server = Visits(rig), rig.another_server()
    parent = await parent_of(rig, here)
    [grant] = await here.session.redirect_connections([(CLIENT, server.port)], parent=parent)
    assert grant.socket_name is not None
    assert await here.visit(grant.socket_name).is_reset()
    assert (await here.record_of("connect")).reason == "not_this"
    assert server.nobody_came()


async def test_a_target_that_is_guarded_or_no_target_at_all_is_refused_and_leaves_nothing(
    make_rig: MakeRig,
) -> None:
    rig = make_rig()
    here = Visits(rig)
    none: list[tuple[str, int]] = []
    second_is_bad = [("192.0.2.1", 80), ("no address", 80)]
    for targets in (none, [(CLIENT, 80)], second_is_bad, [("192.0.2.1", 0)], [("192.0.2.1", 1)] * 65):
        with pytest.raises(BadArgument):
            await here.session.redirect_connections(targets, address=CLIENT)
    assert rig.engine.grants.alive == 0
    assert rig.engine.arrivals.open == 0


async def test_ports_toward_the_client_count_as_its_own(make_rig: MakeRig) -> None:
    rig = make_rig(limits=Limits(binds_per_client_max=2))
    here = Visits(rig)
    with pytest.raises(OutOfResources):
        await here.session.redirect_connections([("192.0.2.1", 80)] * 3, address=CLIENT)
    assert rig.engine.grants.alive == 0
    assert rig.engine.arrivals.open == 0


async def test_after_the_sessions_end_nothing_is_promised(make_rig: MakeRig) -> None:
    rig = make_rig()
    here = Visits(rig)
    rig.engine.close_session(here.session)
    with pytest.raises(Terminating):
        await here.session.redirect_connections([("192.0.2.1", 80)])
