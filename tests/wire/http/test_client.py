import pytest

from doorward.wire.http.client import ConnectResponse, ConnectResponseReader, connect_request
from doorward.wire.http.errors import HttpError
from doorward.wire.http.model import Request
from doorward.wire.http.reader import RequestReader
from doorward.wire.http.response_reader import INTERIM_MAX

OPENED = b"HTTP/1.0 200 Connection established\r\nA: b\r\n\r\n"


def receive(sent: bytes, step: int) -> ConnectResponse | None:
    reader = ConnectResponseReader()
    for at in range(0, len(sent), step):
        answer = reader.receive(sent[at : at + step])
        if answer is not None:
            return answer._replace(leftover=answer.leftover + sent[at + step :])
    return None


@pytest.mark.parametrize(("host", "port"), [("a.test", 443), ("192.0.2.1", 1), ("2001:db8::1", 65535)])
def test_our_own_reader_understands_what_we_ask(host: str, port: int) -> None:
    request = RequestReader().receive(connect_request(host, port, b"Basic dTpw"))[0]
    assert isinstance(request, Request)
    assert (request.host, request.port, request.proxy_authorization) == (host, port, b"Basic dTpw")


@pytest.mark.parametrize(
    ("host", "port"), [("a\r\nb", 1), ("", 1), ("a/b", 1), ("a", 0), ("a", 65536), ("u@a", 1)]
)
def test_what_cannot_be_asked_for_is_not_written(host: str, port: int) -> None:
    with pytest.raises(HttpError):
        connect_request(host, port)


def test_credentials_cannot_split_the_request() -> None:
    with pytest.raises(ValueError, match="line break"):
        connect_request("a.test", 443, b"x\r\nA: b")


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_an_opened_tunnel_begins_right_behind_the_head(step: int) -> None:
    answer = receive(OPENED + b"\x16\x03", step)
    assert answer == ConnectResponse(200, b"Connection established", ((b"A", b"b"),), b"\x16\x03")
    assert answer.opened


def test_framing_of_an_opened_tunnel_means_nothing() -> None:
    for field in (b"Content-Length: 5", b"Transfer-Encoding: chunked"):
        answer = receive(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\nx", 1000)
        assert answer is not None
        assert answer.leftover == b"x"


def test_an_upstream_that_refuses_is_understood() -> None:
    answer = receive(b"HTTP/1.1 407 Who?\r\nContent-Length: 2\r\n\r\nno", 1000)
    assert answer is not None
    assert (answer.status, answer.opened) == (407, False)


def test_interim_answers_are_skipped_but_not_without_end() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert receive(interim * INTERIM_MAX + OPENED, 10) is not None
    with pytest.raises(HttpError) as caught:
        receive(interim * (INTERIM_MAX + 1), 1000)
    assert caught.value.reason == "http_interim"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"SSH", "http_malformed"),
        (b"HTTP/1.1 200 OK\nA: b\n\n", "http_bare_lf"),
        (b"H" * 65_536, "http_head_too_large"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "http_two_framings"),
        (b"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "http_unasked_upgrade"),
    ],
)
def test_an_upstream_that_answers_badly_is_a_bad_gateway(sent: bytes, reason: str) -> None:
    with pytest.raises(HttpError) as caught:
        receive(sent, 10_000)
    assert (caught.value.reason, caught.value.status) == (reason, 502)


def test_an_upstream_that_says_nothing_is_a_bad_gateway() -> None:
    reader = ConnectResponseReader()
    assert reader.receive(b"") is None
    with pytest.raises(HttpError) as caught:
        reader.eof()
    assert (caught.value.reason, caught.value.status) == ("http_no_response", 502)
