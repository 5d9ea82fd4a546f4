import json

import h11
import pytest

from doorward.wire.http.model import Request
from doorward.wire.http.reader import RequestReader
from doorward.wire.http.refusal import PHRASES, refusal


def asking(accept: bytes | None = None, line: bytes = b"GET http://a.test/ HTTP/1.1") -> Request:
    fields = [b"Host: a.test"] + ([] if accept is None else [b"Accept: " + accept])
    request = RequestReader().receive(b"\r\n".join((line, *fields, b"", b"")))[0]
    assert isinstance(request, Request)
    return request


def receive(sent: bytes, method: str = "GET") -> tuple[int, dict[bytes, bytes], bytes]:
    """What a client makes of it; nothing may follow."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a.test")]))
    client.send(h11.EndOfMessage())
    client.receive_data(sent)
    head = client.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data)
        body += event.data
    assert client.trailing_data == (b"", False)
    return head.status_code, dict(head.headers), body


@pytest.mark.parametrize("status", sorted(PHRASES))
def test_every_refusal_is_a_whole_answer_that_names_its_reason(status: int) -> None:
    got, headers, body = receive(refusal(status, "no_rule", "No rule allows this.", rule="last"))
    assert got == status
    assert headers[b"doorward-reason"] == b"no_rule"
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"
    assert headers[b"connection"] == b"close"
    assert body == b"doorward: No rule allows this.\nreason: no_rule, rule: last\n"


def test_a_client_that_must_say_who_it_is_learns_how() -> None:
    _, headers, _ = receive(refusal(407, "needs_user", "Who is it?"))
    assert headers[b"proxy-authenticate"] == b'Basic realm="doorward", charset="UTF-8"'


def test_a_method_that_is_not_allowed_comes_with_those_that_are() -> None:
    _, headers, _ = receive(refusal(405, "http_trace", "No."))
    assert b"GET" in headers[b"allow"]
    assert b"TRACE" not in headers[b"allow"]


@pytest.mark.parametrize(
    ("accept", "is_json"),
    [
        (None, False),
        (b"*/*", False),
        (b"application/json", True),
        (b"text/html, application/json;q=0.9, */*;q=0.1", False),
        (b"application/json, text/plain, */*", False),
        (b"application/json, text/plain;q=0.5", True),
        (b"application/json, */*;q=0.5", True),
        (b"application/json;q=0", False),
        (b"application/json;q=nan", False),
        (b"application/json;q=", False),
        (b"application/json;q=.", False),
        (b",;=,;q,", False),
    ],
)
def test_a_program_that_prefers_json_gets_json(accept: bytes | None, is_json: bool) -> None:
    _, headers, body = receive(refusal(403, "no_rule", "No.", rule="last", request=asking(accept)))
    assert (headers[b"content-type"] == b"application/json") is is_json
    if is_json:
        assert json.loads(body) == {"reason": "no_rule", "message": "No.", "rule": "last"}


def test_head_is_refused_without_a_body() -> None:
    sent = refusal(403, "no_rule", "No.", request=asking(line=b"HEAD http://a.test/ HTTP/1.1"))
    assert sent.endswith(b"\r\n\r\n")
    assert receive(sent, "HEAD")[2] == b""


def test_nothing_from_the_network_reaches_the_client_unescaped() -> None:
    hostile = "a\r\nX-Injected: 1\r\n\r\n\x1b[2J\u202e"
    for request in (asking(), asking(b"application/json")):
        sent = refusal(403, "bad\r\nX-Injected: 1\u00e9", hostile, rule=hostile, request=request)
        _, headers, body = receive(sent)
        assert b"x-injected" not in headers
        assert b"\x1b" not in body
        assert "\u202e" not in body.decode()
        assert b"\r" not in body


def test_a_long_text_is_cut() -> None:
    assert len(refusal(403, "no_rule", "x" * 100_000)) < 2_000


def test_a_header_that_would_split_the_answer_is_not_written() -> None:
    with pytest.raises(ValueError, match="line break"):
        refusal(403, "no_rule", "No.", headers=[(b"A", b"b\r\nC: d")])


def test_a_connection_may_be_kept_and_an_old_client_is_told_so() -> None:
    _, headers, _ = receive(refusal(403, "no_rule", "No.", headers=[(b"Retry-After", b"5")], keep_alive=True))
    assert b"connection" not in headers
    assert headers[b"retry-after"] == b"5"
    old = asking(line=b"GET http://a.test/ HTTP/1.0")
    _, headers, _ = receive(refusal(403, "no_rule", "No.", request=old, keep_alive=True))
    assert headers[b"connection"] == b"keep-alive"
