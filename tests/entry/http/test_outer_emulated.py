"""Forwarded requests whose server is a filter: through the mixed port, as to any server."""

from __future__ import annotations

import pytest
from tests.entry.emulators import FILES
from tests.entry.filters import WATCH, use
from tests.entry.http.requests import connect, get
from tests.entry.peers import Peer, read_answer
from tests.entry.world import HEAD, RULE, world

pytestmark = pytest.mark.anyio

ALL = {**FILES, "watch.py": WATCH}


@pytest.mark.parametrize("more", ["", use("watch")])
async def test_a_client_that_keeps_its_connection_keeps_its_emulated_server(more: str) -> None:
    async with world(HEAD + more + use("answers") + RULE, ALL) as here:
        server = here.server()
        client = await here.client(get(server, "/"))
        for _ in range(3):
            await big_answer(client)
            await client.send(get(server, "/"))
        await big_answer(client)
        client.close()
        record = await here.record()
        assert (record.action, record.entry) == ("allow", "http")
        assert record.bytes_received == 4 * (
            8 * 2**20 + len("HTTP/1.1 200 OK\r\nContent-Length: 8388608\r\n\r\n")
        )
        assert '["answers","emulated",""]' in (record.filters or "")
        await here.quiet()
        assert len(here.records) == 1
        assert not server.has_client()


async def big_answer(client: Peer) -> None:
    head = await client.receive_until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    body = await client.receive(8 * 2**20)
    assert body.count(b"x") == 8 * 2**20


@pytest.mark.parametrize("more", ["", use("watch")])
async def test_an_answer_that_ends_with_the_connection_arrives_whole_though_the_client_goes_on_sending(
    more: str,
) -> None:
    async with world(HEAD + more + use("last") + RULE, ALL) as here:
        server = here.server()
        client = await here.client(
            f"POST http://{server.authority}/ HTTP/1.1\r\nHost: {server.authority}\r\n"
            f"Content-Length: {2**20}\r\n\r\n".encode()
        )
        await client.send(b"z" * 2**18)
        head = await client.receive_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        rest = await client.receive_rest()
        assert rest.count(b"y") == 2**21
        record = await here.record()
        assert record.action == "allow"


async def test_a_filter_that_fails_before_its_answer_is_an_answer_of_ours() -> None:
    async with world(HEAD + use("broken") + RULE, ALL) as here:
        here.errors_expected = True
        client = await here.client(get(here.server(), "/"))
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (403, "filter_failed")
        record = await here.record()
        assert (record.action, record.reason) == ("fail", "filter_failed")


async def test_a_tunnel_to_a_filter_is_a_tunnel() -> None:
    async with world(HEAD + use("lines") + RULE, ALL) as here:
        client = await here.client(connect(here.server().authority))
        assert (await client.receive_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        await client.send(b"hello")
        assert await client.receive(5) == b"HELLO"
        client.half_close()
        assert await client.receive_rest() == b"bye"
        record = await here.record()
        assert (record.end, record.bytes_sent, record.bytes_received) == ("closed", 5, 8)


async def test_a_denied_name_is_answered_as_one_that_is_not_found() -> None:
    async with world(HEAD + use("nonames") + RULE, ALL) as here:
        client = await here.client(b"GET http://some.test/ HTTP/1.1\r\nHost: some.test\r\n\r\n")
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (502, "no_names_today")
