import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.http.errors import HttpError
from doorward.wire.http.head import (
    HEADERS_MAX,
    LINE_BYTES_MAX,
    Block,
    check_lines,
    parse_request_head,
    parse_response_head,
    parse_trailers,
    read_roughly,
)

LINE = b"GET http://a.test/ HTTP/1.1\r\n"


def reason(block: bytes) -> str:
    with pytest.raises(HttpError) as caught:
        check_lines(block)
    return caught.value.reason


def collect(sent: bytes, step: int, bytes_max: int) -> str | tuple[bytes, bytes] | None:
    """The block with all that followed it; the reason of the refusal; None if more is needed."""
    block = Block(bytes_max, b"AB", skip_crlf=True)
    for at in range(0, len(sent), step):
        try:
            found = block.receive(sent[at : at + step])
        except HttpError as error:
            return error.reason
        if found is not None:
            return found[0], found[1] + sent[at + step :]
    return None


def test_a_block_ends_with_its_empty_line_and_what_follows_is_left_alone() -> None:
    assert collect(b"A\r\n\r\nrest", 100, 50) == (b"A\r\n\r\n", b"rest")


def test_a_block_that_fits_exactly_is_taken_and_one_byte_more_is_not() -> None:
    sent = b"A" * 46 + b"\r\n\r\n"
    assert collect(sent, 100, 50) == (sent, b"")
    assert collect(b"A" + sent, 100, 50) == "http_head_too_large"


def test_a_block_without_an_end_is_refused_once_the_limit_is_reached() -> None:
    assert collect(b"A" * 49, 1, 50) is None
    assert collect(b"A" * 50, 1, 50) == "http_head_too_large"


def test_a_bare_lf_is_refused_at_once_because_such_a_head_might_never_end() -> None:
    assert collect(b"A\nB\n\n", 100, 50) == "http_bare_lf"


def test_a_byte_no_message_begins_with_is_refused_at_once() -> None:
    assert collect(b"\x16", 1, 50) == "http_malformed"


def test_an_empty_line_in_front_is_skipped_once() -> None:
    assert collect(b"\r\nA\r\n\r\n", 100, 50) == (b"A\r\n\r\n", b"")
    assert collect(b"\r\n\r\nA\r\n\r\n", 100, 50) == "http_malformed"
    assert collect(b"\rA", 100, 50) == "http_malformed"


@given(st.text(alphabet="AB\r\n", max_size=40), st.integers(1, 7))
def test_how_a_block_was_cut_makes_no_difference(text: str, step: int) -> None:
    sent = text.encode()
    assert collect(sent, 100, 20) == collect(sent, step, 20)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"A: b\n\r\n", "http_bare_lf"),
        (b"A: b\rc\r\n\r\n", "http_bare_cr"),
        (b"A: b\r\r\n\r\n", "http_bare_cr"),
        (b"A: b\r\n c\r\n\r\n", "http_folded_header"),
        (b"A: b\r\n\tc\r\n\r\n", "http_folded_header"),
    ],
)
def test_line_ends_and_folds_are_seen_before_a_parser_hides_them(lines: bytes, expected: str) -> None:
    assert reason(LINE + lines) == expected


@pytest.mark.parametrize("byte", [*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F])
def test_no_control_character_stands_in_a_head(byte: int) -> None:
    assert reason(LINE + b"A: b%cc\r\n\r\n" % byte) == "http_control_character"


def test_a_hundred_headers_are_enough() -> None:
    check_lines(LINE + b"A: b\r\n" * HEADERS_MAX + b"\r\n")
    assert reason(LINE + b"A: b\r\n" * (HEADERS_MAX + 1) + b"\r\n") == "http_too_many_headers"


def test_a_line_has_a_limit_and_the_first_line_its_own_reason() -> None:
    value = b"A: " + b"b" * (LINE_BYTES_MAX - 3)
    check_lines(LINE + value + b"\r\n\r\n")
    assert reason(LINE + value + b"b\r\n\r\n") == "http_line_too_long"
    assert reason(b"G" * (LINE_BYTES_MAX + 1) + b"\r\n\r\n") == "http_target_too_long"


def test_names_keep_their_case_and_order_and_values_lose_the_space_around_them() -> None:
    head = parse_request_head(LINE + b"hOST:a.test\r\nB: \t1 2\t \r\nA:\r\nB: 3\r\n\r\n")
    assert head.headers == ((b"hOST", b"a.test"), (b"B", b"1 2"), (b"A", b""), (b"B", b"3"))
    assert head.fields == {b"host": [b"a.test"]}
    assert (head.method, head.target, head.version) == (b"GET", b"http://a.test/", "1.1")
    assert head.complaint is None


def test_what_llhttp_refuses_comes_with_its_complaint_and_the_fields_as_far_as_they_can_be_read() -> None:
    head = parse_request_head(LINE + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n")
    assert head.complaint == "Duplicate Content-Length"
    assert head.fields == {b"content-length": [b"1", b"1"]}


def test_an_upgrade_is_no_complaint() -> None:
    assert parse_request_head(LINE + b"Upgrade: x\r\nConnection: upgrade\r\n\r\n").complaint is None
    assert parse_request_head(b"CONNECT a:1 HTTP/1.1\r\n\r\n").complaint is None


def test_a_response_head_has_its_status_line_and_fields() -> None:
    head = parse_response_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert head.first_line == b"HTTP/1.1 200 OK"
    assert head.fields == {b"content-length": [b"5"]}
    assert head.complaint is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"A : b", "http_space_before_colon"),
        (b"A\t: b", "http_space_before_colon"),
        (b"A", "http_header_name"),
        (b": b", "http_header_name"),
    ],
)
def test_a_line_that_is_no_field_names_the_reason_itself(line: bytes, expected: str) -> None:
    with pytest.raises(HttpError) as caught:
        read_roughly(LINE + line + b"\r\n\r\n")
    assert caught.value.reason == expected


def test_trailers_are_fields_like_others() -> None:
    assert parse_trailers(b"A: b \r\nC:d\r\n\r\n") == ((b"A", b"b"), (b"C", b"d"))


@pytest.mark.parametrize("line", [b"A", b": b", b"A : b", b"A(: b", b"\xff: b"])
def test_a_trailer_without_a_proper_name_is_refused(line: bytes) -> None:
    with pytest.raises(HttpError) as caught:
        parse_trailers(line + b"\r\n\r\n")
    assert caught.value.reason == "http_header_name"
