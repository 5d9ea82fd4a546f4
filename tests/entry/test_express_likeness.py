"""Whoever listens, a client meets the same, and so does the log: each conversation is held with both and compared."""

from __future__ import annotations

import resource
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from tests.entry.conftest import come_in_by
from tests.entry.peers import Peer, socks5_request
from tests.entry.socks import NO_LOGIN, ask5
from tests.entry.world import HEAD, ONLY_USERS, RULE, World, limits, user, world

from doorward.record.model import Record

pytestmark = pytest.mark.anyio

Told = list[Any]
Conversation = Callable[[World, Told], Awaitable[None]]

SHORT: Final = HEAD + limits(connect_timeout_s=0.2, handshake_timeout_s=0.3) + RULE
# What differs from one connection to the next.
OF_THE_MOMENT: Final = ("time_us", "duration_us", "client_port", "port", "policy", "connect_us")


async def ends_early(here: World, told: Told) -> None:
    """At every byte, in order."""
    whole = NO_LOGIN + socks5_request("127.0.0.1", 80)
    for length in range(1, len(whole)):
        client = await here.client(whole[:length])
        client.half_close()
        told.append((length, await client.outcome()))
        client.close()
        await here.record(length)


async def ends_with_a_byte_behind_the_answer(here: World, told: Told) -> None:
    client = await here.client(NO_LOGIN)
    told.append(await client.receive(2))
    await client.send(b"\x05")
    client.half_close()
    told.append(await client.outcome())


async def resets_early(here: World, told: Told) -> None:
    whole = NO_LOGIN + socks5_request("127.0.0.1", 80)
    for number, length in enumerate((1, 2, 4, 9), 1):
        client = await here.client(whole[:length])
        await here.until(lambda: here.guests > 0)
        client.reset()
        await here.record(number)


async def stops(here: World, told: Told) -> None:
    """In the greeting, behind it, and in the request; the deadline is not begun anew by what it says."""
    for length in (1, 3, 6):
        client = await here.client((NO_LOGIN + socks5_request("127.0.0.1", 80))[:length])
        told.append(await client.outcome())


async def is_refused_by_the_server(here: World, told: Told) -> None:
    client = await here.client(
        NO_LOGIN + socks5_request("127.0.0.1", here.server(listening=False).port) + b"x"
    )
    told.append(await client.outcome())


async def cannot_reach_the_network(here: World, told: Told) -> None:
    client = await ask5(here, "127.255.255.255", 80)
    told.append(await client.outcome())


async def waits_for_a_silent_server(here: World, told: Told) -> None:
    client = await dialling(here)
    told.append(await client.outcome())


async def resets_while_a_silent_server_is_dialled(here: World, told: Told) -> None:
    (await dialling(here)).reset()


async def is_killed_while_dialled(here: World, told: Told) -> None:
    client = await dialling(here)
    engine = here.firewall.engine
    for connection in list(engine.connections.values()):
        engine.kill(connection)
        engine.kill(connection)
    told.append(await client.outcome())


async def loses_its_session_while_dialled(here: World, told: Told) -> None:
    client = await dialling(here)
    for session in list(here.firewall.engine.sessions):
        here.firewall.engine.close_session(session)
    told.append(await client.outcome())


async def is_there_at_the_end_while_dialled(here: World, told: Told) -> None:
    client = await dialling(here)
    await here.firewall.stop()
    told.append(await client.outcome())


async def is_there_at_the_end_while_it_speaks(here: World, told: Told) -> None:
    client = await here.client(NO_LOGIN)
    told.append(await client.receive(2))
    await here.firewall.stop()
    told.append(await client.outcome())


async def has_no_descriptor_to_go_out(here: World, told: Told) -> None:
    client = await here.client(NO_LOGIN)
    told.append(await client.receive(2))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        await client.send(socks5_request("127.0.0.1", 80))
        told.append(await client.outcome())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def asks_in_pieces_and_says_more(here: World, told: Told) -> None:
    server = here.server()
    client = await here.client()
    for byte in NO_LOGIN + socks5_request("127.0.0.1", server.port) + NO_LOGIN + socks5_request("::1", 1):
        await client.send(bytes([byte]))
    outer = await here.accept(server)
    told.append(await outer.receive(len(NO_LOGIN) + 22))
    told.append((await client.receive(12))[:6])
    outer.close()
    told.append(await client.outcome())


