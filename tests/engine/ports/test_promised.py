"""What a filter promises to peers of its choice: exactly that, while the promise is good, and nothing after."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.rig import LOCAL_RULE, Plugin, Rig, wait_for
from tests.engine.visits import CLIENT, Visits, hearing
from tests.engine.wires import Server

from doorward.api import (
    AccessDenied,
    AddressInUse,
    AlreadyExists,
    BadArgument,
    ConnectionFlags,
    NotSupported,
    OutOfResources,
    Scope,
    SessionFilter,
    Terminating,
)
from doorward.api.ip_filter import IpFilter
from doorward.config.model import Limits
from doorward.engine.connection import Connection
from doorward.engine.ports.free_port import reserve_run

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
PEER = IpFilter(CLIENT)


class Holder(SessionFilter):
    """Who has promised it."""

    def __init__(self) -> None:
        self.told: list[tuple[Connection, object]] = []

    async def on_established(self, event: Any) -> None:
        self.told.append((event.connection, event.context))


async def bind(here: Visits, client: Server, **options: Any) -> Connection:
    """One port that leads to the client's server."""
    options.setdefault("ip_filter", PEER)
    [listening] = await here.session.bind_for_client((CLIENT, client.port), address=CLIENT, **options)
    return listening


async def test_a_promised_peer_is_led_to_the_clients_own_address_though_no_rule_allows_it(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(rules=[LOCAL_RULE])
    here, holder = Visits(rig), Holder()
    parent = await rig.connect()
    listening = await bind(here, rig.another_server(), parent=parent, holder=holder, context="transfer")
    assert ConnectionFlags.SECONDARY in listening.flags
    name = listening.external_socket_name
    server = rig._closables[-1]
    assert isinstance(server, Server)
    peer = here.visit(name)
    client = rig.keep(await server.accept())
    await here.passes(peer, client)
    assert here.refuses(name)
    [(arrived, context)] = holder.told
    assert context == "transfer"
    assert arrived.flags == ConnectionFlags.SECONDARY | ConnectionFlags.FULL_PROXY
    peer.end()
    assert await client.rest() == b""
    client.end()
    bound, accepted = await here.record_of("bind"), await here.record_of("accept")
    assert (bound.reason, bound.rule, bound.parent, bound.end) == ("granted", "local", parent.id, "closed")
    assert (accepted.reason, accepted.rule, accepted.parent) == ("granted", "local", bound.connection)
    assert rig.engine.grants.alive == 0


async def test_nobody_is_admitted_before_it_is_said_who_may_come(make_rig: MakeRig) -> None:
    rig = make_rig()
    here, server = Visits(rig), rig.another_server()
    listening = await bind(here, server, ip_filter=None)
    assert await here.visit(listening.external_socket_name).is_reset()
    assert (await here.record_of("accept")).reason == "peer_not_admitted"
    listening.set_ip_filter(PEER)
    here.visit(listening.external_socket_name)
    rig.keep(await server.accept())


@pytest.mark.parametrize("how", ["timeout", "parent", "kill", "session"])
async def test_the_hole_closes_at_once_when_the_promise_ends(make_rig: MakeRig, how: str) -> None:
    rig = make_rig()
    here = Visits(rig)
    parent = await rig.connect() if how == "parent" else None
    timeout_s = 0.02 if how == "timeout" else 60.0
    listening = await bind(here, rig.another_server(), parent=parent, timeout_s=timeout_s)
    name = listening.external_socket_name
    if parent is not None:
        parent.kill()
    elif how == "kill":
        listening.kill()
    elif how == "session":
        rig.engine.close_session(here.session)
    bound = await here.record_of("bind")
    assert bound.end == ("killed" if how == "kill" else "grant_ended")
    assert here.refuses(name)
    assert rig.engine.grants.alive == 0
    assert rig.engine.arrivals.open == 0
    with pytest.raises(Terminating):
        _ = listening.external_socket_name


async def test_with_multiple_the_port_outlives_its_peers(make_rig: MakeRig) -> None:
    rig = make_rig()
    here, server, holder = Visits(rig), rig.another_server(), Holder()
    listening = await bind(here, server, multiple=True, holder=holder)
    for count in range(1, 4):
        peer = here.visit(listening.external_socket_name)
        client = rig.keep(await server.accept())
        await here.passes(peer, client)
        peer.close()
        assert await client.rest() == b""
        client.close()
        await here.record_of("accept", count)
    assert listening.end is None
    assert len(holder.told) == 3
    peer = here.visit(listening.external_socket_name)
    client = rig.keep(await server.accept())
    listening.kill()
    await here.passes(peer, client)  # who has come through lives on


async def test_a_run_of_ports_is_consecutive_and_each_leads_to_its_own(make_rig: MakeRig) -> None:
    rig = make_rig()
    here = Visits(rig)
    servers = consecutive(rig, 3)
    made = await here.session.bind_for_client(
        (CLIENT, servers[0].port), address=CLIENT, count=3, ip_filter=PEER
    )
    first = made[0].external_socket_name[1]
    assert [c.external_socket_name for c in made] == [(CLIENT, first + i) for i in range(3)]
    for listening, server in zip(made, servers, strict=True):
        peer = here.visit(listening.external_socket_name)
        await here.passes(peer, rig.keep(await server.accept()))


async def test_left_to_the_firewall_the_port_is_on_every_address_of_both_families(make_rig: MakeRig) -> None:
    rig = make_rig()
    here, server = Visits(rig), rig.another_server()
    [listening] = await here.session.bind_for_client(
        (CLIENT, server.port), ip_filter=IpFilter(CLIENT, "::1"), multiple=True
    )
    number = listening.external_socket_name[1]
    for address in (CLIENT, "::1"):
        peer = here.visit((address, number), address)
        await here.passes(peer, rig.keep(await server.accept()))
    arrived = [c for c in rig.engine.connections.values() if c is not listening]
    assert {c.external_peer_name[0] for c in arrived} == {CLIENT, "::1"}
    assert {c.external_socket_name for c in arrived} == {(CLIENT, number), ("::1", number)}


async def test_a_run_that_is_not_free_is_not_taken_in_part(make_rig: MakeRig) -> None:
    rig = make_rig()
    here = Visits(rig)
    taken = rig.another_server()
    with pytest.raises(AddressInUse):
        await here.session.bind_for_client((CLIENT, 4000), address=CLIENT, port=taken.port - 1, count=3)
    assert rig.engine.connections == {}
    assert rig.engine.grants.alive == 0


async def test_a_peer_may_come_before_the_clients_address_is_known(make_rig: MakeRig) -> None:
    rig = make_rig()
    here, server = Visits(rig), rig.another_server()
    [listening] = await here.session.bind_for_client(None, address=CLIENT, ip_filter=PEER)
    peer = here.visit(listening.external_socket_name)
    await wait_for(lambda: len(rig.engine.connections) == 2, "the peer waits")
    with pytest.raises(BadArgument):
        listening.set_client_address(("127.0.0.9", server.port))
    listening.set_client_address((CLIENT, server.port))
    await here.passes(peer, rig.keep(await server.accept()))
    with pytest.raises((AlreadyExists, Terminating)):
        listening.set_client_address((CLIENT, server.port))


async def test_who_waits_for_an_address_that_never_comes_is_reset_with_the_promise(make_rig: MakeRig) -> None:
    rig = make_rig()
    here = Visits(rig)
    [listening] = await here.session.bind_for_client(
        None, address=CLIENT, ip_filter=PEER, timeout_s=0.05, multiple=True
    )
    peers = [here.visit(listening.external_socket_name) for _ in range(3)]
    gone = here.visit(listening.external_socket_name)
    await wait_for(lambda: len(rig.engine.connections) == 5, "they wait")
    gone.reset()
    await wait_for(lambda: len(rig.engine.connections) == 4, "one did not wait any longer")
    assert all([await peer.is_reset() for peer in peers])
    assert (await here.record_of("accept", 4)).reason == "bind_closed"


async def test_a_client_that_does_not_listen_costs_the_peer_and_is_on_record(make_rig: MakeRig) -> None:
    rig = make_rig()
    here, server = Visits(rig), Server()
    server.close()
    listening = await bind(here, server)
    assert await here.visit(listening.external_socket_name).is_reset()
    refused = await here.record_of("accept")
    assert (refused.action, refused.reason, refused.end) == ("fail", "connection_refused", "refused")


async def test_filters_hear_of_it_as_secondary_and_may_deny_it(make_rig: MakeRig) -> None:
    seen: list[bool] = []

    async def deny(event: Any) -> None:
        seen.append(event.is_secondary)
        event.connection.deny("not_today")

    entries = [
        hearing(Plugin("primary", [], bind=deny), scope=Scope.PRIMARY),
        hearing(Plugin("secondary", [], bind=deny), scope=Scope.SECONDARY),
    ]
    rig = make_rig(*entries)
    here = Visits(rig)
    parent = await rig.connect()
    with pytest.raises(AccessDenied) as denied:
        await bind(here, rig.another_server(), parent=parent)
    assert denied.value.reason == "not_today"
    assert seen == [True]
    assert rig.engine.grants.alive == 0
    assert rig.engine.arrivals.open == 0


async def test_a_client_has_so_many_ports_and_no_more(make_rig: MakeRig) -> None:
    rig = make_rig(limits=Limits(binds_per_client_max=2))
    here, server = Visits(rig), rig.another_server()
    first = await bind(here, server)
    await bind(here, server)
    with pytest.raises(OutOfResources):
        await bind(here, server)
    assert (await here.record_of("bind")).reason == "out_of_resources"
    assert rig.engine.grants.alive == 2
    first.kill()
    await bind(here, server)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"count": 0}, BadArgument),
        ({"count": 65}, BadArgument),
        ({"port": -1}, BadArgument),
        ({"port": 65_535, "count": 2}, BadArgument),
        ({"address": "example.org"}, BadArgument),
        ({"address": "192.0.2.1"}, AddressInUse),
        ({"timeout_s": 0.0}, BadArgument),
        ({"timeout_s": None}, BadArgument),
        ({"ip_filter": CLIENT}, BadArgument),
        ({"transport": "sctp"}, BadArgument),
    ],
)
async def test_what_cannot_be_meant_is_refused_and_leaves_nothing(
    make_rig: MakeRig, options: dict[str, Any], error: type[Exception]
) -> None:
    rig = make_rig()
    here = Visits(rig)
    with pytest.raises(error):
        await here.session.bind_for_client((CLIENT, 4000), **options)
    assert rig.engine.connections == {}
    assert rig.engine.grants.alive == 0


