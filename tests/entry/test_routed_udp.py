"""Datagrams of many strangers: caps, room, and not too much said to who is refused."""

from __future__ import annotations

import asyncio

import pytest
from tests.entry.routed import client_socket, received, routed
from tests.entry.world import HEAD, RULE

from doorward.entry import routed_udp
from doorward.net.caught_datagrams import as_caught

pytestmark = pytest.mark.anyio


class Told:
    """Takes the place of a raw socket."""

    def __init__(self) -> None:
        self.count = 0

    def sendto(self, data: bytes, where: object) -> None:
        self.count += 1

    def close(self) -> None:
        """Nothing is open."""


async def test_the_mapping_unused_for_longest_makes_room() -> None:
    async with routed() as gateway:
        gateway.entry._datagrams.mappings_max = 2
        clients = [client_socket() for _ in range(3)]
        with client_socket() as server, clients[0], clients[1], clients[2]:
            where = server.getsockname()
            for client in (clients[0], clients[1], clients[0], clients[2], clients[0]):
                await asyncio.sleep(0.002)  # so that their times differ
                gateway.send(b"x", client, *where)
                await received(server)
            ended = [r for r in gateway.world.records if r.operation == "udp"]
            assert [(r.end, r.client_port) for r in ended] == [
                ("udp_mapping_evicted", clients[1].getsockname()[1])
            ]


async def test_room_for_all_is_asked_before_a_mapping_is_made() -> None:
    async with routed() as gateway:
        gateway.entry._clients.has_room = lambda: False
        with client_socket() as client, client_socket() as server:
            gateway.send(b"x", client, *server.getsockname())
        assert gateway.entry._datagrams.dropped == 1
        assert not gateway.world.firewall.engine.connections


async def test_no_room_for_a_session_costs_the_datagram_and_no_error() -> None:
    async with routed() as gateway:
        gateway.world.firewall.engine.sessions.sessions_max = 0
        with client_socket() as client, client_socket() as server:
            gateway.send(b"x", client, *server.getsockname())
            gateway.send(b"\0" * 20, client, "198.51.100.53", 53)
            await gateway.world.quiet()
        assert gateway.entry._datagrams.dropped == 1


async def test_who_is_refused_is_told_so_many_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routed_udp, "REFUSALS_PER_SECOND_MAX", 3)
    async with routed(HEAD) as gateway:
        told = Told()
        datagrams = gateway.entry._datagrams
        datagrams._refusing[4] = told  # type: ignore[assignment]
        client = ("127.0.0.1", 4000)
        for _ in range(9):
            datagrams.refuse(client, as_caught("198.51.100.7", 53))
        assert told.count == 3
        datagrams._second -= 1
        datagrams.refuse(client, as_caught("198.51.100.7", 53))
        assert told.count == 4


async def test_clients_of_a_gateway_that_ends_are_ended() -> None:
    async with routed(HEAD + RULE) as gateway:
        with client_socket() as client, client_socket() as server:
            gateway.send(b"x", client, *server.getsockname())
            await received(server)
            gateway.entry._datagrams.end()
            gateway.entry._datagrams.end()
            await gateway.world.quiet()
        assert not gateway.entry._datagrams._sides
