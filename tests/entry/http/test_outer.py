from __future__ import annotations

import pytest
from tests.entry.filters import CHANGE, DENY, FAIL, REFUSE, WATCH, use
from tests.entry.http.requests import connect, get
from tests.entry.peers import Peer, read_answer, read_answer_head, read_request
from tests.entry.world import HEAD, RULE, World, world

pytestmark = pytest.mark.anyio

SWITCH = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

FILES = {"watch.py": WATCH, "change.py": CHANGE, "refuse.py": REFUSE, "fail.py": FAIL, "deny.py": DENY}
NO_FILTER = HEAD + RULE
WATCHED = HEAD + use("watch") + RULE


async def begun(here: World, *fields: str) -> tuple[Peer, Peer, dict[str, str]]:
    server = here.server()
    client = await here.client(get(server, "/", *fields))
    outer = await here.accept(server)
    _, seen = await read_request(outer)
    return client, outer, seen


@pytest.mark.parametrize("policy", [NO_FILTER, WATCHED])
async def test_a_websocket_is_switched_to_and_carried_both_ways_with_half_close(policy: str) -> None:
    async with world(policy, FILES) as here:
        client, outer, seen = await begun(here, *SWITCH)
        assert (seen["upgrade"], seen["connection"]) == ("websocket", "Upgrade")
        await outer.send(SWITCHED + b"hello of the server")
        status, fields = await read_answer_head(client)
        assert (status, fields["upgrade"], fields["connection"]) == (101, "websocket", "Upgrade")
        assert await client.receive(19) == b"hello of the server"
        await client.send(b"hello of the client")
        assert await outer.receive(19) == b"hello of the client"
        client.half_close()
        assert await outer.receive_rest() == b""
        await outer.send(b"the last")
        outer.close()
        assert await client.receive_rest() == b"the last"
        client.close()
        await here.quiet()
        assert [(r.action, r.end, r.entry) for r in here.records] == [("allow", "closed", "http")]


@pytest.mark.parametrize("policy", [NO_FILTER, WATCHED])
async def test_what_a_client_sends_ahead_of_the_switch_arrives_behind_it(policy: str) -> None:
    async with world(policy, FILES) as here:
        server = here.server()
        await here.client(get(server, "/", *SWITCH) + b"frames")
        outer = await here.accept(server)
        await read_request(outer)
        await outer.send(SWITCHED)
        assert await outer.receive(6) == b"frames"


