import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.http.body import (
    CHUNK_LINE_BYTES_MAX,
    EXTENSION_BYTES_MAX,
    TRAILER_BYTES_MAX,
    Body,
    ChunkedBody,
    EndlessBody,
    LengthBody,
    body_reader,
)
from doorward.wire.http.errors import HttpError
from doorward.wire.http.model import CHUNKED, NO_BODY, UNTIL_CLOSE, End, Framing
from doorward.wire.http.writer import chunk, last_chunk


def read(body: Body, sent: bytes, step: int) -> tuple[bytes, End | None, bytes]:
    data = b""
    for at in range(0, len(sent), step):
        piece = body.receive(sent[at : at + step])
        data += piece.data
        if piece.end is not None:
            return data, piece.end, piece.rest + sent[at + step :]
        assert piece.rest == b""
    return data, None, b""


def outcome(sent: bytes, step: int) -> tuple[bytes, End | None, bytes] | str:
    try:
        return read(ChunkedBody(), sent, step)
    except HttpError as error:
        return error.reason


def test_every_framing_has_its_reader_and_an_empty_body_none() -> None:
    assert isinstance(body_reader(CHUNKED), ChunkedBody)
    assert isinstance(body_reader(UNTIL_CLOSE), EndlessBody)
    assert isinstance(body_reader(Framing("length", 1)), LengthBody)
    assert body_reader(Framing("length", 0)) is None
    assert body_reader(NO_BODY) is None


@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_a_body_by_length_takes_its_bytes_and_no_more(step: int) -> None:
    assert read(LengthBody(5), b"hello, next", step) == (b"hello", End(), b", next")


def test_what_lies_inside_a_body_by_length_is_handed_on_without_a_copy() -> None:
    data = b"x" * 1000
    assert LengthBody(1001).receive(data).data is data


def test_a_body_by_length_that_stops_short_is_an_error() -> None:
    body = LengthBody(5)
    body.receive(b"hell")
    with pytest.raises(HttpError, match="http_truncated"):
        body.eof()


def test_a_body_until_close_ends_with_the_connection() -> None:
    body = EndlessBody()
    assert body.receive(b"hello").end is None
    assert body.eof() == End()


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5), st.binary(max_size=10), st.integers(1, 40))
def test_chunks_as_we_write_them_are_read_back_however_they_are_cut(
    pieces: list[bytes], rest: bytes, step: int
) -> None:
    trailers = ((b"X-A", b"1"),)
    sent = b"".join(map(chunk, pieces)) + last_chunk(trailers) + rest
    assert read(ChunkedBody(), sent, step) == (b"".join(pieces), End(trailers), rest)


@given(
    st.lists(
        st.sampled_from(
            [b"1", b"A", b"0", b"\r\n", b"\r", b"\n", b";", b" ", b"x", b"0\r\n\r\n", b"A: b\r\n"]
        ),
        max_size=12,
    )
)
def test_any_chunks_mean_the_same_whole_and_byte_by_byte(tokens: list[bytes]) -> None:
    sent = b"".join(tokens)
    assert outcome(sent, len(sent) or 1) == outcome(sent, 1)


def test_chunks_of_one_read_come_out_as_one_piece() -> None:
    assert ChunkedBody().receive(b"1\r\na\r\n1\r\nb\r\n1\r\nc").data == b"abc"


def test_a_chunk_line_has_a_limit() -> None:
    fits = b"0;" + b"x" * (CHUNK_LINE_BYTES_MAX - 4) + b"\r\n"
    assert outcome(fits + b"\r\n", 1000) == (b"", End(), b"")
    over = b"0;x" + fits[2:]
    assert outcome(over + b"\r\n", 1000) == outcome(over + b"\r\n", 1) == "http_chunk_line_too_long"


def test_chunk_extensions_cannot_carry_much_for_little() -> None:
    line = b"1;" + b"x" * 199 + b"\r\na\r\n"
    assert outcome(line * (EXTENSION_BYTES_MAX // 200), 10_000)[1:] == (None, b"")
    assert outcome(line * (EXTENSION_BYTES_MAX // 200 + 1), 10_000) == "http_chunk_extensions"


def test_trailers_have_a_limit() -> None:
    fits = b"0\r\nA: " + b"x" * (TRAILER_BYTES_MAX - 9) + b"\r\n\r\n"
    assert outcome(fits, 100)[1] is not None
    over = fits.replace(b"A: ", b"A: x")
    assert outcome(over, 100) == outcome(over, 100_000) == "http_trailer"


@pytest.mark.parametrize("sent", [b"", b"5", b"5\r\nhel", b"5\r\nhello\r\n", b"0\r\n", b"0\r\nA: b\r\n"])
def test_chunks_that_stop_short_are_an_error(sent: bytes) -> None:
    body = ChunkedBody()
    assert body.receive(sent).end is None
    with pytest.raises(HttpError, match="http_truncated"):
        body.eof()
