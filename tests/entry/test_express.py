"""Who is settled without waiting never comes to Python; everybody else does, and soon enough is none the worse."""

from __future__ import annotations

import random

import pytest
from tests.entry.conftest import come_in_by
from tests.entry.filters import WATCH, use
from tests.entry.peers import Peer, Server, socks5_request
from tests.entry.socks import EITHER, NO_LOGIN, ask5, reply5, talk
from tests.entry.world import HEAD, ONLY_USERS, RULE, World, limits, user, world

from doorward.engine import express

pytestmark = pytest.mark.anyio


class Lane:
    """How many connections went by the fast lane."""

    def __init__(self) -> None:
        self.begun = 0


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch) -> Lane:
    come_in_by("front", monkeypatch)
    lane, begin = Lane(), express.begin

    def counted(*arguments: object) -> object:
        lane.begun += 1
        return begin(*arguments)  # type: ignore[arg-type]  # whatever they are

    monkeypatch.setattr(express, "begin", counted)
    return lane


async def test_an_address_goes_the_fast_lane(lane: Lane) -> None:
    async with world() as here:
        client, outer = await here.tunnel(here.server())
        assert (lane.begun, here.firewall.entry.serving) == (1, 0)
        await talk(client, outer)
        record = await here.record()
        assert (record.entry, record.action, record.end) == ("socks5", "allow", "closed")
        assert (record.bytes_sent, record.bytes_received) == (13, 21)
        assert record.connect_us is not None


async def test_a_name_is_looked_up_in_the_common_way_and_then_goes_the_fast_lane(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorward.engine.judgement.int", lambda _: 0, raising=False)  # this second lasts
    async with world() as here:
        here.names(**{"app.example": "127.0.0.1"})
        server = here.server()
        for begun in (0, 1, 2):
            client, outer = await here.tunnel(server, "app.example")
            assert lane.begun == begun
            await talk(client, outer)
        assert {(r.host, r.address) for r in here.records} == {("app.example", "127.0.0.1")}


@pytest.mark.parametrize(
    ("policy", "hello"),
    [
        (HEAD + use("watch") + RULE, NO_LOGIN),
        (HEAD + user("kim", "right") + ONLY_USERS, NO_LOGIN),
        (HEAD, NO_LOGIN),
    ],
)
async def test_what_others_have_a_say_in_goes_the_common_way(lane: Lane, policy: str, hello: bytes) -> None:
    async with world(policy, {"watch.py": WATCH}) as here:
        server = here.server()
        client = await here.client(hello + socks5_request("127.0.0.1", server.port))
        await client.receive(12)
        assert lane.begun == 0


async def test_a_table_that_is_full_is_told_in_the_common_way(lane: Lane) -> None:
    async with world(HEAD + limits(sessions_max=1) + user("kim", "right") + RULE) as here:
        server = here.server()
        sessions = here.firewall.engine.sessions
        sessions.enter(sessions.get("192.0.2.1", None))
        client = await ask5(here, "127.0.0.1", server.port)
        assert await reply5(client) == 1
        assert lane.begun == 0
        assert (await here.record()).reason == "out_of_resources"


async def test_a_reload_between_greeting_and_request_is_in_force_for_the_request(lane: Lane) -> None:
    async with world(HEAD + user("kim", "right") + RULE) as here:
        server = here.server()
        client = await here.client(EITHER)
        assert await client.receive(2) == b"\x05\x00", "nobody would look at a name"
        here.write(HEAD + user("kim", "right") + ONLY_USERS)
        assert (await here.firewall.reload()).ok
        await client.send(socks5_request("127.0.0.1", server.port))
        assert await reply5(client) == 2
        asked = await here.client(EITHER)
        assert await asked.receive(2) == b"\x05\x02", "and now somebody does"
        assert lane.begun == 0


async def test_the_rest_of_the_time_is_the_rest_of_the_time(lane: Lane) -> None:
    """Heard by the front for a while, and then by Python: one deadline."""
    async with world(HEAD + limits(handshake_timeout_s=0.4) + RULE) as here:
        client = await here.client(NO_LOGIN)
        assert await client.receive(2) == b"\x05\x00"
        await here.until(lambda: here.firewall.front_door.waiting == 1)
        loop = here.firewall.poller.loop
        began, handed_at = loop.time(), loop.time() + 0.2
        await here.until(lambda: loop.time() > handed_at)
        await client.send(b"\x05\x02")
        await client.outcome()
        assert loop.time() - began < 0.55
        assert (await here.record()).reason == "handshake_timeout"


@pytest.mark.parametrize(
    ("clients", "most"), [(300, 15), pytest.param(4000, 80, marks=pytest.mark.slow)], ids=["crowded", "many"]
)
async def test_nothing_is_left_of_a_crowd_that_comes_and_goes_as_it_likes(
    lane: Lane, clients: int, most: int
) -> None:
    chance = random.Random(4711)  # noqa: S311 - the same wishes each time
    waits = limits(connect_timeout_s=0.05, handshake_timeout_s=1, connections_max=most)
    async with world(HEAD + waits + RULE) as here:
        servers = here.server(), here.server(backlog=0), here.server(listening=False)
        here.keep(await Peer.connect("127.0.0.1", servers[1].port))
        crowd: list[Peer] = []
        for _ in range(clients):
            await come(here, chance, servers, crowd, is_patient=most > len(crowd) + 40)
            while len(crowd) > 30:
                go(chance, crowd)
            while servers[0].has_client():
                pass
        while crowd:
            go(chance, crowd)
        engine, front_door = here.firewall.engine, here.firewall.front_door

        def is_over() -> bool:
            servers[0].has_client()
            return not (here.guests or engine.connections or engine.relayed)

        await here.until(is_over)
        await here.quiet()
        assert front_door._front is not None
        assert len(front_door._front) == front_door.waiting == len(engine.relay) == 0
        assert front_door.room() == most
        assert [session.connections for session in engine.sessions] == [0]
        assert not engine.admission._alive
        numbers = [record.connection for record in here.records if record.connection]
        assert sorted(numbers) == list(range(1, engine.next_id)), "one record for each connection"
        assert lane.begun > clients // 20 or most < 40


async def come(
    here: World, chance: random.Random, servers: tuple[Server, ...], crowd: list[Peer], *, is_patient: bool
) -> None:
    """Somebody who says as much of a handshake as it likes, in one piece or two, and may wait for an answer."""
    client = await Peer.connect(*here.proxy)
    crowd.append(client)
    server = chance.choices(servers, (8, 1, 2))[0]
    whole = chance.choice((NO_LOGIN, EITHER)) + socks5_request("127.0.0.1", server.port) + b"early"
    end = chance.choice((1, 3, 8, len(whole), len(whole), len(whole)))
    middle = chance.randrange(end + 1)
    try:
        for piece in (whole[:middle], whole[middle:end]):
            if piece:
                await client.send(piece)
        if end == len(whole) and is_patient and chance.random() < 0.3:
            await client.receive(2)
    except (ConnectionResetError, BrokenPipeError):
        pass  # too slow for its deadline


def go(chance: random.Random, crowd: list[Peer]) -> None:
    """Somebody leaves."""
    client = crowd.pop(chance.randrange(len(crowd)))
    if chance.random() < 0.5:
        client.reset()
    else:
        client.close()