@pytest.mark.parametrize("policy", [NO_FILTER, WATCHED])
@pytest.mark.parametrize("status", [200, 400])
async def test_a_websocket_that_is_refused_leaves_http_as_it_was(policy: str, status: int) -> None:
    async with world(policy, FILES) as here:
        client, outer, _ = await begun(here, *SWITCH)
        await outer.send(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nno" % status)
        answer = await read_answer(client)
        assert (answer.status, answer.body) == (status, b"no")
        host, port = outer.socket.getsockname()
        await client.send(f"GET http://{host}:{port}/2 HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        assert (await read_request(outer))[0] == "GET /2 HTTP/1.1"


@pytest.mark.parametrize("policy", [NO_FILTER, WATCHED])
@pytest.mark.parametrize("by", ["internal", "external"])
async def test_a_reset_in_a_websocket_reaches_the_other_side(policy: str, by: str) -> None:
    async with world(policy, FILES) as here:
        client, outer, _ = await begun(here, *SWITCH)
        await outer.send(SWITCHED)
        await read_answer_head(client)
        gone, left = (client, outer) if by == "internal" else (outer, client)
        gone.reset()
        assert await left.outcome() == (b"", "reset")
        await here.quiet()
        assert [(r.action, r.end, r.ended_by) for r in here.records] == [("allow", "reset", by)]


async def test_a_filter_sees_requests_and_answers_of_a_kept_connection() -> None:
    async with world(HEAD + use("change") + RULE, FILES) as here:
        server = here.server()
        client = await here.client(get(server, "/x"))
        outer = await here.accept(server)
        assert (await read_request(outer))[0] == "GET /y HTTP/1.1"
        await outer.send(OK)
        assert (await read_answer(client)).body == b"ok"
        await client.send(get(server, "/xx", "Content-Length: 3", method="POST") + b"xyz")
        assert (await read_request(outer))[0] == "POST /yy HTTP/1.1"
        assert await outer.receive(3) == b"yyz"
        await outer.send(OK)
        assert (await read_answer(client)).body == b"ok"
        client.close()
        await here.quiet()
        assert [(r.end, "attached" in (r.filters or "")) for r in here.records] == [("closed", True)]


async def test_a_filter_that_denies_is_told_like_policy() -> None:
    async with world(HEAD + use("deny") + RULE, FILES) as here:
        server = here.server()
        for request in (get(server), connect(server.authority)):
            client = await here.client(request)
            answer = await read_answer(client)
            assert (answer.status, answer.reason) == (403, "not_today")
            assert b"by the filter deny" in answer.body
            assert b"rule:" not in answer.body
            client.close()
        await here.quiet()
        assert [(r.action, r.reason) for r in here.records] == [("deny", "not_today")] * 2
        assert not server.has_client()


async def test_a_filter_that_refuses_before_the_answer_has_begun_is_told_with_its_reason() -> None:
    async with world(HEAD + use("refuse") + RULE, FILES) as here:
        client, outer, _ = await begun(here)
        await outer.send(b"HTTP/1.1 200 OK\r\nX: secret\r\nContent-Length: 0\r\n\r\n")
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (403, "holds_secrets")
        assert (await outer.outcome())[1] == "reset"
        client.close()
        await here.quiet()
        assert [(r.action, r.reason, r.end, r.detail) for r in here.records] == [
            ("deny", "holds_secrets", "holds_secrets", "the server said a secret")
        ]


async def test_a_filter_that_refuses_in_the_middle_of_an_answer_breaks_the_connection() -> None:
    async with world(HEAD + use("refuse") + RULE, FILES) as here:
        client, outer, _ = await begun(here)
        await outer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nplain")
        await read_answer_head(client)
        assert await client.receive(5) == b"plain"
        await outer.send(b"secret")
        assert await client.outcome() == (b"", "reset")
        await here.quiet()
        assert [(r.action, r.reason) for r in here.records] == [("deny", "holds_secrets")]


async def test_a_filter_that_fails_closes_its_connection_and_is_in_the_operational_log() -> None:
    async with world(HEAD + use("fail") + RULE, FILES) as here:
        here.errors_expected = True
        client, outer, _ = await begun(here)
        await outer.send(OK)
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (403, "filter_failed")
        await here.quiet()
        assert [(r.action, r.reason) for r in here.records] == [("fail", "filter_failed")]
        (error,) = here.errors()
        assert (error["filter"], error["error"]) == ("fail", "ZeroDivisionError: a mistake in the filter")


async def test_a_kept_connection_under_a_filter_that_died_meanwhile_is_replaced_unseen() -> None:
    async with world(WATCHED, FILES) as here:
        server = here.server()
        client = await here.client(get(server))
        outer = await here.accept(server)
        await read_request(outer)
        await outer.send(OK)
        await read_answer(client)
        outer.close()
        await client.send(get(server, "/2"))
        outer = await here.accept(server)
        assert (await read_request(outer))[0] == "GET /2 HTTP/1.1"
        await outer.send(OK)
        assert (await read_answer(client)).body == b"ok"


async def test_under_a_filter_an_answer_that_ends_with_the_connection_arrives_whole() -> None:
    async with world(WATCHED, FILES) as here:
        client, outer, _ = await begun(here)
        await outer.send(b"HTTP/1.0 200 OK\r\n\r\n" + b"z" * 300_000)
        outer.close()
        status, _ = await read_answer_head(client)
        assert status == 200
        assert (await client.receive_until(b"\r\n0\r\n\r\n")).count(b"z") == 300_000
