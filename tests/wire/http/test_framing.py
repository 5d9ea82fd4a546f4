import pytest

from doorward.wire.http.errors import HttpError
from doorward.wire.http.framing import connection_options, declared_framing, list_tokens, stays_open
from doorward.wire.http.head import Head
from doorward.wire.http.model import CHUNKED, Framing


def head(version: str = "1.1", **fields: list[bytes]) -> Head:
    named = {name.replace("_", "-").encode(): values for name, values in fields.items()}
    return Head(b"", b"GET", b"", version, (), named)


def reason(given: Head) -> str:
    with pytest.raises(HttpError) as caught:
        declared_framing(given)
    return caught.value.reason


def test_one_length_or_one_coding_frames_a_body() -> None:
    assert declared_framing(head()) is None
    assert declared_framing(head(content_length=[b"17"])) == Framing("length", 17)
    assert declared_framing(head(transfer_encoding=[b"chunked"])) is CHUNKED


def test_two_framings_are_refused_not_ranked() -> None:
    assert reason(head(content_length=[b"1"], transfer_encoding=[b"chunked"])) == "http_two_framings"
    assert reason(head(content_length=[b"1", b"1"])) == "http_content_length_twice"
    assert reason(head(transfer_encoding=[b"chunked", b"chunked"])) == "http_transfer_coding"


@pytest.mark.parametrize(
    "digits", [b"", b"+5", b"-5", b"0x5", b" 5", b"5 5", b"5,5", b"1_0", b"\xb2", b"9" * 19]
)
def test_a_length_is_digits_and_not_too_many(digits: bytes) -> None:
    assert reason(head(content_length=[digits])) == "http_content_length"


def test_the_longest_length_is_still_a_number_everyone_can_hold() -> None:
    assert declared_framing(head(content_length=[b"9" * 18])) == Framing("length", 10**18 - 1)


def test_http_1_0_has_no_chunks() -> None:
    assert reason(head("1.0", transfer_encoding=[b"chunked"])) == "http_transfer_coding"


@pytest.mark.parametrize("name", [b"content_length", b"transfer_encoding"])
def test_a_name_that_a_gateway_would_take_for_the_real_one_is_refused(name: bytes) -> None:
    assert reason(Head(b"", b"GET", b"", "1.1", (), {name: [b"1"]})) == "http_header_lookalike"


@pytest.mark.parametrize("name", [b"Host", b"content-length", b"Transfer-Encoding", b"expect"])
def test_connection_cannot_take_away_what_the_message_hangs_on(name: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        connection_options(head(connection=[b"close, " + name]))
    assert caught.value.reason == "http_connection_option"


def test_options_are_collected_from_every_connection_field() -> None:
    assert connection_options(head(connection=[b"Keep-Alive, X-A", b"x-b"])) == {
        b"keep-alive",
        b"x-a",
        b"x-b",
    }
    assert connection_options(head()) == frozenset()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (head(), True),
        (head(connection=[b"close"]), False),
        (head(connection=[b"keep-alive, close"]), False),
        (head(proxy_connection=[b"Close"]), False),
        (head("1.0"), False),
        (head("1.0", connection=[b"keep-alive"]), True),
        (head("1.0", proxy_connection=[b"keep-alive"]), True),
    ],
)
def test_a_connection_stays_open_only_if_its_sender_keeps_it(given: Head, expected: bool) -> None:
    assert stays_open(given, connection_options(given)) is expected


def test_a_list_has_no_empty_members() -> None:
    assert list_tokens([b" A ,,b", b"", b"C"]) == [b"a", b"b", b"c"]
