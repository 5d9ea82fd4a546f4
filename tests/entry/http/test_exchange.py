from __future__ import annotations

import pytest
from tests.entry.http.requests import get
from tests.entry.peers import Peer, read_answer, read_answer_head, read_request
from tests.entry.world import HEAD, RULE, World, limits, world

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = "Transfer-Encoding: chunked"


async def begun(here: World, *fields: str, method: str = "GET", version: str = "1.1") -> tuple[Peer, Peer]:
    """A request whose head has reached the server; the client's and the server's end."""
    server = here.server()
    client = await here.client(get(server, "/", *fields, method=method, version=version))
    outer = await here.accept(server)
    line, _ = await read_request(outer)
    assert line == f"{method} / HTTP/1.1"
    return client, outer


async def test_chunks_travel_both_ways_while_they_come_with_their_trailers() -> None:
    async with world() as here:
        client, outer = await begun(here, CHUNKED, "Trailer: X-Sum", method="POST")
        await client.send(b"3;ext=1\r\nabc\r\n")
        assert await outer.receive(8) == b"3\r\nabc\r\n"  # before the body has ended
        await outer.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Seen\r\n\r\n2\r\nok\r\n"
        )
        status, fields = await read_answer_head(client)
        assert (status, fields["transfer-encoding"], fields["trailer"]) == (200, "chunked", "X-Seen")
        assert await client.receive(7) == b"2\r\nok\r\n"
        await client.send(b"0\r\nX-Sum: 7\r\n\r\n")
        assert await outer.receive(15) == b"0\r\nX-Sum: 7\r\n\r\n"
        await outer.send(b"0\r\nX-Seen: yes\r\n\r\n")
        assert await client.receive(18) == b"0\r\nX-Seen: yes\r\n\r\n"
        await client.send(get_again(outer))
        assert (await read_request(outer))[0] == "GET /again HTTP/1.1"
        await outer.send(OK)
        assert (await read_answer(client)).body == b"ok"


def get_again(outer: Peer, path: str = "/again") -> bytes:
    host, port = outer.socket.getsockname()
    return f"GET http://{host}:{port}{path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()


@pytest.mark.parametrize("pieces", [1, 3, 1000])
async def test_a_body_with_a_length_arrives_whole_however_it_is_cut(pieces: int) -> None:
    async with world() as here:
        body = bytes(range(256)) * 400
        client, outer = await begun(here, f"Content-Length: {len(body)}", method="PUT")
        size = -(-len(body) // pieces)
        received = b""
        for start in range(0, len(body), size):
            piece = body[start : start + size]
            await client.send(piece)
            received += await outer.receive(len(piece))
        assert received == body
        await outer.send(OK)
        assert (await read_answer(client)).body == b"ok"
        assert not here.records  # both connections are kept


async def test_a_body_of_length_nothing_is_a_body() -> None:
    async with world() as here:
        client, outer = await begun(here, "Content-Length: 0", method="POST")
        await outer.send(OK)
        assert (await read_answer(client)).body == b"ok"


async def test_an_expectation_is_met_by_the_server_and_then_the_body_goes() -> None:
    async with world() as here:
        client, outer = await begun(here, "Content-Length: 4", "Expect: 100-continue", method="PUT")
        await outer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await client.receive_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"body")
        assert await outer.receive(4) == b"body"
        await outer.send(OK)
        assert (await read_answer(client)).status == 200


