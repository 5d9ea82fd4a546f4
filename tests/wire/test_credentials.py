"""A name and a password: one form for every protocol that carries them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.credentials import Credentials, read_credentials, write_credentials
from doorward.wire.errors import ProtocolError


def test_a_password_does_not_slip_into_a_log_by_repr() -> None:
    assert "hunter2" not in repr(Credentials("kim", "hunter2"))
    assert "hunter2" not in f"{[Credentials('kim', 'hunter2')]}"


def test_utf8_is_read_and_an_empty_password_is_merely_wrong() -> None:
    assert read_credentials("jörg".encode(), b"") == ("jörg", "")


@pytest.mark.parametrize(
    ("username", "password", "detail"),
    [
        (b"", b"x", "the user name is empty"),
        (b"k" * 256, b"x", "the user name has 256 bytes, at most 255"),
        (b"kim", b"x" * 256, "the password has 256 bytes, at most 255"),
        (b"kim\xff", b"x", "the user name is not UTF-8"),
        (b"kim", b"\xc3", "the password is not UTF-8"),
        (b"kim\n", b"x", "the user name holds a control character"),
        (b"kim", b"a\x00b", "the password holds a control character"),
        (b"kim", b"\x7f", "the password holds a control character"),
        (b"kim", "\x85".encode(), "the password holds a control character"),
    ],
)
def test_what_is_refused(username: bytes, password: bytes, detail: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_credentials(username, password)
    assert (caught.value.reason, caught.value.detail) == ("bad_credentials_form", detail)


def test_the_longest_fields_are_read() -> None:
    assert read_credentials(b"k" * 255, b"p" * 255) == ("k" * 255, "p" * 255)


@given(st.text(max_size=300), st.text(max_size=300))
def test_what_can_be_written_reads_back_the_same(username: str, password: str) -> None:
    try:
        fields = write_credentials(username, password)
    except ProtocolError as error:
        reason = error.reason
    else:
        assert read_credentials(*fields) == (username, password)
        return
    assert reason == "bad_credentials_form"


def test_a_lone_surrogate_cannot_be_written() -> None:
    with pytest.raises(ProtocolError, match="UTF-8"):
        write_credentials("kim", "\ud800")


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_raise_only_the_documented_error(username: bytes, password: bytes) -> None:
    try:
        found = read_credentials(username, password)
    except ProtocolError as error:
        reason = error.reason
    else:
        assert write_credentials(*found) == (username, password)
        return
    assert reason == "bad_credentials_form"
