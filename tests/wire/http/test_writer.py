import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.wire.http.golden import request_for

from doorward.wire.http.model import CHUNKED, UNTIL_CLOSE, Framing, Request, Response
from doorward.wire.http.reader import RequestReader
from doorward.wire.http.response import read_response
from doorward.wire.http.writer import (
    body,
    body_end,
    chunk,
    last_chunk,
    request_head,
    response_framing,
    response_head,
    write_head,
)


def request(*fields: bytes, line: bytes = b"GET http://A.test:80/p?q HTTP/1.1") -> Request:
    judged = RequestReader().receive(b"\r\n".join((line, b"Host: a.test", *fields, b"", b"")))[0]
    assert isinstance(judged, Request)
    return judged


def response(head: bytes, asked: str = "GET") -> tuple[Response, Request]:
    question = request_for(asked.split())
    return read_response(head + b"\r\n\r\n", question), question


def written(head: bytes, asked: str = "GET", *, keep_alive: bool = True) -> list[bytes]:
    return (
        response_head(*response(head, asked), keep_alive=keep_alive).removesuffix(b"\r\n\r\n").split(b"\r\n")
    )


def lines(
    *fields: bytes, line: bytes = b"GET http://A.test:80/p?q HTTP/1.1", keep_alive: bool = True
) -> list[bytes]:
    return (
        request_head(request(*fields, line=line), keep_alive=keep_alive)
        .removesuffix(b"\r\n\r\n")
        .split(b"\r\n")
    )


def test_a_request_is_written_in_origin_form_with_the_judged_host() -> None:
    assert lines(b"uSER-Agent:  x ", b"Accept: a", b"accept: b") == [
        b"GET /p?q HTTP/1.1",
        b"Host: a.test",
        b"uSER-Agent: x",
        b"Accept: a",
        b"accept: b",
    ]


def test_hop_by_hop_fields_and_those_connection_names_end_here() -> None:
    kept = lines(
        b"Connection: keep-alive, X-Hop",
        b"x-hop: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"Proxy-Authorization: Basic dTpw",
        b"Proxy-Anything: 1",
        b"TE: trailers",
        b"Trailer: X-Sum",
        b"Upgrade: h2c",
        b"HTTP2-Settings: x",
        b"Doorward-Reason: x",
        b"X-End: 1",
    )
    assert kept == [b"GET /p?q HTTP/1.1", b"Host: a.test", b"X-End: 1"]


def test_the_framing_of_a_request_is_written_anew() -> None:
    assert lines(b"Content-Length: 005", b"A: b")[2:] == [b"A: b", b"Content-Length: 5"]
    assert lines(b"Transfer-Encoding: CHUNKED", b"Trailer: A")[2:] == [
        b"Trailer: A",
        b"Transfer-Encoding: chunked",
    ]
    assert lines(b"Content-Length: 0")[2:] == [b"Content-Length: 0"]


def test_the_go_ahead_is_asked_for_by_the_server_not_by_us() -> None:
    assert b"Expect: 100-continue" in lines(b"Expect: 100-continue", b"Content-Length: 1")


def test_only_a_websocket_handshake_is_passed_on_as_an_upgrade() -> None:
    kept = lines(b"Upgrade: WebSocket", b"Connection: keep-alive, Upgrade", b"Sec-WebSocket-Key: x")
    assert kept[2:] == [b"Sec-WebSocket-Key: x", b"Connection: Upgrade", b"Upgrade: websocket"]


def test_a_server_connection_that_is_not_kept_says_so() -> None:
    assert lines(keep_alive=False)[2:] == [b"Connection: close"]


def test_a_head_that_a_filter_broke_is_not_written() -> None:
    for value in (b"a\r\nX: y", b"a\ny", b"a\ry", b"a\0"):
        with pytest.raises(ValueError, match="line break"):
            request_head(request()._replace(headers=((b"A", value),)))
        with pytest.raises(ValueError, match="line break"):
            last_chunk(((b"A", value),))
        with pytest.raises(ValueError, match="line break"):
            write_head(b"HTTP/1.1 200 " + value, ())


