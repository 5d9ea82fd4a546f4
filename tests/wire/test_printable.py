"""Nothing from the network reaches a terminal, a log or a page as anything but one plain line."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("example.org", "example.org"),
        ("größe 好", "größe 好"),
        ("a\nb\r\tc", r"a\x0ab\x0d\x09c"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("a\u202eb\u2066", r"a\u202eb\u2066"),
        ("\u2028\u00a0\ufeff", r"\u2028\xa0\ufeff"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
        ("\\x0a", r"\\x0a"),
        ("é\\", r"é\\"),
        (b"plain", "plain"),
        (b"a\\\0", r"a\\\x00"),
        (b"\xc3\xa9\n\\", r"\xc3\xa9\x0a\\"),
        ("", ""),
        (b"", ""),
    ],
)
def test_what_is_shown(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown


def test_long_text_is_cut_and_what_was_left_out_is_counted() -> None:
    assert printable("a" * 10, limit=10) == "a" * 10
    assert printable("a" * 11, limit=10) == "a" * 10 + "… (1 more)"
    assert printable(b"\n" * 500, limit=2) == r"\x0a\x0a… (498 more)"
    assert printable("abc", limit=0) == printable("abc", limit=-1) == "… (3 more)"


@given(st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zs", "Zl"])) | st.binary())
def test_whatever_comes_is_one_printable_line(text: str | bytes) -> None:
    shown = printable(text, limit=1000)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1


@given(st.binary())
def test_bytes_can_be_told_back_from_what_is_shown(data: bytes) -> None:
    shown = printable(data, limit=1000)
    back = re.sub(r"\\(?:x(..)|(\\))", lambda m: chr(int(m[1], 16)) if m[1] else m[2], shown)
    assert back.encode("latin-1") == data


@given(st.text())
def test_text_can_be_told_back_from_what_is_shown(text: str) -> None:
    back = re.sub(
        r"\\(?:x(..)|u(....)|U(.{8})|(\\))",
        lambda m: m[4] or chr(int(m[1] or m[2] or m[3], 16)),
        printable(text, limit=10_000),
    )
    assert back == text