async def test_a_final_answer_to_an_expectation_comes_without_the_body() -> None:
    async with world() as here:
        client, outer = await begun(here, "Content-Length: 4", "Expect: 100-continue", method="PUT")
        await outer.send(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
        assert (await read_answer(client)).status == 417
        assert await client.receive_rest() == b""


async def test_an_answer_that_comes_before_the_upload_has_ended_is_passed_on_at_once() -> None:
    async with world() as here:
        client, outer = await begun(here, "Content-Length: 1000000", method="POST")
        await client.send(b"x" * 1000)
        await outer.receive(1000)
        await outer.send(b"HTTP/1.1 413 Too much\r\nContent-Length: 3\r\n\r\nbig")
        outer.close()
        answer = await read_answer(client)
        assert (answer.status, answer.body) == (413, b"big")
        assert await client.receive_rest() == b""


async def test_an_early_answer_survives_a_server_that_resets_the_rest_of_the_upload() -> None:
    async with world() as here:
        client, outer = await begun(here, "Content-Length: 10000000", method="POST")
        await client.send(b"x" * 200_000)  # never read: closing resets
        await outer.send(b"HTTP/1.1 413 Too much\r\nContent-Length: 3\r\n\r\nbig")
        outer.close()
        answer = await read_answer(client)
        assert (answer.status, answer.body) == (413, b"big")


async def test_head_has_the_length_and_no_body() -> None:
    async with world() as here:
        client, outer = await begun(here, method="HEAD")
        await outer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")
        answer = await read_answer(client, body=False)
        assert (answer.status, answer.fields["content-length"]) == (200, "1234")
        await client.send(get_again(outer))
        assert (await read_request(outer))[0] == "GET /again HTTP/1.1"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_keeps_both_connections(status: int) -> None:
    async with world() as here:
        client, outer = await begun(here)
        await outer.send(b'HTTP/1.1 %d X\r\nETag: "1"\r\n\r\n' % status)
        assert (await read_answer(client)).status == status
        await client.send(get_again(outer))
        assert (await read_request(outer))[0] == "GET /again HTTP/1.1"


async def test_a_client_of_version_1_0_gets_a_body_that_ends_with_the_connection() -> None:
    async with world() as here:
        client, outer = await begun(here, version="1.0")
        await outer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        answer = await read_answer(client)
        assert (answer.body, answer.fields["connection"]) == (b"abc", "close")
        assert "transfer-encoding" not in answer.fields


async def test_a_client_of_version_1_0_may_keep_its_connection() -> None:
    async with world() as here:
        client, outer = await begun(here, "Connection: keep-alive", version="1.0")
        await outer.send(OK)
        assert (await read_answer(client)).fields["connection"] == "keep-alive"
        await client.send(get_again(outer))
        assert (await read_request(outer))[0] == "GET /again HTTP/1.1"


async def test_a_server_that_ends_its_answer_by_closing_costs_the_client_nothing() -> None:
    async with world() as here:
        server = here.server()
        client = await here.client(get(server))
        outer = await here.accept(server)
        await read_request(outer)
        await outer.send(b"HTTP/1.0 200 OK\r\n\r\nthe whole page")
        outer.close()
        status, fields = await read_answer_head(client)
        assert (status, fields["transfer-encoding"]) == (200, "chunked")
        assert await client.receive_until(b"0\r\n\r\n") == b"e\r\nthe whole page\r\n0\r\n\r\n"
        await client.send(get(server, "/2"))
        outer = await here.accept(server)
        assert (await read_request(outer))[0] == "GET /2 HTTP/1.1"


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_kept_connection_that_died_meanwhile_is_replaced_unseen(method: str, how: str) -> None:
    async with world() as here:
        server = here.server()
        client = await here.client(get(server))
        outer = await here.accept(server)
        await read_request(outer)
        await outer.send(OK)
        await read_answer(client)
        if how == "closed":
            outer.close()
        else:
            outer.reset()
        await client.send(get(server, "/2", method=method))
        outer = await here.accept(server)
        assert (await read_request(outer))[0] == f"{method} /2 HTTP/1.1"
        await outer.send(b"HTTP/1.1 204 X\r\n\r\n")
        assert (await read_answer(client)).status == 204


async def test_what_may_not_be_sent_twice_is_not_sent_twice() -> None:
    async with world() as here:
        server = here.server()
        client = await here.client(get(server))
        outer = await here.accept(server)
        await read_request(outer)
        await outer.send(OK)
        await read_answer(client)
        await client.send(get(server, "/2", "Content-Length: 0", method="POST"))
        await read_request(outer)
        outer.close()
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (502, "http_no_response")
        assert not server.has_client()


async def test_a_request_is_sent_a_second_time_only_once() -> None:
    async with world() as here:
        server = here.server()
        client = await here.client(get(server))
        outer = await here.accept(server)
        await read_request(outer)
        await outer.send(OK)
        await read_answer(client)
        await client.send(get(server, "/2"))
        await read_request(outer)
        outer.close()
        outer = await here.accept(server)
        await read_request(outer)
        outer.close()
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (502, "http_no_response")
        assert not server.has_client()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_server_that_closes_without_an_answer_is_a_bad_gateway(method: str) -> None:
    async with world() as here:
        server = here.server()
        fields = ["Content-Length: 0"] if method == "POST" else []
        client = await here.client(get(server, "/", *fields, method=method))
        outer = await here.accept(server)
        await read_request(outer)
        outer.close()
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (502, "http_no_response")
        client.close()
        await here.quiet()
        assert [(r.action, r.end, r.ended_by) for r in here.records] == [
            ("allow", "http_no_response", "external")
        ]
        assert not server.has_client()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_server_that_resets_without_an_answer_is_a_bad_gateway(method: str) -> None:
    async with world() as here:
        server = here.server()
        fields = ["Content-Length: 0"] if method == "POST" else []
        client = await here.client(get(server, "/", *fields, method=method))
        outer = await here.accept(server)
        await read_request(outer)
        outer.reset()
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (502, "reset")
        client.close()
        await here.quiet()
        assert [(r.action, r.end, r.ended_by) for r in here.records] == [("allow", "reset", "external")]


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"SSH-2.0-x\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", "http_content_length_twice"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "http_two_framings"),
        (b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", "http_unasked_upgrade"),
        (b"HTTP/2 200\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "http_head_too_large"),
    ],
)
async def test_an_answer_that_can_be_read_two_ways_is_a_bad_gateway(head: bytes, reason: str | None) -> None:
    async with world() as here:
        client, outer = await begun(here)
        await outer.send(head)
        answer = await read_answer(client)
        assert answer.status == 502
        assert answer.reason == reason or reason is None
        client.close()
        await here.quiet()
        assert [(r.end, r.ended_by) for r in here.records] == [(answer.reason, "external")]


