"""The header in front of relayed datagrams."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.errors import ProtocolError
from doorward.wire.socks.datagram import Datagram, read_datagram, write_datagram


def test_a_datagram_is_read_with_its_far_end() -> None:
    assert read_datagram(b"\0\0\0\x01\xc0\0\x02\x01\0\x35query") == Datagram(
        0, None, IPv4Address("192.0.2.1"), 53, b"query"
    )
    assert read_datagram(b"\0\0\0\x03\x01a\0\x35") == Datagram(0, "a", None, 53, b"")


def test_a_fragment_is_told_so_that_it_can_be_dropped() -> None:
    assert read_datagram(b"\0\0\x81\x01\xc0\0\x02\x01\0\x35x").fragment == 0x81


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\x01\0\x01\xc0\0\x02\x01\0\x35", "bad_reserved"),
        (b"\x01\0\0\x01\xc0\0\x02\x01\0\x35", "bad_reserved"),
        (b"\0\0\0\x02\xc0\0\x02\x01\0\x35", "bad_address_type"),
        (b"\0\0\0\x03\0\0\x35", "bad_name"),
        (b"\0\0\0\x01\xc0\0\x02\x01\0\0x", "bad_port"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_datagram(data)
    assert caught.value.reason == reason


def test_a_header_cut_short_is_refused_because_nothing_can_follow() -> None:
    whole = write_datagram(IPv6Address("2001:db8::1"), 53, b"")
    for size in range(len(whole)):
        with pytest.raises(ProtocolError) as caught:
            read_datagram(whole[:size])
        assert caught.value.reason == "truncated"
        assert str(size) in caught.value.detail


@given(st.ip_addresses(), st.integers(1, 65_535), st.binary())
def test_what_is_written_reads_back_the_same(
    address: IPv4Address | IPv6Address, port: int, payload: bytes
) -> None:
    assert read_datagram(write_datagram(address, port, payload)) == (0, None, address, port, payload)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda rest: b"\0\0\0\x03" + rest))
def test_any_bytes_raise_only_the_documented_errors(data: bytes) -> None:
    try:
        found = read_datagram(data)
    except ProtocolError as error:
        reason = error.reason
    else:
        assert data.endswith(found.payload)
        assert found.port
        return
    assert reason in {"bad_reserved", "bad_address_type", "bad_name", "bad_port", "truncated"}
