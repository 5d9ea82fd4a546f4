import pytest

from doorward.wire.http.errors import HttpError
from doorward.wire.http.model import CHUNKED, NO_BODY, Framing, Request
from doorward.wire.http.request import METHOD_BYTES_MAX, read_request


def request(*fields: bytes, line: bytes = b"GET http://a.test/ HTTP/1.1", host: bytes = b"a.test") -> Request:
    return read_request(b"\r\n".join((line, b"Host: " + host, *fields, b"", b"")))


def refused(
    *fields: bytes, line: bytes = b"GET http://a.test/ HTTP/1.1", host: bytes = b"a.test"
) -> tuple[int, str]:
    with pytest.raises(HttpError) as caught:
        request(*fields, line=line, host=host)
    return caught.value.status, caught.value.reason


def test_everything_a_judgement_needs_is_there() -> None:
    judged = request(
        b"Proxy-Authorization: Basic dTpw",
        b"Content-Length: 3",
        b"Connection: X-Hop",
        line=b"POST http://A.test:8080/p?q HTTP/1.1",
        host=b"a.TEST:8080",
    )
    assert judged == Request(
        method="POST",
        host="a.test",
        port=8080,
        authority=b"a.test:8080",
        path=b"/p?q",
        version="1.1",
        headers=(
            (b"Host", b"a.TEST:8080"),
            (b"Proxy-Authorization", b"Basic dTpw"),
            (b"Content-Length", b"3"),
            (b"Connection", b"X-Hop"),
        ),
        framing=Framing("length", 3),
        options=frozenset({b"x-hop"}),
        keep_alive=True,
        expect_continue=False,
        upgrade=None,
        proxy_authorization=b"Basic dTpw",
    )


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "QUERY"]
)
def test_ordinary_methods_are_known(method: str) -> None:
    assert request(line=f"{method} http://a.test/ HTTP/1.1".encode()).method == method


def test_chunks_frame_a_request() -> None:
    assert request(b"Transfer-Encoding: chunked").framing is CHUNKED
    assert request().framing is NO_BODY


def test_connect_is_for_one_host_and_closes_if_it_is_refused() -> None:
    judged = request(line=b"CONNECT [2001:DB8::1]:443 HTTP/1.1", host=b"[2001:db8::1]:443")
    assert (judged.host, judged.port, judged.authority) == ("2001:db8::1", 443, b"[2001:db8::1]:443")
    assert judged.is_connect
    assert not judged.keep_alive


def test_the_same_host_in_another_spelling_is_the_same_host() -> None:
    assert request(line=b"GET http://A.TEST.:80/ HTTP/1.1").authority == b"a.test"
    assert (
        request(line=b"GET http://[2001:db8:0::1]/ HTTP/1.1", host=b"[2001:DB8::1]:80").host == "2001:db8::1"
    )


def test_visible_characters_that_browsers_send_raw_are_carried_in_a_path() -> None:
    path = b"/a|b^c`{}\"<>\\'[]%zz?x=[1]|@:"
    assert request(line=b"GET http://a.test%b HTTP/1.1" % path).path == path


@pytest.mark.parametrize(
    ("fields", "line", "upgrade"),
    [
        ([b"Upgrade: websocket", b"Connection: Upgrade"], b"GET", "websocket"),
        ([b"Upgrade: websocket"], b"GET", None),
        ([b"Connection: Upgrade"], b"GET", None),
        ([b"Upgrade: websocket", b"Connection: Upgrade"], b"POST", None),
        ([b"Upgrade: h2c", b"Connection: Upgrade"], b"GET", None),
        ([b"Upgrade: websocket", b"Upgrade: h2c", b"Connection: Upgrade"], b"GET", None),
        ([b"Upgrade: websocket", b"Connection: Upgrade", b"Content-Length: 1"], b"GET", None),
        ([b"Upgrade: websocket", b"Connection: Upgrade", b"Transfer-Encoding: chunked"], b"GET", None),
    ],
)
def test_only_a_plain_websocket_handshake_is_an_upgrade(
    fields: list[bytes], line: bytes, upgrade: str | None
) -> None:
    assert request(*fields, line=line + b" http://a.test/ HTTP/1.1").upgrade == upgrade


def test_http_1_0_does_not_upgrade() -> None:
    fields = (b"Upgrade: websocket", b"Connection: Upgrade")
    assert request(*fields, line=b"GET http://a.test/ HTTP/1.0").upgrade is None


def test_methods_llhttp_does_not_know_are_not_implemented_here() -> None:
    assert refused(line=b"SMUGGLE http://a.test/ HTTP/1.1") == (501, "http_method_unknown")
    longest = b"A" * METHOD_BYTES_MAX
    assert refused(line=longest + b" http://a.test/ HTTP/1.1") == (501, "http_method_unknown")
    assert refused(line=longest + b"A http://a.test/ HTTP/1.1") == (501, "http_method_too_long")


def test_each_kind_of_refusal_has_its_status() -> None:
    assert refused(line=b"TRACE http://a.test/ HTTP/1.1") == (405, "http_trace")
    assert refused(line=b"GET http://a.test/ HTTP/2.0") == (505, "http_version")
    assert refused(line=b"GET / HTTP/1.1") == (400, "http_origin_form")
    assert refused(b"Expect: magic") == (417, "http_expectation")
    assert refused(*[b"A: b"] * 100) == (431, "http_too_many_headers")
    assert refused(line=b"GET http://a.test/" + b"a" * 16_384 + b" HTTP/1.1") == (414, "http_target_too_long")


def test_what_llhttp_alone_would_have_let_pass_is_refused() -> None:
    assert refused(line=b"GET  http://a.test/ HTTP/1.1") == (400, "http_malformed")
    assert refused(line=b"GET http://a.test/") == (505, "http_version")
    assert refused(b"Transfer-Encoding: gzip, chunked") == (400, "http_transfer_coding")
    assert refused(line=b"GET http://a.test/#f HTTP/1.1") == (400, "http_fragment")
    assert refused(line=b"CONNECT a.test HTTP/1.1") == (400, "http_port")
