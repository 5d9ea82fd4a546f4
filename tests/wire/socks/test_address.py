"""A destination in bytes."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.errors import ProtocolError, WireError
from doorward.wire.socks.address import read_address, read_name, write_address, write_name, write_port

LONGEST = "a" * 253


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\x01\xc0\x00\x02\x01\x01\xbb", (None, IPv4Address("192.0.2.1"), 443, 7)),
        (b"\x03\x0bexample.org\x00\x50", ("example.org", None, 80, 15)),
        (
            b"\x04" + IPv6Address("2001:db8::1").packed + b"\xff\xff",
            (None, IPv6Address("2001:db8::1"), 65_535, 19),
        ),
        (b"\x01\0\0\0\0\0\0", (None, IPv4Address("0.0.0.0"), 0, 7)),
    ],
)
def test_every_kind_is_read_wherever_it_stands_and_truncated_means_more_is_needed(
    data: bytes, found: tuple[str | None, IPv4Address | IPv6Address | None, int, int]
) -> None:
    host, address, port, end = found
    assert read_address(data, 0) == found
    assert read_address(b"xyz" + data + b"tunnel", 3) == (host, address, port, end + 3)
    assert write_address(host if host is not None else address, port) == data
    for size in range(len(data)):
        assert read_address(data[:size], 0) is None


def test_an_unknown_kind_is_refused_at_its_first_byte() -> None:
    for kind in (0, 2, 5, 255):
        with pytest.raises(ProtocolError) as caught:
            read_address(bytes([kind]), 0)
        assert caught.value.reason == "bad_address_type"


@pytest.mark.parametrize(
    "name", ["example.org", "example.org.", "xn--bcher-kva.example", "_srv._tcp.a", "192.0.2.1", LONGEST]
)
def test_a_name_is_kept_as_it_was_sent(name: str) -> None:
    assert read_name(name.encode()) == name
    assert write_name(name) == name.encode()


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        (b"", "the name is empty"),
        (b".", "the name is empty"),
        (b"a" * 254, "the name has 254 bytes, at most 253"),
        (b"a" * 254 + b".", "the name has 254 bytes, at most 253"),
        (b"good.example\0.evil.example", r"not visible ASCII: good.example\x00.evil.example"),
        (b"a b", "not visible ASCII: a b"),
        (b"a\r\nb", r"not visible ASCII: a\x0d\x0ab"),
        (b"a\x7f", r"not visible ASCII: a\x7f"),
        ("bücher.example".encode(), r"not visible ASCII: b\xc3\xbccher.example"),
        (b"\xff", r"not visible ASCII: \xff"),
    ],
)
def test_a_name_that_could_mean_two_things_is_refused(name: bytes, detail: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_name(name)
    assert (caught.value.reason, caught.value.detail) == ("bad_name", detail)


def test_the_longest_name_may_still_have_its_final_dot() -> None:
    assert read_name(LONGEST.encode() + b".") == LONGEST + "."


def test_a_name_that_cannot_be_sent_is_not_sent() -> None:
    for name in ("", "bücher.example", "a\0b", "a" * 254):
        with pytest.raises(ProtocolError) as caught:
            write_address(name, 80)
        assert caught.value.reason == "bad_name"


def test_ports_out_of_range_are_our_own_mistake() -> None:
    assert write_port(0) + write_port(65_535) == b"\0\0\xff\xff"
    for port in (-1, 65_536):
        with pytest.raises(WireError) as caught:
            write_port(port)
        assert caught.value.reason == "misuse"


@given(st.ip_addresses(), st.integers(0, 65_535))
def test_any_address_reads_back_the_same(address: IPv4Address | IPv6Address, port: int) -> None:
    data = write_address(address, port)
    assert read_address(data, 0) == (None, ip_address(str(address)), port, len(data))


@given(st.binary(max_size=300), st.integers(0, 5))
def test_any_bytes_give_a_destination_or_a_documented_error(data: bytes, start: int) -> None:
    try:
        found = read_address(data, start)
    except ProtocolError as error:
        reason = error.reason
    else:
        if found is not None:
            host, address, port, end = found
            assert (host is None) != (address is None)
            assert write_address(host if host is not None else address, port) == data[start:end]
        return
    assert reason in {"bad_address_type", "bad_name"}
