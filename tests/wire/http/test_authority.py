from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.http.authority import Authority, parse_authority, write_authority
from doorward.wire.http.errors import HttpError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (b"Example.ORG", "example.org", None),
        (b"example.org.:8080", "example.org", 8080),
        (b"a_b-.test:1", "a_b-.test", 1),
        (b"192.0.2.1:65535", "192.0.2.1", 65535),
        (b"[2001:DB8:0:0::1]:443", "2001:db8::1", 443),
        (b"localhost", "localhost", None),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example", None),
        (b"1.2.3.4.example", "1.2.3.4.example", None),
        (
            b"a" * 63 + b"." + b"b" * 63 + b"." + b"c" * 63 + b"." + b"d" * 61,
            ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61]),
            None,
        ),
    ],
)
def test_a_host_has_one_spelling_however_it_was_written(text: bytes, host: str, port: int | None) -> None:
    assert parse_authority(text) == Authority(host, port)


def test_an_ipv4_address_inside_an_ipv6_address_is_still_that_address() -> None:
    # Newer versions of Python write it with dots.
    assert IPv6Address(parse_authority(b"[::FFFF:192.0.2.1]").host) == IPv6Address("::ffff:192.0.2.1")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        (b"127.1", "127.1"),
        (b"2130706433", "2130706433"),
        (b"0x7f000001", "0x7f000001"),
        (b"0X7F.0.0.1", "0x7f.0.0.1"),
        (b"0177.0.0.1", "0177.0.0.1"),
        (b"1.2.3.4.5", "1.2.3.4.5"),
        (b"1.2.3.4.", "1.2.3.4"),
        (b"256.0.0.1", "256.0.0.1"),
        (b"1.2.3.04", "1.2.3.04"),
        (b"0x", "0x"),
    ],
)
def test_a_number_that_some_resolver_reads_as_an_address_is_left_for_policy_to_read(
    text: bytes, host: str
) -> None:
    assert parse_authority(text) == Authority(host, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "http_host"),
        (b":80", "http_host"),
        (b"a:", "http_host"),
        (b"a:0", "http_host"),
        (b"a:080", "http_host"),
        (b"a:65536", "http_port"),
        (b"a:99999", "http_port"),
        (b"a:123456", "http_host"),
        (b"a:80\n", "http_host"),
        (b"a..b", "http_host"),
        (b".", "http_host"),
        (b"a%2eb", "http_host"),
        (b"a b", "http_host"),
        (b"\xc3\xa9", "http_host"),
        (b"a/b", "http_host"),
        (b"a\\b", "http_host"),
        (b"a,b", "http_host"),
        (b"::1", "http_host"),
        (b"[::1", "http_host"),
        (b"[::1%eth0]", "http_host"),
        (b"[127.0.0.1]", "http_host"),
        (b"[1::2::3]", "http_host"),
        (b"[]", "http_host"),
        (b"u@a", "http_userinfo"),
        (b"a" * 64, "http_host"),
        (b"a." * 127 + b"a", "http_host"),
        (b"a" * 300, "http_host"),
    ],
)
def test_what_is_not_plainly_a_host_is_refused(text: bytes, reason: str) -> None:
    if text == b"a." * 127 + b"a":
        text += b"a"  # 256 bytes
    with pytest.raises(HttpError) as caught:
        parse_authority(text)
    assert caught.value.reason == reason


@given(st.binary(max_size=300))
def test_any_bytes_are_a_host_or_a_refusal(text: bytes) -> None:
    try:
        authority = parse_authority(text)
    except HttpError:
        return
    assert parse_authority(write_authority(authority.host, authority.port or 80, None)).host == authority.host


def test_the_default_port_is_left_out_and_an_address_gets_its_brackets() -> None:
    assert write_authority("a.test", 80, 80) == b"a.test"
    assert write_authority("a.test", 80, None) == b"a.test:80"
    assert write_authority("2001:db8::1", 81, 80) == b"[2001:db8::1]:81"