def test_a_response_keeps_its_fields_and_loses_the_hops() -> None:
    head = (
        b"HTTP/1.0 404 Gone away\r\nserver: x\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n"
        b"Content-Length: 3\r\nProxy-Authenticate: Basic\r\nUpgrade: h2\r\nDoorward-Reason: forged\r\n"
        b"Set-Cookie: a\r\nSet-Cookie: b"
    )
    assert written(head) == [
        b"HTTP/1.1 404 Gone away",
        b"server: x",
        b"Set-Cookie: a",
        b"Set-Cookie: b",
        b"Content-Length: 3",
    ]


@pytest.mark.parametrize(
    ("asked", "head", "last"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        ("GET", b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked"),
        ("GET 1.0", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", b"Connection: close"),
        ("GET 1.0", b"HTTP/1.1 200 OK", b"Connection: close"),
        ("GET 1.0", b"HTTP/1.1 200 OK\r\nContent-Length: 1", b"Connection: keep-alive"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 7", b"Content-Length: 7"),
        ("HEAD", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK"),
        ("GET", b"HTTP/1.1 304 OK\r\nContent-Length: 7", b"Content-Length: 7"),
        ("GET", b"HTTP/1.1 204 OK\r\nContent-Length: 7", b"HTTP/1.1 204 OK"),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: x", b"Link: x"),
    ],
)
def test_a_client_gets_the_framing_it_understands(asked: str, head: bytes, last: bytes) -> None:
    kept = written(head, asked)
    assert kept[-1] == last
    assert sum(line.startswith((b"Content-Length", b"Transfer-Encoding")) for line in kept) <= 1


def test_a_client_connection_that_is_not_kept_says_so() -> None:
    assert written(b"HTTP/1.1 204 OK", keep_alive=False)[-1] == b"Connection: close"


def test_an_accepted_websocket_is_passed_back() -> None:
    head = b"HTTP/1.1 101 Hi\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x"
    assert written(head, "GET upgrade") == [
        b"HTTP/1.1 101 Hi",
        b"Sec-WebSocket-Accept: x",
        b"Connection: Upgrade",
        b"Upgrade: websocket",
    ]


def test_trailers_are_announced_only_to_those_who_get_them() -> None:
    head = b"HTTP/1.1 200 OK\r\nTrailer: A\r\nTransfer-Encoding: chunked"
    assert b"Trailer: A" in written(head)
    assert b"Trailer: A" not in written(head, "GET 1.0")


def test_a_body_follows_its_framing() -> None:
    assert body(CHUNKED, b"hello") == b"5\r\nhello\r\n"
    assert body(UNTIL_CLOSE, b"hello") == body(Framing("length", 5), b"hello") == b"hello"
    assert body_end(CHUNKED, ((b"A", b"b"),)) == b"0\r\nA: b\r\n\r\n"
    assert body_end(UNTIL_CLOSE, ((b"A", b"b"),)) == b""


def test_no_bytes_are_no_chunk_because_an_empty_one_would_end_the_body() -> None:
    assert chunk(b"") == b""


def test_trailers_that_would_frame_route_or_authenticate_are_left_out() -> None:
    names = (
        b"Content-Length",
        b"Transfer-Encoding",
        b"Host",
        b"Authorization",
        b"Set-Cookie",
        b"Trailer",
        b"Proxy-A",
    )
    assert last_chunk(tuple((name, b"x") for name in names)) == b"0\r\n\r\n"


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_a_chunked_answer_means_to_h11_what_it_meant_to_us(pieces: list[bytes]) -> None:
    judged, question = response(b"HTTP/1.1 200 OK")
    framing = response_framing(judged, question)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a.test")]))
    client.send(h11.EndOfMessage())
    sent = response_head(judged, question, keep_alive=True) + b"".join(
        body(framing, piece) for piece in pieces
    )
    client.receive_data(sent + body_end(framing))
    received = b""
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        if isinstance(event, h11.Data):
            received += event.data
    assert received == b"".join(pieces)
    assert client.trailing_data == (b"", False)
