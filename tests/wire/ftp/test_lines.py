"""Where a line ends, and what may not stand in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.errors import ProtocolError
from doorward.wire.ftp.lines import LINE_BYTES_MAX, LineReader

Outcome = tuple[list[bytes], str | None]


def read(*pieces: bytes) -> Outcome:
    """Every line, and the reason of the refusal."""
    reader = LineReader()
    lines: list[bytes] = []
    try:
        for piece in pieces:
            reader.feed(piece)
            while (line := reader.next()) is not None:
                lines.append(line)
    except ProtocolError as error:
        return lines, error.reason
    return lines, None


def bytewise(data: bytes) -> Outcome:
    return read(*(data[i : i + 1] for i in range(len(data))))


@pytest.mark.parametrize(
    ("said", "lines", "reason"),
    [
        (b"NOOP\r\nQUIT\r\n", [b"NOOP", b"QUIT"], None),
        (b"NOOP\nQUIT\n", [b"NOOP", b"QUIT"], None),
        (b"NOOP\nQUIT\r\n", [b"NOOP", b"QUIT"], None),
        (b"NOOP\r\nRETR a\nDELE b\r\n", [b"NOOP"], "ftp_bare_lf"),
        (b"NOOP\r\nQUIT\n", [b"NOOP"], "ftp_bare_lf"),
        (b"RETR a\rDELE b\r\n", [], "ftp_bare_cr"),
        (b"NOOP\r\r\n", [], "ftp_bare_cr"),
        (b"NOOP\r\0\r\n", [], "ftp_bare_cr"),
        (b"NO\0OP\r\n", [], "ftp_nul"),
        (b"RETR \xff\xfe\xe9\x01\r\n", [b"RETR \xff\xfe\xe9\x01"], None),
        (b"\r\n\r\n", [b"", b""], None),
        (b"QUIT\r", [], None),
        (b"x" * (LINE_BYTES_MAX - 1) + b"\r\n", [b"x" * (LINE_BYTES_MAX - 1)], None),
        (b"x" * LINE_BYTES_MAX + b"\r\n", [], "ftp_line_too_long"),
        (b"x" * LINE_BYTES_MAX + b"\0\n", [], "ftp_line_too_long"),
        (b"x" * (LINE_BYTES_MAX + 1), [], "ftp_line_too_long"),
    ],
)
def test_a_line_is_read_or_refused_the_same_whole_and_byte_by_byte(
    said: bytes, lines: list[bytes], reason: str | None
) -> None:
    assert read(said) == (lines, reason)
    assert bytewise(said) == (lines, reason)


def test_what_is_held_is_counted() -> None:
    reader = LineReader()
    reader.feed(b"NOOP\r\nQU")
    assert reader.held == 8
    assert reader.next() == b"NOOP"
    assert reader.next() is None
    assert reader.held == 2


PARTS = st.sampled_from([b"NOOP", b"\r\n", b"\n", b"\r", b"\0", b"\xff", b"x" * 4090])


@given(st.lists(PARTS, max_size=12).map(b"".join))
def test_any_cut_gives_the_same_lines_and_no_line_has_a_second_one_in_it(said: bytes) -> None:
    whole = read(said)
    assert bytewise(said) == whole
    assert not any(byte in line for line in whole[0] for byte in b"\r\n\0")
