import pytest
from tests.wire.http.golden import request_for

from doorward.wire.http.errors import HttpError
from doorward.wire.http.model import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, Response
from doorward.wire.http.response import read_response


def response(head: bytes, asked: str = "GET") -> Response:
    return read_response(head + b"\r\n\r\n", request_for(asked.split()))


def refused(head: bytes, asked: str = "GET") -> str:
    with pytest.raises(HttpError) as caught:
        response(head, asked)
    return caught.value.reason


def test_everything_the_writer_needs_is_there() -> None:
    assert response(
        b"HTTP/1.1 404 Not \xe9 Found\r\nA: b\r\nContent-Length: 7\r\nConnection: X-Hop"
    ) == Response(
        status=404,
        reason=b"Not \xe9 Found",
        version="1.1",
        headers=((b"A", b"b"), (b"Content-Length", b"7"), (b"Connection", b"X-Hop")),
        framing=Framing("length", 7),
        options=frozenset({b"x-hop"}),
        keep_alive=True,
    )


@pytest.mark.parametrize(
    ("asked", "head", "framing", "declared"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", CHUNKED, None),
        ("GET", b"HTTP/1.1 200 OK", UNTIL_CLOSE, None),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 7", NO_BODY, 7),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", NO_BODY, None),
        ("HEAD", b"HTTP/1.1 200 OK", NO_BODY, None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7", NO_BODY, 7),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 7", NO_BODY, None),
        ("GET", b"HTTP/1.1 103 Early Hints\r\nContent-Length: 7", NO_BODY, None),
        ("GET", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0", Framing("length", 0), None),
    ],
)
def test_where_the_body_ends_follows_from_question_and_answer(
    asked: str, head: bytes, framing: Framing, declared: int | None
) -> None:
    judged = response(head, asked)
    assert (judged.framing, judged.declared_length) == (framing, declared)


def test_a_body_until_close_uses_the_connection_up() -> None:
    assert not response(b"HTTP/1.1 200 OK\r\nConnection: keep-alive").keep_alive


def test_interim_answers_are_told_from_final_ones() -> None:
    assert response(b"HTTP/1.1 100 Continue").is_interim
    assert not response(b"HTTP/1.1 200 OK").is_interim
    switched = response(b"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: WebSocket", "GET upgrade")
    assert not switched.is_interim
    assert not switched.keep_alive


def test_a_switch_must_be_the_one_that_was_asked_for() -> None:
    assert refused(b"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: websocket") == "http_unasked_upgrade"
    assert refused(b"HTTP/1.1 101 OK\r\nUpgrade: websocket", "GET upgrade") == "http_switch"
    assert refused(b"HTTP/1.1 101 OK\r\nConnection: upgrade", "GET upgrade") == "http_switch"
    assert refused(b"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: h2c", "GET upgrade") == "http_switch"


def test_an_answer_that_could_be_framed_two_ways_is_refused_even_without_a_body() -> None:
    two = b"\r\nContent-Length: 7\r\nTransfer-Encoding: chunked"
    assert refused(b"HTTP/1.1 200 OK" + two) == "http_two_framings"
    assert refused(b"HTTP/1.1 304 OK" + two) == "http_two_framings"
    assert refused(b"HTTP/1.1 200 OK" + two, "HEAD") == "http_two_framings"


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1 2000",
        b"HTTP/1.1 20",
        b"HTTP/1.1 2x0",
        b"HTTP/1.1 200OK",
        b"http/1.1 200 OK",
    ],
)
def test_a_status_line_has_a_version_and_three_digits(line: bytes) -> None:
    assert refused(line) == "http_malformed"


def test_versions_we_do_not_speak_are_named_as_such() -> None:
    assert refused(b"HTTP/2.0 200 OK") == "http_version"
    assert refused(b"HTTP/0.9 200 OK") == "http_version"
