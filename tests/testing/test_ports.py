"""Calls that listen are checked as in the engine, and leave connections and promises behind, without a socket."""

from __future__ import annotations

import pytest
from tests.testing.conftest import MakeHarness
from tests.testing.plugins import Echo

from doorward.api import (
    AccessDenied,
    AddressInUse,
    AlreadyExists,
    BadArgument,
    BadContext,
    ConnectionFlags,
    IpFilter,
    NotEmulated,
    NotFound,
    NotSupported,
    OutOfResources,
)
from doorward.testing import Expect, Send

pytestmark = pytest.mark.anyio

CLIENT = "192.0.2.7"
SERVER = "198.51.100.1"


async def test_a_run_of_ports_leads_to_a_run_of_the_clients(make_harness: MakeHarness) -> None:
    harness = make_harness()
    run = await harness.session.bind_for_client((CLIENT, 4000), count=3, ip_filter=IpFilter(SERVER))
    ports = [connection.external_socket_name[1] for connection in run]
    assert ports == [ports[0], ports[0] + 1, ports[0] + 2]
    assert [given.leads_to for given in harness.grants] == [(CLIENT, 4000), (CLIENT, 4001), (CLIENT, 4002)]


async def test_a_port_is_taken_until_it_is_closed(make_harness: MakeHarness) -> None:
    session = make_harness().session
    [first] = await session.bind_for_client((CLIENT, 4000), port=6000)
    with pytest.raises(AddressInUse):
        await session.bind_for_client((CLIENT, 4000), port=6000)
    first.kill()
    [again] = await session.bind_for_client((CLIENT, 4000), port=6000)
    assert again.external_socket_name == ("192.0.2.254", 6000)


async def test_a_run_that_cannot_be_had_as_a_whole_leaves_nothing(make_harness: MakeHarness) -> None:
    harness = make_harness()
    most = 256
    for port in range(most - 1):
        harness.session.allow_connect(SERVER, 50000 + port)
    with pytest.raises(OutOfResources):
        await harness.session.bind_for_client((CLIENT, 4000), count=2)
    assert [given.active for given in harness.grants[most - 1 :]] == [False]