@pytest.mark.parametrize("name", [("127.0.0.2", 4000), (CLIENT, 0), ("no address", 1), (CLIENT, 70_000)])
async def test_peers_are_led_to_the_client_itself_and_to_no_other(
    make_rig: MakeRig, name: tuple[str, int]
) -> None:
    with pytest.raises(BadArgument):
        await Visits(make_rig()).session.bind_for_client(name)


async def test_the_clients_address_can_be_given_only_where_peers_are_led_to_one(make_rig: MakeRig) -> None:
    rig = make_rig()
    connection = await rig.connect()
    with pytest.raises(NotSupported):
        connection.set_client_address((CLIENT, 4000))
    connection.kill()


async def test_cancelled_in_the_middle_it_leaves_nothing(make_rig: MakeRig) -> None:
    here_now = asyncio.Event()

    async def stay(event: Any) -> None:
        if len(rig.engine.connections) > 1:
            here_now.set()
            await asyncio.get_running_loop().create_future()

    rig = make_rig(hearing(Plugin("it", [], bind=stay), clients=["filter"]))
    here = Visits(rig)

    async def ask() -> None:
        await here.session.bind_for_client((CLIENT, 4000), address=CLIENT, count=3)

    asking = rig.start(ask())
    await here_now.wait()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert rig.engine.connections == {}
    assert rig.engine.grants.alive == 0


