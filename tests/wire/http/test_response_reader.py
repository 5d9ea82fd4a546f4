import pytest
from fuzz.fuzz_http import check_response
from tests.wire.http import golden

from doorward.wire.http.errors import HttpError
from doorward.wire.http.model import Data, End
from doorward.wire.http.response_reader import INTERIM_MAX, ResponseReader

CASES = golden.load("response*.txt")
GET = golden.request_for(["GET"])
UPGRADE = golden.request_for(["GET", "upgrade"])
SWITCHED = b"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


def failure(sent: list[bytes], *, eof: bool = False) -> HttpError:
    reader = ResponseReader(GET)
    with pytest.raises(HttpError) as caught:  # noqa: PT012  which of the reads fails is not what matters
        for piece in sent:
            reader.receive(piece)
        if eof:
            reader.eof()
    with pytest.raises(AssertionError):
        reader.receive(b"x")
    return caught.value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_answer_has_the_outcome_that_is_written_down(case: golden.Case) -> None:
    assert golden.response_outcome(case, len(case.sent) or 1) == case.expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_answer_has_the_same_outcome_byte_by_byte(case: golden.Case) -> None:
    assert golden.response_outcome(case, 1) == case.expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_we_accept_of_a_server_h11_accepts_with_the_same_meaning(case: golden.Case) -> None:
    check_response(case.sent, list(range(1, len(case.sent))), golden.request_for(case.request_words))


def test_a_bad_head_is_answered_with_502() -> None:
    error = failure([b"SSH-2.0-x\r\n"])
    assert error.status == 502
    assert error.reply.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")


def test_a_bad_body_that_came_with_its_head_is_still_answered() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert failure([head + b"zz\r\n"]).reply.startswith(b"HTTP/1.1 502 ")


def test_once_a_head_was_handed_out_there_is_nothing_left_to_say() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert failure([head, b"zz\r\n"]).reply == b""
    assert failure([head, b"1\r\n"], eof=True).reply == b""


def test_a_server_that_closes_without_an_answer_is_a_bad_gateway() -> None:
    error = failure([], eof=True)
    assert (error.reason, error.status) == ("http_no_response", 502)
    assert error.reply.startswith(b"HTTP/1.1 502 ")


def test_interim_answers_are_not_endless() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    assert len(ResponseReader(GET).receive(interim * INTERIM_MAX)) == INTERIM_MAX
    assert failure([interim * (INTERIM_MAX + 1)]).reason == "http_interim"


def test_a_connection_is_reusable_only_after_the_whole_answer_and_nothing_more() -> None:
    reader = ResponseReader(GET)
    reader.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell")
    early = reader.reusable
    assert reader.receive(b"o") == [Data(b"o"), End()]
    whole = reader.reusable
    assert reader.eof() == []
    assert reader.receive(b"H") == []
    assert (early, whole, reader.reusable) == (False, True, False)


def test_a_body_until_close_ends_with_the_connection() -> None:
    reader = ResponseReader(GET)
    reader.receive(b"HTTP/1.1 200 OK\r\n\r\n")
    assert reader.receive(b"hello") == [Data(b"hello")]
    ended_before = reader.ended
    assert reader.eof() == [End()]
    assert (ended_before, reader.ended) == (False, True)


def test_after_a_switch_every_byte_is_kept_for_the_tunnel() -> None:
    reader = ResponseReader(UPGRADE)
    assert len(reader.receive(SWITCHED + b"ab")) == 1
    assert reader.receive(b"c") == []
    assert reader.eof() == []
    assert reader.switch() == b"abc"


def test_there_is_no_tunnel_without_a_switch() -> None:
    with pytest.raises(AssertionError):
        ResponseReader(UPGRADE).switch()