@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
async def test_an_answer_that_breaks_off_breaks_off_for_the_client_too(framing: bytes) -> None:
    async with world() as here:
        client, outer = await begun(here)
        await outer.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        await read_answer_head(client)
        outer.close()
        assert (await client.outcome())[1] == "reset"
        await here.quiet()
        assert [(r.end, r.ended_by) for r in here.records] == [("http_truncated", "external")]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"zz\r\n", "http_chunk_size"),
        (b"3\r\nabcX", "http_chunk_end"),
        (b"1" * 300, "http_chunk_line_too_long"),
        (b"0\r\nContent-Length: 3\r\n\r\n", "http_trailer"),
    ],
)
async def test_a_body_that_breaks_its_framing_is_refused_and_ends_the_connection(
    sent: bytes, reason: str
) -> None:
    async with world() as here:
        client, outer = await begun(here, CHUNKED, method="POST")
        await client.send(sent)
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (400, reason)
        assert (await outer.outcome())[1] == "reset"  # the server must not take a part for the whole
        client.close()
        await here.quiet()
        assert [(r.action, r.end, r.ended_by) for r in here.records] == [("allow", reason, "internal")]


async def test_no_second_answer_is_written_into_one_that_has_begun() -> None:
    async with world() as here:
        client, outer = await begun(here, CHUNKED, method="POST")
        await outer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n12345")
        await read_answer_head(client)
        assert await client.receive(5) == b"12345"
        await client.send(b"zz\r\n")
        assert await client.outcome() == (b"", "reset")
        assert (await outer.outcome())[1] == "reset"


async def test_a_body_that_breaks_off_ends_the_connection_with_one_record() -> None:
    async with world() as here:
        client, outer = await begun(here, "Content-Length: 10", method="POST")
        await client.send(b"12345")
        await outer.receive(5)
        client.half_close()
        assert (await outer.outcome())[1] == "reset"
        await client.outcome()
        await here.quiet()
        assert [(r.action, r.end, r.ended_by) for r in here.records] == [
            ("allow", "http_truncated", "internal")
        ]


async def test_an_answer_that_does_not_come_is_a_gateway_timeout() -> None:
    async with world(HEAD + limits(idle_timeout_s=0.2) + RULE) as here:
        client, outer = await begun(here)
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (504, "timed_out")
        assert (await outer.outcome())[1] == "reset"


async def test_a_client_that_does_not_read_its_answer_is_let_go_in_time() -> None:
    async with world(HEAD + limits(idle_timeout_s=0.4) + RULE) as here:
        _, outer = await begun(here)
        await outer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await outer.send(bytes(100_000_000))
        await here.quiet()
        assert len(here.records) == 1


async def test_a_server_that_does_not_read_the_upload_is_let_go_in_time() -> None:
    async with world(HEAD + limits(idle_timeout_s=0.4) + RULE) as here:
        client, _ = await begun(here, "Content-Length: 100000000", method="POST")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await client.send(bytes(100_000_000))
        await here.quiet()
        assert [(r.action, r.end) for r in here.records] == [("allow", "timed_out")]