async def asks_and_ends(here: World, told: Told) -> None:
    server = here.server()
    client = await here.client(NO_LOGIN + socks5_request("127.0.0.1", server.port) + b"question")
    client.half_close()
    outer = await here.accept(server)
    told.append(await outer.receive_rest())
    await outer.send(b"answer")
    outer.close()
    bound = (await client.receive(12))[:10]
    told.append((bound, await client.outcome()))


async def talks_until(here: World, told: Told) -> None:
    """A limit ends it: of bytes, or of silence."""
    server = here.server()
    client, outer = await here.tunnel(server)
    await client.send(b"five5")
    told.append(await client.outcome())
    told.append(await outer.outcome())


async def asks_too_often(here: World, told: Told) -> None:
    server = here.server()
    await here.tunnel(server)
    client = await here.client(NO_LOGIN + socks5_request("127.0.0.1", server.port))
    told.append(await client.outcome())


async def asks_without_a_log(here: World, told: Told) -> None:
    here.firewall.store.failure = "no space left"
    client = await here.client(NO_LOGIN + socks5_request("127.0.0.1", here.server().port))
    told.append(await client.outcome())
    here.firewall.store.failure = None


async def asks_for_what_cannot_be(here: World, told: Told) -> None:
    here.names(**{"app.example": "192.0.2.1 192.0.2.2"})
    for host, port, command in (
        ("192.0.2.1", 80, 1),
        ("app.example", 80, 1),
        ("nowhere.example", 80, 1),
        ("0x7f000001", 0, 1),
        ("a b", 80, 1),
        ("127.0.0.1", 80, 9),
    ):
        client = await here.client(NO_LOGIN + socks5_request(host, port, command))
        told.append(await client.outcome())
        client.close()


def head(host: str, port: int, *lines: str, version: str = "1.1") -> bytes:
    """An HTTP client's request to CONNECT."""
    where = f"{host}:{port}"
    return "\r\n".join([f"CONNECT {where} HTTP/{version}", f"Host: {where}", *lines, "", ""]).encode()


async def tunnels_by_http(here: World, told: Told) -> None:
    server = here.server()
    for early, version in ((b"", "1.1"), (b"early", "1.0")):
        client = await here.client(head("127.0.0.1", server.port, "X-Y: z", version=version) + early)
        outer = await here.accept(server)
        await outer.send(b"answer")
        outer.half_close()
        client.half_close()
        told.append((await outer.outcome(), await client.outcome()))


async def asks_http_in_pieces(here: World, told: Told) -> None:
    """Cut anywhere, and ended there."""
    whole = head("127.0.0.1", here.server().port)
    for number, length in enumerate(range(1, len(whole), 7), 1):
        client = await here.client(whole[:length])
        client.half_close()
        told.append(await client.outcome())
        client.close()
        await here.record(number)