@pytest.mark.parametrize(
    ("client", "options"),
    [
        ((SERVER, 4000), {}),
        ((CLIENT, 0), {}),
        ((CLIENT, 4000), {"count": 0}),
        ((CLIENT, 65535), {"count": 2}),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    make_harness: MakeHarness, client: tuple[str, int], options: dict[str, int]
) -> None:
    with pytest.raises(BadArgument):
        await make_harness().session.bind_for_client(client, count=options.get("count", 1))


async def test_the_clients_address_is_said_once(make_harness: MakeHarness) -> None:
    harness = make_harness()
    [listening] = await harness.session.bind_for_client(None)
    before = harness.grants[0].leads_to
    listening.set_client_address((CLIENT, 4000))
    assert (before, harness.grants[0].leads_to) == (None, (CLIENT, 4000))
    with pytest.raises(AlreadyExists):
        listening.set_client_address((CLIENT, 4000))
    with pytest.raises(NotSupported):
        harness.client_has_bound("203.0.113.1", 6000).set_client_address((CLIENT, 4000))


async def test_a_port_that_the_client_has_bound_can_be_promised(make_harness: MakeHarness) -> None:
    harness = make_harness()
    with pytest.raises(NotFound):
        harness.session.retroactive_allow_bind("tcp", ("203.0.113.1", 6000), ip_filter=IpFilter(SERVER))
    bound = harness.client_has_bound("203.0.113.1", 6000)
    grant = harness.session.retroactive_allow_bind(
        "tcp", ("203.0.113.1", 6000), ip_filter=IpFilter(SERVER), parent=bound
    )
    [given] = harness.grants
    assert (given.address, given.port, given.peers) == ("203.0.113.1", 6000, IpFilter(SERVER))
    with pytest.raises(AccessDenied):
        await given.use(("203.0.113.66", 20))
    assert (await given.use((SERVER, 20))).external_peer_name == (SERVER, 20)
    assert (grant.uses, grant.active) == (1, False)
    with pytest.raises(NotFound):
        harness.session.retroactive_allow_bind("tcp", ("203.0.113.1", 6000), ip_filter=IpFilter(SERVER))


async def test_who_is_not_admitted_any_more_may_not_come(make_harness: MakeHarness) -> None:
    harness = make_harness()
    harness.client_has_bound("203.0.113.1", 6000)
    harness.session.retroactive_allow_bind("tcp", ("203.0.113.1", 6000), ip_filter=IpFilter(SERVER))
    harness.grants[0].expire()
    with pytest.raises(AccessDenied):
        await harness.grants[0].use((SERVER, 20))


async def test_an_expired_promise_admits_nobody_whom_policy_does_not(make_harness: MakeHarness) -> None:
    harness = make_harness()
    harness.client_has_bound("203.0.113.1", 6000).set_ip_filter(IpFilter.everybody())
    harness.session.retroactive_allow_bind("tcp", ("203.0.113.1", 6000), ip_filter=IpFilter(SERVER))
    harness.grants[0].expire()
    with pytest.raises(AccessDenied):
        await harness.grants[0].use((SERVER, 20))


async def test_a_port_is_found_by_whose_it_is_alone(make_harness: MakeHarness) -> None:
    harness = make_harness()
    harness.client_has_bound("203.0.113.1", 6000)
    stranger = harness.firewall.create_private_session(CLIENT)
    with pytest.raises(NotFound):
        stranger.retroactive_allow_bind("tcp", ("203.0.113.1", 6000), ip_filter=IpFilter(SERVER))


async def test_a_redirection_leads_to_its_target(make_harness: MakeHarness) -> None:
    harness = make_harness()
    made = await harness.session.redirect_connections([(SERVER, 554), (SERVER, 555)])
    names = [grant.socket_name for grant in made]
    assert names == [("192.0.2.254", 40001), ("192.0.2.254", 40002)]
    assert [given.leads_to for given in harness.grants] == [(SERVER, 554), (SERVER, 555)]
    assert (await harness.grants[1].use()).external_peer_name == (SERVER, 555)
    assert [grant.active for grant in made] == [True, False]
    with pytest.raises(BadArgument):
        await harness.session.redirect_connections([])
    with pytest.raises(BadArgument):
        await harness.session.redirect_connections([(SERVER, 554), ("127.0.0.1", 22)])
    assert [given.active for given in harness.grants] == [True, False]
    assert len(harness.session.promises) == 1


async def test_peers_of_an_emulated_bind_are_handed_to_the_test(make_harness: MakeHarness) -> None:
    harness = make_harness()
    bind = await harness.session.emulate_client_bind((CLIENT, 4000), ("203.0.113.1", 80), full_proxy=True)
    [given] = harness.grants
    assert (given.address, given.port, given.leads_to) == ("203.0.113.1", 80, (CLIENT, 4000))
    assert ConnectionFlags.EMULATED in bind.flags
    assert ConnectionFlags.FULL_PROXY in bind.flags
    with pytest.raises(BadContext):
        bind.set_ip_filter(IpFilter(SERVER))
    for port in (1, 2):
        bind.emulate_connection(Echo(), (SERVER, port), ("203.0.113.1", 80))
    assert [peer.external_peer_name for peer in harness.handed_over] == [(SERVER, 1), (SERVER, 2)]
    for peer in harness.handed_over:
        outcome = await harness.run(connection=peer, client=[Send(b"hi"), Expect(b"hi")])
        assert (outcome.end, peer.bytes_sent, peer.bytes_received) == ("closed", 2, 2)
    assert given.active
    given.expire()
    assert not given.active


async def test_only_an_emulated_bind_takes_peers(make_harness: MakeHarness) -> None:
    [listening] = await make_harness().session.bind_for_client((CLIENT, 4000))
    with pytest.raises(NotEmulated):
        listening.emulate_connection(Echo(), (SERVER, 1), (CLIENT, 1))


async def test_a_client_hears_all_that_an_emulator_has_said_before_the_end(make_harness: MakeHarness) -> None:
    harness = make_harness()
    bind = await harness.session.emulate_client_bind((CLIENT, 4000), ("203.0.113.1", 80))
    peer = bind.emulate_connection(Echo(), (SERVER, 1), ("203.0.113.1", 80))
    assert peer is harness.handed_over[0]
    outcome = await harness.run(connection=harness.handed_over[0], client=[Send(b"a"), Expect(b"a")])
    assert outcome.client_received == b"a"
    again = await make_harness().run(emulator=Echo(), client=[Send(b"b"), Expect(b"b")])
    assert (again.end, again.server_received) == ("closed", b"")
