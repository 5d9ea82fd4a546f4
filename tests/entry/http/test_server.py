from __future__ import annotations

import json

import pytest
from tests.entry.conftest import come_in_by
from tests.entry.http.requests import AMBIGUOUS, answer_with, connect, get, login
from tests.entry.peers import Peer, read_answer, read_request
from tests.entry.world import HEAD, ONLY_USERS, RULE, limits, user, world

from doorward.api.errors import DoorwardError, OutOfResources, Side, Unreachable

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("way_in")]

USERS = HEAD + user("kim", "right") + ONLY_USERS


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_connect_opens_a_tunnel_and_what_was_sent_ahead_arrives_first(address: str) -> None:
    async with world() as here:
        server = here.server(address)
        client = await here.client(connect(server.authority) + b"ahead")
        outer = await here.accept(server)
        await client.send(b" and after")
        assert await outer.receive(15) == b"ahead and after"
        assert await client.receive_until(b"\r\n\r\n") == b"HTTP/1.1 200 Connection established\r\n\r\n"
        await outer.send(b"answer")
        outer.close()
        assert await client.receive_rest() == b"answer"
        client.close()
        record = await here.record()
        assert (record.entry, record.action, record.end) == ("http-connect", "allow", "closed")
        assert (record.bytes_sent, record.bytes_received, record.address) == (15, 6, address)


