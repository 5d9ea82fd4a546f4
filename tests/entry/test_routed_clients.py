"""Who a client is, and what it has asked for under other addresses of its own."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from tests.entry.routed import NotOurs, settings
from tests.entry.world import World, world

from doorward.api.filters import ClientKind
from doorward.engine.publishing.visitors import TOLD_A_MINUTE_MAX
from doorward.entry import routed_clients
from doorward.entry.routed_clients import FOREIGN_SOURCE, LOOP, OWN_PORT, RoutedClients

pytestmark = pytest.mark.anyio

CLIENT, SIXTH = ("198.51.100.7", 4000), ("2001:db8::7", 4000, 0, 0)
SERVER = ip_address("203.0.113.1")
NETWORKS = (ip_network("198.51.100.0/24"), ip_network("2001:db8::/64"))


def clients(here: World, **changes: object) -> RoutedClients:
    engine = here.firewall.engine
    engine.own_addresses = NotOurs("198.51.100.1")  # type: ignore[assignment]
    return RoutedClients(engine, settings(**({"networks": NETWORKS} | changes)), lambda: True)


async def test_a_client_is_its_address() -> None:
    async with world() as here:
        found = clients(here)
        assert found.origin_of(CLIENT) == ("transparent", ClientKind.CAPTURED, *CLIENT, None)
        first, second = found.session_of(CLIENT), found.session_of((CLIENT[0], 1))
        assert first is second
        assert (first.client_address, first.user) == (CLIENT[0], None)
        assert found.session_of(SIXTH) is not first


@pytest.mark.parametrize(
    ("client", "address", "port", "reason"),
    [
        (CLIENT, "203.0.113.1", 1081, None),
        (SIXTH, "2001:db8:1::1", 80, None),
        (CLIENT, "198.51.100.1", 80, None),  # the guard's, and not ours to refuse
        (CLIENT, "198.51.100.1", 1081, OWN_PORT),
        (("192.0.2.9", 1), "203.0.113.1", 80, FOREIGN_SOURCE),
        (("198.51.100.1", 1), "203.0.113.1", 80, LOOP),
        (("fe80::1%lo", 1, 0, 1), "203.0.113.1", 80, FOREIGN_SOURCE),
    ],
)
async def test_who_is_served(client: tuple[str, int], address: str, port: int, reason: str | None) -> None:
    async with world() as here:
        assert clients(here).are_to_be_served(client, ip_address(address), port, "tcp") is (reason is None)
        assert [record.reason for record in here.records] == ([] if reason is None else [reason])


async def test_of_many_that_are_refused_some_are_on_record_and_the_rest_is_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as here:
        found = clients(here)
        for _ in range(TOLD_A_MINUTE_MAX + 5):
            assert not found.are_to_be_served(("192.0.2.9", 1), SERVER, 80, "udp")
        assert len(here.records) == TOLD_A_MINUTE_MAX
        monkeypatch.setattr("doorward.engine.publishing.visitors.MINUTE_S", 0.0)
        found.are_to_be_served(("192.0.2.9", 1), SERVER, 80, "udp")
        assert here.records[-1].detail == "5 more were refused within the minute before"


async def test_the_source_is_kept_for_some_destinations() -> None:
    async with world() as here:
        assert clients(here).borrowed(CLIENT) is None
        borrowed = clients(here, keep_source=(ip_network("203.0.113.0/24"),)).borrowed(CLIENT)
        assert borrowed is not None
        assert borrowed(SERVER) == CLIENT[0]
        assert borrowed(ip_address("203.0.114.1")) is None
        assert borrowed(ip_address("2001:db8::1")) is None


async def test_names_belong_to_the_machine_and_outlive_its_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    machines = {CLIENT[0]: "one", SIXTH[0]: "one"}
    monkeypatch.setattr(routed_clients, "machine_of", lambda address, _: machines.get(address))
    async with world() as here:
        found = clients(here)
        assert found.session_of(CLIENT).asked is None, "who has asked for nothing costs nothing"
        asked = found.asking(CLIENT).asked
        assert asked is not None
        assert found.asking(CLIENT).asked is asked
        assert found.session_of(SIXTH).asked is asked
        assert found.session_of(("198.51.100.8", 1)).asked is None
        assert found.asking(("198.51.100.8", 1)).asked is not asked
        here.firewall.engine.close_session(found.session_of(CLIENT))
        assert found.session_of(CLIENT).asked is asked


async def test_names_of_the_machine_longest_silent_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routed_clients, "machine_of", lambda address, _: None)
    monkeypatch.setattr(routed_clients, "NAMED_MACHINES_MAX", 2)
    async with world() as here:
        found = clients(here)
        one, two, three = [(f"198.51.100.{last}", 1) for last in (11, 12, 13)]
        first, second = found.asking(one).asked, found.asking(two).asked
        found.asking(one)
        found.asking(three)
        for client in (one, two):
            here.firewall.engine.close_session(found.session_of(client))
        assert found.session_of(one).asked is first
        assert found.asking(two).asked is not second


async def test_where_names_are_not_answered_none_are_kept() -> None:
    async with world() as here:
        assert clients(here, dns="policy").session_of(CLIENT).asked is None


async def test_the_kernel_is_not_asked_for_a_machine_at_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    machines: dict[str, str] = {}

    def look_up(address: str, interfaces: object) -> str | None:
        looked_up.append(address)
        return machines.get(address)

    monkeypatch.setattr(routed_clients, "machine_of", look_up)
    async with world() as here:
        found = clients(here)
        for _ in range(3):
            found.session_of(CLIENT)
        assert looked_up == [CLIENT[0]]
        monkeypatch.setattr(routed_clients, "UNKNOWN_S", 0.0)
        found.configure(settings(networks=NETWORKS))
        found.session_of(CLIENT)
        machines[CLIENT[0]] = machines[SIXTH[0]] = "one"
        asked = found.asking(CLIENT).asked
        assert found.session_of(SIXTH).asked is asked, "what was not known is asked again"
        assert len(looked_up) == 4
        for _ in range(3):
            found.asking(CLIENT)
        assert len(looked_up) == 4
