"""The doors to what listens: filters' own ports, factories, and how many ports one client may have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.engine.filters import Copying
from tests.engine.rig import LOCAL_RULE, Plugin, Rig, wait_for
from tests.engine.visits import CLIENT, PEERS_RULE, RULES, Visits, hearing
from tests.engine.wires import Wire

from doorward.api import (
    AccessDenied,
    ClientKind,
    EventKind,
    OutOfResources,
)
from doorward.api.ip_filter import IpFilter
from doorward.config.model import Limits
from doorward.engine.connection import Connection
from doorward.engine.origin import Origin
from doorward.net.reservation import Reservation

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
SERVER = IpFilter(CLIENT)


def origin() -> Origin:
    return Origin("filter", ClientKind.FILTER, CLIENT, 0)


async def test_a_sockets_own_port_gives_each_peer_to_the_filter(make_rig: MakeRig) -> None:
    rig = make_rig(rules=[PEERS_RULE])
    here = Visits(rig)
    taken: list[Connection] = []
    listening = await rig.engine.arrivals.listen_for_socket(
        here.session, origin(), Reservation(CLIENT, 0), taken.append, backlog=4, ip_filter=SERVER
    )
    peers = [here.visit(listening.external_socket_name) for _ in range(2)]
    await wait_for(lambda: len(taken) == 2, "both were taken")
    for connection, peer in zip(taken, peers, strict=True):
        assert connection.opened
        assert connection.external is not None
        await connection.external.send(b"hello")
        assert await peer.exactly(5) == b"hello"
        connection.kill()
    listening.set_ip_filter(None)
    assert await here.visit(listening.external_socket_name).is_reset()
    listening.kill()


async def test_a_sockets_own_port_needs_a_rule_unless_it_is_the_firewalls(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []
    rig = make_rig(
        hearing(Plugin("it", heard), clients=list(ClientKind)),
        rules=[LOCAL_RULE],
        limits=Limits(connections_per_client_max=1),
    )
    here = Visits(rig)
    arrivals, taken = rig.engine.arrivals, list[Connection]()
    with pytest.raises(AccessDenied) as denied:
        await arrivals.listen_for_socket(
            here.session, origin(), Reservation(CLIENT, 0), taken.append, backlog=4, ip_filter=SERVER
        )
    assert denied.value.reason == "default_deny"
    listening = await arrivals.listen_for_socket(
        here.session,
        origin(),
        Reservation(CLIENT, 0),
        taken.append,
        backlog=4,
        ip_filter=SERVER,
        system="it",
    )
    here.visit(listening.external_socket_name)
    await wait_for(lambda: bool(taken), "it was taken")
    assert taken[0].decision.reason == "system_socket"
    assert heard == []
    assert arrivals.open == 0  # no client's limit is spent on it
    taken[0].kill()
    listening.kill()


async def test_a_socket_that_takes_no_more_resets_its_peers(make_rig: MakeRig) -> None:
    def take(connection: Connection) -> None:
        raise OutOfResources("the queue is full")

    rig = make_rig(rules=[PEERS_RULE])
    here = Visits(rig)
    listening = await rig.engine.arrivals.listen_for_socket(
        here.session, origin(), Reservation(CLIENT, 0), take, backlog=4, ip_filter=SERVER
    )
    assert await here.visit(listening.external_socket_name).is_reset()
    assert (await here.record_of("accept")).end == "out_of_resources"


async def test_a_factory_attaches_to_who_arrives_without_an_event(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES)
    here = Visits(rig)
    _, port = await here.open()
    made: list[Copying] = []

    def factory() -> Copying:
        made.append(Copying())
        return made[-1]

    here.session.set_data_filter_factory(EventKind.ACCEPT, factory, address=CLIENT, port=port.name[1])
    peer: Wire = here.visit(port.name)
    await here.passes(peer, await here.came())
    assert len(made) == 1
    assert rig.engine.grants.alive == 0


async def test_a_hundred_binds_of_one_client_are_too_many(make_rig: MakeRig) -> None:
    rig = make_rig(rules=RULES)
    here = Visits(rig)
    results = [await here.asked() for _ in range(100)]
    opened = [connection for connection, port in results if port is not None]
    assert len(opened) == rig.limits.binds_per_client_max
    refused = next(connection for connection, port in results if port is None)
    assert refused.refusal is not None
    assert refused.refusal.reason == "out_of_resources"
    for connection in opened:
        connection.kill()
    assert rig.engine.arrivals.open == 0
    await asyncio.sleep(0)
