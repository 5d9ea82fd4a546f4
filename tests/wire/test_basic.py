"""HTTP Basic credentials: one spelling for one name and password."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.basic import basic, parse_basic
from doorward.wire.errors import ProtocolError


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ("Aladdin", "open sesame")),  # RFC 7617 section 2
        (b"Basic dGVzdDoxMjPCow==", ("test", "123£")),  # RFC 7617 section 2.1
        (b"bAsIc   a2ltOmE6Yg==", ("kim", "a:b")),
        (b" Basic a2ltOg== \t", ("kim", "")),
    ],
)
def test_credentials_are_read(value: bytes, found: tuple[str, str]) -> None:
    assert parse_basic(value) == found


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (b"", "the scheme is not Basic"),
        (b"Bearer abc", "the scheme is not Basic"),
        (b"Basic\ta2ltOg==", "the scheme is not Basic"),
        (b"Basic", "no colon between name and password"),
        (b"Basic a2lt", "no colon between name and password"),
        (b"Basic a2ltOg", "the credentials are not base64"),
        (b"Basic a2ltOg=", "the credentials are not base64"),
        (b"Basic a2ltOg== x", "the credentials are not base64"),
        (b"Basic a2lt Og==", "the credentials are not base64"),
        (b"Basic a2lt\nOg==", "the credentials are not base64"),
        (b"Basic a2ltOg==a2ltOg==", "the credentials are not base64"),
        (b"Basic a2_tOg==", "the credentials are not base64"),
        (b"Basic a2ltOh==", "the credentials are not canonical base64"),
        (b"Basic OnB3", "the user name is empty"),
        (b"Basic " + base64.b64encode(b"kim:\xff"), "the password is not UTF-8"),
        (b"Basic " + base64.b64encode(b"kim:a\r\nb"), "the password holds a control character"),
        (b"Basic " + base64.b64encode(b"k" * 256 + b":p"), "the user name has 256 bytes, at most 255"),
        (b"Basic " + b"A" * 688, "the credentials have 688 bytes, at most 684"),
    ],
)
def test_what_is_refused(value: bytes, detail: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_basic(value)
    assert (caught.value.reason, caught.value.detail) == ("bad_credentials_form", detail)


def test_the_longest_credentials_fit() -> None:
    assert parse_basic(basic("k" * 255, "p" * 255)) == ("k" * 255, "p" * 255)


def test_a_colon_in_the_name_is_not_written_because_it_would_read_back_as_another_name() -> None:
    with pytest.raises(ProtocolError) as caught:
        basic("kim:admin", "x")
    assert caught.value.reason == "bad_credentials_form"


@given(st.text(max_size=300), st.text(max_size=300))
def test_what_can_be_written_reads_back_the_same(username: str, password: str) -> None:
    try:
        value = basic(username, password)
    except ProtocolError as error:
        reason = error.reason
    else:
        assert parse_basic(value) == (username, password)
        return
    assert reason == "bad_credentials_form"


@given(
    st.binary(max_size=800) | st.binary(max_size=800).map(lambda token: b"Basic " + base64.b64encode(token))
)
def test_any_bytes_raise_only_the_documented_error(value: bytes) -> None:
    try:
        username, password = parse_basic(value)
    except ProtocolError as error:
        reason = error.reason
    else:
        assert ":" not in username
        assert basic(username, password).split()[1] == value.split()[1]
        return
    assert reason == "bad_credentials_form"