async def asks_http_for_what_cannot_be(here: World, told: Told) -> None:
    port = here.server(listening=False).port
    for request in (
        head("127.0.0.1", port),
        head("127.0.0.1", 0),
        head("127.255.255.255", 80),
        head("192.0.2.1", 80),
        head("0x7f000001", 80),
        head("127.0.0.1", port, "Proxy-Authorization: Basic a2ltOnJpZ2h0"),
        head("127.0.0.1", port, "Proxy-Authorization: Bearer x"),
        head("127.0.0.1", port, "X: " + 1100 * "y"),
        head("127.0.0.1", port, "Content-Length: 5") + b"early",
        head("127.0.0.1", port, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        b"CONNECT / HTTP/1.1\r\n\r\n",
        b"CONNECT \r\n\r\n",
        b"CONNECT 127.0.0.1 HTTP/1.1\r\n\r\n",
        b"CONNECT 127.0.0.1:80 HTTP/9\r\nHost: a\r\nHost: b\r\n\r\n",
    ):
        client = await here.client(request)
        told.append(until_port(await client.outcome(), port))
        client.close()


def until_port(outcome: tuple[bytes, str], port: int) -> tuple[bytes, str]:
    """What was said, but for a port that differs from one world to the next."""
    return outcome[0].replace(str(port).encode(), b"PORT"), outcome[1]


async def asks_http_too_often(here: World, told: Told) -> None:
    server = here.server()
    await here.tunnel(server)
    client = await here.client(head("127.0.0.1", server.port))
    told.append(until_port(await client.outcome(), server.port))


async def waits_by_http_for_a_silent_server(here: World, told: Told) -> None:
    server = here.server(backlog=0)
    here.keep(await Peer.connect("127.0.0.1", server.port))
    client = await here.client(head("127.0.0.1", server.port))
    told.append(until_port(await client.outcome(), server.port))


async def dialling(here: World) -> Peer:
    """A client whose server does not answer."""
    server = here.server(backlog=0)
    here.keep(await Peer.connect("127.0.0.1", server.port))
    client = await ask5(here, "127.0.0.1", server.port)
    await here.until(lambda: bool(here.firewall.engine.connections))
    return client


@pytest.mark.parametrize(
    ("conversation", "policy"),
    [
        (ends_early, HEAD + RULE),
        (ends_with_a_byte_behind_the_answer, HEAD + RULE),
        (resets_early, HEAD + RULE),
        (stops, SHORT),
        (is_refused_by_the_server, HEAD + RULE),
        (cannot_reach_the_network, HEAD + RULE),
        (waits_for_a_silent_server, SHORT),
        (resets_while_a_silent_server_is_dialled, SHORT),
        (is_killed_while_dialled, SHORT),
        (loses_its_session_while_dialled, SHORT),
        (is_there_at_the_end_while_dialled, HEAD + RULE),
        (is_there_at_the_end_while_it_speaks, HEAD + RULE),
        (has_no_descriptor_to_go_out, HEAD + RULE),
        (asks_in_pieces_and_says_more, HEAD + RULE),
        (asks_and_ends, HEAD + RULE),
        (talks_until, HEAD + limits(bytes_max_per_direction=4) + RULE),
        (talks_until, HEAD + limits(idle_timeout_s=1) + RULE),
        (asks_too_often, HEAD + limits(connections_per_client_max=1) + RULE),
        (asks_too_often, HEAD + limits(connects_per_minute_per_client_max=1) + RULE),
        (asks_without_a_log, HEAD + RULE),
        (asks_for_what_cannot_be, HEAD + RULE),
        (tunnels_by_http, HEAD + RULE),
        (asks_http_in_pieces, HEAD + RULE),
        (asks_http_for_what_cannot_be, HEAD + RULE),
        (asks_http_for_what_cannot_be, HEAD + user("kim", "right") + ONLY_USERS),
        (asks_http_too_often, HEAD + limits(connections_per_client_max=1) + RULE),
        (waits_by_http_for_a_silent_server, SHORT),
    ],
)
async def test_a_client_and_the_log_cannot_tell_who_listens(
    conversation: Conversation, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_python = await held("python", conversation, policy, monkeypatch)
    assert await held("front", conversation, policy, monkeypatch) == in_python


async def held(
    way: str, conversation: Conversation, policy: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Told, list[dict[str, Any]]]:
    """What the ends were told, and what is on record."""
    told: Told = []
    with monkeypatch.context() as patch:
        come_in_by(way, patch)
        async with world(policy) as here:
            await conversation(here, told)
            here.part()
            await here.quiet()
    return told, [lasting(record) for record in here.records]


def lasting(record: Record) -> dict[str, Any]:
    """A record without what differs from one connection to the next."""
    fields = {name: getattr(record, name) for name in record.__struct_fields__ if name not in OF_THE_MOMENT}
    return fields | {"is_judged": bool(record.policy), "has_connected": record.connect_us is not None}