async def test_two_thousand_grants_leave_nothing(make_rig: MakeRig) -> None:
    rig = make_rig()
    here, server = Visits(rig), rig.another_server()
    for number in range(2000):
        listening = await bind(here, server)
        if number % 50 == 0:
            peer = here.visit(listening.external_socket_name)
            client = await server.accept()
            await here.passes(peer, client)
            client.close()
            peer.close()
        else:
            listening.kill()
    assert rig.engine.arrivals.open == 0
    assert rig.engine.grants.alive == 0


async def test_datagrams_of_a_promised_peer_reach_the_client_and_its_answers_go_back(
    make_rig: MakeRig,
) -> None:
    rig = make_rig()
    here = Visits(rig)
    client, peer, another = datagram_socket(), datagram_socket(), datagram_socket()
    try:
        [listening] = await here.session.bind_for_client(
            client.getsockname(), transport="udp", address=CLIENT, ip_filter=PEER
        )
        loop = asyncio.get_running_loop()
        await loop.sock_sendto(peer, b"hello", listening.external_socket_name)
        async with asyncio.timeout(8):
            data, source = await loop.sock_recvfrom(client, 100)
            assert data == b"hello"
            await loop.sock_sendto(client, b"answer", source)
            assert await loop.sock_recvfrom(peer, 100) == (b"answer", listening.external_socket_name)
        assert rig.engine.grants.alive == 0  # it was for one peer, which has come
        await loop.sock_sendto(another, b"me too", listening.external_socket_name)
        await loop.sock_sendto(peer, b"again", listening.external_socket_name)
        async with asyncio.timeout(8):
            assert await loop.sock_recvfrom(client, 100) == (b"again", source)
        listening.kill()
        assert "1 from strangers" in str((await here.record_of("udp")).detail)
    finally:
        for sock in (client, peer, another):
            sock.close()


async def test_a_mapping_that_nobody_has_used_ends_with_its_promise(make_rig: MakeRig) -> None:
    rig = make_rig()
    here = Visits(rig)
    [listening] = await here.session.bind_for_client(
        (CLIENT, 4000), transport="udp", address=CLIENT, ip_filter=PEER, timeout_s=0.02
    )
    await wait_for(lambda: not rig.engine.connections, "it has ended")
    assert listening.end is not None
    assert listening.end.how == "grant_ended"


async def test_a_run_of_datagram_ports(make_rig: MakeRig) -> None:
    rig = make_rig()
    here = Visits(rig)
    made = await here.session.bind_for_client((CLIENT, 4000), transport="udp", address=CLIENT, count=4)
    ports = [c.external_socket_name[1] for c in made]
    assert ports == list(range(ports[0], ports[0] + 4))
    assert rig.engine.grants.alive == 4
    for connection in made:
        connection.kill()
    assert rig.engine.grants.alive == 0


def consecutive(rig: Rig, count: int) -> list[Server]:
    """Servers of the client on consecutive ports."""
    servers = [rig.another_server() for _ in range(count)]
    for server, reservation in zip(servers, reserve_run("tcp", CLIENT, 0, count), strict=True):
        server.sock.close()
        server.sock, server.port = reservation.take(), reservation.name[1]
        server.sock.listen()
    return servers


def datagram_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind((CLIENT, 0))
    return sock
