"""Promises for data connections: who may come, and when a hole is closed."""

from __future__ import annotations

from ipaddress import ip_address
from typing import cast

import pytest
from tests.filters.ftp.rig import CLIENT, OURS, SERVER, FakeConnection, FakeSession

from doorward.api import Connection, OutOfResources
from doorward.filters.ftp.holes import HoleRefused, Holes
from doorward.wire.ftp import Endpoint

pytestmark = pytest.mark.anyio


@pytest.fixture
def session() -> FakeSession:
    return FakeSession(CLIENT)


def holes_of(session: FakeSession, server: str = SERVER) -> Holes:
    return Holes(cast(Connection, FakeConnection(session, server, OURS)))


def at(address: str, port: int = 5001) -> Endpoint:
    return Endpoint(ip_address(address), port)


def test_a_passive_hole_leads_to_the_server_and_the_next_one_closes_it(session: FakeSession) -> None:
    holes = holes_of(session)
    holes.passive(at(SERVER, 5001))
    assert session.open == [("connect", SERVER, 5001)]
    holes.passive(at(SERVER, 5002))
    assert session.open == [("connect", SERVER, 5002)]
    holes.close()
    holes.close()
    assert session.open == []


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        (at("198.51.100.2"), "ftp_bounce"),
        (at(CLIENT), "ftp_bounce"),
        (at("127.0.0.1"), "ftp_bounce"),
        (at(SERVER, 1023), "ftp_privileged_port"),
    ],
)
def test_a_passive_hole_leads_nowhere_else(session: FakeSession, endpoint: Endpoint, reason: str) -> None:
    holes = holes_of(session)
    holes.passive(at(SERVER))
    with pytest.raises(HoleRefused) as refused:
        holes.passive(endpoint)
    assert refused.value.reason == reason
    assert session.open == []


async def test_an_active_hole_leads_from_the_server_to_the_client(session: FakeSession) -> None:
    holes = holes_of(session)
    told = await holes.active(at(CLIENT))
    assert told == at(OURS, 40001)
    assert session.open == [("listen", (CLIENT, 5001), (SERVER,))]
    assert await holes.active(at(CLIENT, 5002)) == at(OURS, 40002)
    assert session.open == [("listen", (CLIENT, 5002), (SERVER,))]
    holes.close()
    assert session.open == []


async def test_a_port_that_the_client_had_us_bind_is_opened_to_the_server(session: FakeSession) -> None:
    holes = holes_of(session)
    session.bound.add((OURS, 41000))
    assert await holes.active(at(OURS, 41000)) == at(OURS, 41000)
    assert session.open == [("admit", (OURS, 41000), (SERVER,))]
    holes.close()
    assert session.open == []


@pytest.mark.parametrize("told", ["0.0.0.0", "127.0.0.1", "10.0.0.1", "::1"])
async def test_the_server_hears_our_address_as_it_sees_it_whatever_the_client_was_told(
    session: FakeSession, told: str
) -> None:
    """What the client knows a port by may be the server's own machine, or a stranger there."""
    holes = holes_of(session)
    session.bound.add((told, 41000))
    assert await holes.active(at(told, 41000)) == at(OURS, 41000)
    assert session.open == [("admit", (told, 41000), (SERVER,))]


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        (at("192.0.2.8"), "ftp_bounce"),
        (at(SERVER), "ftp_bounce"),
        (at(OURS, 41001), "ftp_bounce"),
        (at("::1"), "ftp_bounce"),
        (at(CLIENT, 1023), "ftp_privileged_port"),
    ],
)
async def test_an_active_hole_leads_nowhere_else(
    session: FakeSession, endpoint: Endpoint, reason: str
) -> None:
    holes = holes_of(session)
    with pytest.raises(HoleRefused) as refused:
        await holes.active(endpoint)
    assert refused.value.reason == reason
    assert session.promises == []


async def test_what_the_firewall_cannot_promise_is_refused_with_its_reason(session: FakeSession) -> None:
    holes = holes_of(session)
    session.error = OutOfResources("too many grants")
    for make in (holes.active(at(CLIENT)), _passive(holes)):
        with pytest.raises(HoleRefused) as refused:
            await make
        assert refused.value.reason == "out_of_resources"


async def _passive(holes: Holes) -> None:
    holes.passive(at(SERVER))


def test_an_ipv4_server_in_ipv6_clothes_is_that_server(session: FakeSession) -> None:
    holes_of(session, f"::ffff:{SERVER}").passive(at(SERVER))
    assert session.open == [("connect", SERVER, 5001)]
