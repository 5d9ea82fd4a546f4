import pytest
from fuzz.fuzz_http import check_request
from tests.wire.http import golden

from doorward.wire.http.errors import HttpError
from doorward.wire.http.model import Data, End, Request
from doorward.wire.http.reader import HELD_BYTES_MAX, RequestReader

GET = b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n"
POST = b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n"
CONNECT = b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n"
WEBSOCKET = (
    b"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
)

CASES = golden.load("request_*.txt")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_conversation_has_the_outcome_that_is_written_down(case: golden.Case) -> None:
    assert golden.request_outcome(case.sent, len(case.sent)) == case.expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_conversation_ends_the_same_byte_by_byte(case: golden.Case) -> None:
    outcome = golden.request_outcome(case.sent, 1)
    if case.expected[-1].startswith("refused"):
        # Whole, the refusal takes everything that came with it along; in pieces, what came before was handed out.
        assert outcome[-1] == case.expected[-1]
    else:
        assert outcome == case.expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_we_accept_h11_accepts_with_the_same_meaning(case: golden.Case) -> None:
    check_request(case.sent, list(range(1, len(case.sent))))


def test_a_second_request_is_held_until_the_first_is_dealt_with() -> None:
    reader = RequestReader()
    events = reader.receive(GET + GET)
    assert [type(event) for event in events] == [Request, End]
    paused_before = reader.paused
    assert [type(event) for event in reader.next_request()] == [Request, End]
    assert (paused_before, reader.paused) == (True, False)
    assert reader.next_request() == []
    assert reader.idle


def test_after_a_refusal_nothing_that_came_along_is_looked_at() -> None:
    reader = RequestReader()
    reader.receive(GET)
    reader.next_request()
    with pytest.raises(HttpError) as caught:
        reader.receive(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n" + GET)
    assert caught.value.reason == "http_origin_form"
    assert caught.value.reply.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nDoorward-Reason: http_origin_form\r\n" in caught.value.reply
    with pytest.raises(AssertionError):
        reader.receive(GET)


def test_an_error_in_the_body_answers_in_the_form_the_request_asked_for() -> None:
    reader = RequestReader()
    head = b"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\n"
    reader.receive(head + b"Accept: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(HttpError) as caught:
        reader.receive(b"zz\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in caught.value.reply


def test_a_body_is_streamed_as_it_comes() -> None:
    reader = RequestReader()
    assert [type(event) for event in reader.receive(POST)] == [Request]
    assert reader.receive(b"he") == [Data(b"he")]
    assert reader.receive(b"llo") == [Data(b"llo"), End()]


def test_connect_gives_back_what_was_sent_ahead_and_then_is_no_http() -> None:
    reader = RequestReader()
    assert len(reader.receive(CONNECT + b"\x16")) == 1
    assert reader.receive(b"\x03") == []
    assert reader.switch() == b"\x16\x03"
    assert not reader.paused
    with pytest.raises(AssertionError):
        reader.receive(b"x")


def test_what_follows_a_refused_connect_is_never_read_as_a_request() -> None:
    reader = RequestReader()
    reader.receive(CONNECT + GET)
    with pytest.raises(AssertionError):
        reader.next_request()


def test_a_websocket_handshake_is_accepted_with_what_follows_or_declined_for_the_next_request() -> None:
    accepted = RequestReader()
    accepted.receive(WEBSOCKET + b"\x81\x00")
    assert accepted.switch() == b"\x81\x00"
    declined = RequestReader()
    declined.receive(WEBSOCKET + GET)
    assert [type(event) for event in declined.next_request()] == [Request, End]


def test_only_an_upgrade_can_be_switched() -> None:
    reader = RequestReader()
    reader.receive(GET)
    with pytest.raises(AssertionError):
        reader.switch()


def test_the_next_request_cannot_be_asked_for_before_the_body_has_ended() -> None:
    reader = RequestReader()
    reader.receive(POST)
    with pytest.raises(AssertionError):
        reader.next_request()


def test_what_is_held_has_a_limit() -> None:
    reader = RequestReader()
    reader.receive(CONNECT)
    reader.receive(b"x" * HELD_BYTES_MAX)
    with pytest.raises(HttpError) as caught:
        reader.receive(b"x")
    assert caught.value.reason == "http_sent_ahead"


def test_a_head_has_the_limit_it_was_given() -> None:
    assert RequestReader(head_bytes_max=len(GET)).receive(GET)
    with pytest.raises(HttpError) as caught:
        RequestReader(head_bytes_max=len(GET) - 1).receive(GET)
    assert (caught.value.status, caught.value.reason) == (431, "http_head_too_large")


@pytest.mark.parametrize("sent", [b"G", GET[:-1], POST, POST + b"hell"])
def test_a_connection_that_ends_inside_a_request_is_an_error(sent: bytes) -> None:
    reader = RequestReader()
    reader.receive(sent)
    with pytest.raises(HttpError) as caught:
        reader.eof()
    assert caught.value.reason == "http_truncated"


@pytest.mark.parametrize("sent", [b"", GET, POST + b"hello"])
def test_a_connection_that_ends_between_requests_is_no_error(sent: bytes) -> None:
    reader = RequestReader()
    reader.receive(sent)
    reader.eof()