async def test_connect_as_old_windows_clients_write_it() -> None:
    async with world() as here:
        server = here.server()
        client = await here.client(connect(server.authority, "Content-Length: 0"))
        await here.accept(server)
        assert (await client.receive_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_one_client_connection_reaches_two_servers_in_turn() -> None:
    async with world() as here:
        first, second = here.server(), here.server()
        client = await here.client()
        for number, server in enumerate([first, second, first]):
            await client.send(get(server, f"/{number}"))
            outer = await here.accept(server)
            assert await answer_with(outer, b"page %d" % number) == f"GET /{number} HTTP/1.1"
            assert (await read_answer(client)).body == b"page %d" % number
        client.close()
        await here.quiet()
        assert [record.port for record in here.records] == [first.port, second.port, first.port]
        assert {(record.action, record.entry, record.end) for record in here.records} == {
            ("allow", "http", "closed")
        }


async def test_a_kept_server_connection_serves_the_next_request_to_the_same_place() -> None:
    async with world() as here:
        server = here.server()
        client = await here.client(get(server, "/a"))
        outer = await here.accept(server)
        for path in ("/a", "/b", "/c"):
            if path != "/a":
                await client.send(get(server, path))
            assert await answer_with(outer, path.encode()) == f"GET {path} HTTP/1.1"
            assert (await read_answer(client)).body == path.encode()
        client.close()
        await here.quiet()
        assert len(here.records) == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with world() as here:
        server, other = here.server(), here.server()
        client = await here.client(
            get(server, "/1") + get(server, "/2") + get(other, "/3") + get(server, "/4")
        )
        outer = await here.accept(server)
        assert await answer_with(outer, b"1") == "GET /1 HTTP/1.1"
        assert await answer_with(outer, b"2") == "GET /2 HTTP/1.1"
        assert await answer_with(await here.accept(other), b"3") == "GET /3 HTTP/1.1"
        assert await answer_with(await here.accept(server), b"4") == "GET /4 HTTP/1.1"
        assert [(await read_answer(client)).body for _ in range(4)] == [b"1", b"2", b"3", b"4"]


async def test_a_client_that_ends_after_its_request_is_still_answered() -> None:
    async with world() as here:
        server = here.server()
        client = await here.client(get(server))
        client.half_close()
        await answer_with(await here.accept(server), b"page")
        answer = await read_answer(client)
        assert answer.body == b"page"
        assert await client.receive_rest() == b""


async def test_a_missing_login_is_asked_for_and_succeeds_on_the_same_connection() -> None:
    async with world(USERS) as here:
        server = here.server()
        client = await here.client(get(server))
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (407, "needs_user")
        assert answer.fields["proxy-authenticate"].startswith("Basic ")
        await client.send(get(server, "/", login("kim", "right")))
        outer = await here.accept(server)
        line, fields = await read_request(outer)
        assert line == "GET / HTTP/1.1"
        assert "proxy-authorization" not in fields
        await outer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert (await read_answer(client)).status == 204
        client.close()
        await here.quiet()
        assert [(r.action, r.reason, r.user) for r in here.records] == [
            ("deny", "needs_user", None),
            ("allow", "rule_allow", "kim"),
        ]


async def test_connect_without_a_login_is_asked_for_one_and_closed() -> None:
    async with world(USERS) as here:
        server = here.server()
        client = await here.client(connect(server.authority))
        answer = await read_answer(client)
        assert (answer.status, answer.fields["connection"]) == (407, "close")
        assert await client.receive_rest() == b""
        client = await here.client(connect(server.authority, login("kim", "right")))
        await here.accept(server)
        assert (await client.receive_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("method", ["GET", "CONNECT"])
@pytest.mark.parametrize(("name", "password"), [("kim", "wrong"), ("nobody", "right")])
async def test_a_wrong_login_is_refused_and_on_record_with_its_name(
    method: str, name: str, password: str
) -> None:
    async with world(USERS) as here:
        server = here.server()
        credentials = login(name, password)
        request = (
            connect(server.authority, credentials) if method == "CONNECT" else get(server, "/", credentials)
        )
        client = await here.client(request)
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (407, "bad_credentials")
        assert await client.receive_rest() == b""
        client.close()
        await here.quiet()
        assert [(r.action, r.reason, r.user) for r in here.records] == [("deny", "bad_credentials", name)]
        assert not server.has_client()


@pytest.mark.parametrize("field", ["Basic", "Basic !!!!", "Bearer abc", "Basic a2lt", "Basic Og=="])
async def test_a_login_that_is_none_is_refused_with_a_challenge(field: str) -> None:
    async with world(USERS) as here:
        client = await here.client(get(here.server(), "/", f"Proxy-Authorization: {field}"))
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (407, "bad_credentials_form")
        assert "proxy-authenticate" in answer.fields


async def test_a_refusal_says_why_in_the_form_that_is_wanted_and_the_next_request_may_follow() -> None:
    no = '[[rule]]\nname = "no \\"admin\\""\naction = "deny"\nprotocols = ["any"]\n'
    async with world(HEAD + no) as here:
        server = here.server()
        client = await here.client(get(server, "/", "Accept: application/json"))
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (403, "rule_deny")
        assert answer.fields["content-type"] == "application/json"
        told = json.loads(answer.body)
        assert (told["reason"], told["rule"]) == ("rule_deny", 'no "admin"')
        await client.send(get(server))
        answer = await read_answer(client)
        assert (answer.status, answer.fields["content-type"]) == (403, "text/plain; charset=utf-8")
        assert b"rule_deny" in answer.body
        await client.send(get(server, method="HEAD"))
        answer = await read_answer(client, body=False)
        assert answer.status == 403
        client.half_close()
        assert await client.receive_rest() == b""
        await here.quiet()
        assert [r.reason for r in here.records] == ["rule_deny"] * 3
        assert not server.has_client()


async def test_a_refused_upload_is_told_and_the_connection_closed() -> None:
    async with world(HEAD) as here:
        server = here.server()
        client = await here.client(get(server, "/", "Content-Length: 5", method="POST") + b"hello")
        answer = await read_answer(client)
        assert (answer.status, answer.reason, answer.fields["connection"]) == (
            403,
            "guarded_loopback",
            "close",
        )
        assert await client.receive_rest() == b""


async def test_nobody_listening_is_a_bad_gateway() -> None:
    async with world() as here:
        client = await here.client(get(here.server(listening=False)))
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (502, "connection_refused")


async def test_a_name_without_an_address_is_a_bad_gateway() -> None:
    async with world(HEAD + '[[rule]]\nname = "web"\naction = "allow"\nprotocols = ["any"]\n') as here:
        here.names()
        client = await here.client(b"GET http://nowhere.example/ HTTP/1.1\r\nHost: nowhere.example\r\n\r\n")
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (502, "name_not_found")
        assert b"nowhere.example" in answer.body


@pytest.mark.parametrize(
    ("error", "status"),
    [(Unreachable("no route", side=Side.EXTERNAL), 502), (OutOfResources("no room", side=Side.OURS), 503)],
)
@pytest.mark.parametrize("method", ["GET", "CONNECT"])
async def test_what_dialling_meets_is_told_by_status(
    monkeypatch: pytest.MonkeyPatch, error: DoorwardError, status: int, method: str
) -> None:
    async def fail(*_: object) -> None:
        raise error

    come_in_by("python", monkeypatch)  # who dials there; for native code see the likeness
    monkeypatch.setattr("doorward.engine.connecting.dial", fail)
    async with world() as here:
        server = here.server()
        client = await here.client(connect(server.authority) if method == "CONNECT" else get(server))
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (status, error.reason)
        assert (await here.record()).reason == error.reason


async def test_a_server_that_cannot_be_reached_in_time_is_a_gateway_timeout() -> None:
    async with world(HEAD + limits(connect_timeout_s=0.2) + RULE) as here:
        server = here.server(backlog=0)
        here.keep(await Peer.connect("127.0.0.1", server.port))
        client = await here.client(get(server))
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (504, "timed_out")


async def test_a_full_table_of_sessions_is_no_room() -> None:
    async with world(HEAD + limits(sessions_max=1) + user("kim", "right") + RULE) as here:
        server = here.server()
        await here.tunnel(server)
        client = await here.client(get(server, "/", login("kim", "right")))
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (503, "out_of_resources")
        record = await here.record()
        assert (record.action, record.reason) == ("fail", "out_of_resources")


@pytest.mark.parametrize(("head", "status", "reason"), AMBIGUOUS)
async def test_a_request_that_can_be_read_two_ways_is_refused_with_the_reason(
    head: str, status: int, reason: str | None
) -> None:
    async with world() as here:
        client = await here.client(head.encode())
        answer = await read_answer(client)
        assert answer.status == status
        assert answer.reason == reason or (reason is None and (answer.reason or "").startswith("http_"))
        assert await client.receive_rest() == b""
        client.close()
        await here.quiet()
        assert [(r.reason, r.connection) for r in here.records] == [(answer.reason, 0)]


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1"])
@pytest.mark.parametrize("method", ["GET", "CONNECT"])
async def test_a_disguised_address_is_judged_as_what_it_is(host: str, method: str) -> None:
    anywhere = '[[rule]]\nname = "anywhere"\naction = "allow"\nprotocols = ["any"]\n'
    async with world(HEAD + anywhere) as here:
        authority = f"{host}:{here.server().port}"
        plain = f"GET http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
        client = await here.client(connect(authority) if method == "CONNECT" else plain)
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (403, "guarded_loopback")
        assert (await here.record()).address == "127.0.0.1"


async def test_a_disguised_address_that_is_allowed_reaches_the_server_with_the_host_as_it_was_written() -> (
    None
):
    async with world() as here:
        server = here.server()
        client = await here.client(
            f"GET http://127.1:{server.port}/ HTTP/1.1\r\nHost: 127.1:{server.port}\r\n\r\n".encode()
        )
        outer = await here.accept(server)
        _, fields = await read_request(outer)
        assert fields["host"] == f"127.1:{server.port}"
        await outer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert (await read_answer(client)).status == 204


async def test_a_head_that_does_not_come_in_time_is_told_so() -> None:
    async with world(HEAD + limits(handshake_timeout_s=0.2) + RULE) as here:
        client = await here.client(b"GET http://a.test/ HT")
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (408, "handshake_timeout")
        assert await client.receive_rest() == b""
        client.close()
        record = await here.record()
        assert (record.action, record.reason) == ("fail", "handshake_timeout")


async def test_a_second_head_that_does_not_come_in_time_is_told_so() -> None:
    async with world(HEAD + limits(handshake_timeout_s=0.2) + RULE) as here:
        server = here.server()
        client = await here.client(get(server) + b"G")
        await answer_with(await here.accept(server), b"page")
        assert (await read_answer(client)).body == b"page"
        assert (await read_answer(client)).status == 408


async def test_a_kept_connection_that_stays_quiet_is_closed_without_a_record_of_its_own() -> None:
    async with world(HEAD + limits(idle_timeout_s=0.3) + RULE) as here:
        server = here.server()
        client = await here.client(get(server))
        await answer_with(await here.accept(server), b"page")
        assert (await read_answer(client)).body == b"page"
        assert await client.receive_rest() == b""
        await here.quiet()
        assert [r.end for r in here.records] == ["closed"]


async def test_a_head_that_is_too_large_is_told_so() -> None:
    async with world(HEAD + limits(header_bytes_max=2000) + RULE) as here:
        client = await here.client(b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX: " + b"x" * 3000)
        answer = await read_answer(client)
        assert (answer.status, answer.reason) == (431, "http_head_too_large")
        assert await client.receive_rest() == b""


HEAD_WHOLE = b"POST http://127.0.0.1:9/ HTTP/1.1\r\nHost: 127.0.0.1:9\r\nContent-Length: 3\r\n\r\n"


@pytest.mark.parametrize("end", ["closes", "resets"])
async def test_a_head_cut_off_at_any_byte_leaves_one_record_with_a_reason(end: str) -> None:
    async with world() as here:
        for length in range(1, len(HEAD_WHOLE)):
            client = await here.client(HEAD_WHOLE[:length])
            if end == "closes":
                client.half_close()
                await client.outcome()
                client.close()
            else:
                await here.until(lambda: here.firewall.entry.serving > 0)
                client.reset()
            record = await here.record(length)
            assert (record.action, record.connection) == ("fail", 0), length
            assert record.reason in ("http_truncated", "reset"), length
        await here.quiet()
        assert len(here.records) == len(HEAD_WHOLE) - 1


async def test_a_client_that_resets_its_tunnel_leaves_one_record() -> None:
    async with world() as here:
        server = here.server()
        client = await here.client(connect(server.authority))
        outer = await here.accept(server)
        await client.receive_until(b"\r\n\r\n")
        client.reset()
        assert await outer.outcome() == (b"", "reset")
        await here.quiet()
        assert [(r.action, r.end, r.ended_by) for r in here.records] == [("allow", "reset", "internal")]


async def test_a_client_that_vanishes_while_we_dial_leaves_one_record() -> None:
    async with world(HEAD + limits(connect_timeout_s=0.2) + RULE) as here:
        server = here.server(backlog=0)
        here.keep(await Peer.connect("127.0.0.1", server.port))
        for request in (connect(server.authority), get(server)):
            client = await here.client(request)
            await here.until(lambda: bool(here.firewall.engine.connections))
            client.reset()
            await here.quiet()
        assert [record.reason for record in here.records] == ["timed_out", "timed_out"]


async def test_a_login_on_a_later_request_does_not_use_a_connection_made_without_it() -> None:
    rules = HEAD + user("kim", "right") + RULE
    async with world(rules) as here:
        server = here.server()
        client = await here.client(get(server))
        await answer_with(await here.accept(server), b"1")
        assert (await read_answer(client)).body == b"1"
        await client.send(get(server, "/", login("kim", "right")))
        await answer_with(await here.accept(server), b"2")
        assert (await read_answer(client)).body == b"2"
        here.part()
        await here.quiet()
        assert [r.user for r in here.records] == [None, "kim"]
