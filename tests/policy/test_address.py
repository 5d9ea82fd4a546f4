from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.policy.address import BadHost, canonical, embedded, forms, parse_host

LOOPBACK = IPv4Address("127.0.0.1")


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "0177.0.0.1",
        "0x7f000001",
        "0X7F.1",
        "0x7f.0x0.0x0.0x1",
        "2130706433",
        "017700000001",
        "127.0.0.1.",
        "127.0.0.01",
        "::ffff:127.0.0.1",
        "[::ffff:7f00:1]",
        "0:0:0:0:0:FFFF:7F00:0001",
    ],
)
def test_every_spelling_of_an_ipv4_address_is_that_address(text: str) -> None:
    assert parse_host(text) == LOOPBACK


@pytest.mark.parametrize(
    "text",
    [
        "256.1.1.1",
        "1.2.3.4.5",
        "1.2.3.256",
        "127.0.0x1ffffff",
        "4294967296",
        "08.1.1.1",
        "1.2.3.09",
        "example.1",
        "example.0x1",
        "a.b.c.127",
        "1_0.1",
        "0x1_0.1",
        "1-1.1",
        "-1.1",
    ],
)
def test_a_host_that_ends_in_a_number_is_an_ipv4_address_or_refused(text: str) -> None:
    with pytest.raises(BadHost) as caught:
        parse_host(text)
    assert caught.value.reason == "bad_name"
    assert caught.value.detail


@given(st.text("0123456789xXabcf.", min_size=1, max_size=24))
def test_whatever_the_c_library_takes_for_an_ipv4_address_is_not_a_name(text: str) -> None:
    try:
        meant = IPv4Address(socket.inet_aton(text))
    except OSError:
        return
    assert parse_host(text) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("2001:DB8::A", "2001:db8::a"),
        ("64:ff9b::127.0.0.1", "64:ff9b::7f00:1"),
    ],
)
def test_ipv6_text_is_taken_with_and_without_brackets(text: str, meant: str) -> None:
    assert parse_host(text) == ip_address(meant)


@pytest.mark.parametrize(
    "text",
    [
        "fe80::1%eth0",
        "[fe80::1%1]",
        "[::1",
        "::1]",
        "[]",
        "[",
        ":",
        ":::",
        "1:2",
        "[127.0.0.1]",
        "[a.b]",
        "::1.",
        "::g",
    ],
)
def test_broken_ipv6_text_and_zones_are_refused(text: str) -> None:
    with pytest.raises(BadHost):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Example.ORG", "example.org"),
        ("example.org.", "example.org"),
        ("localhost", "localhost"),
        ("_srv._tcp.a-b.example", "_srv._tcp.a-b.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("1.2.3.4x", "1.2.3.4x"),
        ("0xyz", "0xyz"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        (".".join(["a" * 61] * 4) + ".abcde", ".".join(["a" * 61] * 4) + ".abcde"),
    ],
)
def test_a_name_comes_back_lower_case_without_its_final_dot(text: str, name: str) -> None:
    assert parse_host(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a..",
        "a b",
        " a",
        "a\n",
        "a\0.example",
        "a\x7f",
        "a\x1b[0m",
        "bücher.example",
        "\uff11\uff12\uff17.0.0.1",
        "a\u3002b",
        "a/b",
        "a@b",
        "a%00",
        "*.example.org",
        "a" * 64,
        ".".join(["a" * 61] * 4) + ".abcdef",
        "1" * 5000,
        "0x" + "0" * 5000,
        "a." * 3000,
        ":" * 5000,
    ],
)
def test_what_is_no_name_is_refused_and_never_cut(text: str) -> None:
    with pytest.raises(BadHost):
        parse_host(text)


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300).map(lambda raw: raw.decode("latin-1"))))
def test_any_text_is_an_address_a_name_or_refused_and_reading_it_again_changes_nothing(text: str) -> None:
    try:
        host = parse_host(text)
    except BadHost:
        return
    assert parse_host(str(host)) == host


@given(st.ip_addresses())
def test_an_address_written_plainly_comes_back_canonical(address: IPv4Address | IPv6Address) -> None:
    assert parse_host(str(address)) == canonical(address)


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::ffff:0:127.0.0.1", "127.0.0.1"),
        ("::127.0.0.1", "127.0.0.1"),
        ("64:ff9b::127.0.0.1", "127.0.0.1"),
        ("64:ff9b:1::127.0.0.1", "127.0.0.1"),
        ("2002:7f00:1::1", "127.0.0.1"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "192.0.2.45"),  # RFC 4380's own example of a client
        ("fe80::5efe:10.0.0.1", "10.0.0.1"),
        ("2001:db8::200:5efe:10.0.0.1", "10.0.0.1"),
    ],
)
def test_the_ipv4_address_inside_an_ipv6_address_is_found(text: str, inside: str) -> None:
    assert embedded(ip_address(text)) == ip_address(inside)
    assert ip_address(inside) in forms(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "64:ff9b:1:7f00:0:100::",  # /48
        "64:ff9b:1:7f:0:1::",  # /56
        "64:ff9b:1:0:7f:0:100:0",  # /64
        "64:ff9b:1:0:7f:0:123:4567",  # /64, with a suffix that translators ignore
        "64:ff9b:1:abcd::127.0.0.1",  # /96
    ],
)
def test_a_local_nat64_address_is_judged_under_every_prefix_length_that_it_may_have(text: str) -> None:
    assert LOOPBACK in forms(ip_address(text))


@pytest.mark.parametrize(
    "text", ["::", "::1", "2001:db8::1", "2001:1::1", "fe80::1", "fd00::7f00:1", "64:ff9b:2::1"]
)
def test_a_plain_ipv6_address_has_one_form(text: str) -> None:
    assert embedded(ip_address(text)) is None
    assert forms(ip_address(text)) == (ip_address(text),)


def test_only_a_mapped_address_is_dialled_as_another_one() -> None:
    assert canonical(ip_address("::ffff:10.0.0.1")) == ip_address("10.0.0.1")
    assert canonical(ip_address("64:ff9b::10.0.0.1")) == ip_address("64:ff9b::10.0.0.1")
    assert forms(ip_address("::ffff:10.0.0.1")) == (ip_address("10.0.0.1"),)
    assert embedded(ip_address("10.0.0.1")) is None


def test_an_address_with_two_disguises_is_judged_under_both() -> None:
    address = ip_address("2002:0a00:0001::5efe:127.0.0.1")
    assert forms(address) == (address, ip_address("10.0.0.1"), ip_address("127.0.0.1"))
