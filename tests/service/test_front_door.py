"""Where clients come in, and how many: whoever listens, and however fast they come."""

from __future__ import annotations

import pytest
from tests.entry.peers import Peer, socks5_request
from tests.entry.socks import NO_LOGIN
from tests.entry.world import HEAD, RULE, World, limits, world

from doorward.net.front import FrontListener
from doorward.net.listen import Listener

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("way_in")]

MOST = 5


async def test_the_way_in_is_native_where_the_relay_is(way_in: str) -> None:
    async with world() as here:
        listener = next(iter(here.firewall.listeners._listeners.values()))
        assert type(listener) is (FrontListener if way_in == "front" else Listener)


async def test_a_crowd_at_once_is_no_more_than_fit() -> None:
    """All have asked before anybody is let in."""
    async with world(HEAD + limits(connections_max=MOST) + RULE) as here:
        server = here.server(backlog=64)
        crowd = [
            await here.client(NO_LOGIN + socks5_request(server.host, server.port)) for _ in range(4 * MOST)
        ]
        engine, door = here.firewall.engine, here.firewall.front_door
        seen: set[int] = set()

        def look(pairs: int) -> bool:
            seen.add(len(engine.relayed))
            return len(engine.relay) == pairs

        await here.until(lambda: look(MOST) and bool(shortages(here)))
        assert not door.has_room()
        assert not door.has_room_inside()
        here.part()
        await here.until(lambda: look(0) and len(here.records) == 4 * MOST)
        assert max(seen) == MOST
        assert door.room() == MOST
        assert len(crowd) == 4 * MOST


async def test_a_shortage_is_told_once_until_the_next_sweep() -> None:
    async with world(HEAD + limits(connections_max=1) + RULE) as here:
        await here.tunnel(here.server())
        await here.client(b"GET")
        await here.until(lambda: bool(shortages(here)))
        assert shortages(here) == [1]
        here.firewall.sweep()
        await here.until(lambda: len(shortages(here)) == 2)


async def test_clients_on_the_way_in_are_waited_for_when_the_house_empties() -> None:
    async with world() as here:
        server = here.server()
        client = await here.client(NO_LOGIN)
        assert await client.receive(2) == b"\x05\x00"
        await here.until(lambda: here.guests == 1)
        here.firewall.listeners.close()
        await client.send(socks5_request(server.host, server.port))
        outer = await here.accept(server)
        assert (await client.receive(10))[:2] == b"\x05\x00"
        client.close()
        outer.close()
        await here.firewall.drain(5.0)
        assert here.guests == 0
        with pytest.raises(ConnectionRefusedError):
            await Peer.connect(*here.first_proxy)


async def test_a_changed_policy_is_in_force_for_who_comes_next() -> None:
    async with world(HEAD + limits(handshake_timeout_s=5) + RULE) as here:
        here.write(HEAD + limits(handshake_timeout_s=0.2) + RULE)
        assert (await here.firewall.reload()).ok
        client = await here.client(b"\x05")
        await client.outcome()
        assert (await here.record()).reason == "handshake_timeout"


def shortages(here: World) -> list[int]:
    """Each time that somebody had to wait: how many were inside."""
    return [line["clients"] for line in here.told() if "wait" in line["event"]]
