"""PROXY headers as they stand on the wire: whole, in pieces, wrong, and back again."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.errors import ProtocolError, WireError
from doorward.wire.proxy_protocol import (
    BLOCK_BYTES_MAX,
    CHECKSUM_TYPE,
    HEADER_BYTES_MAX,
    LINE_BYTES_MAX,
    SIGNATURE,
    TLVS_MAX,
    Header,
    Place,
    Tlv,
    crc32c,
    read_header,
    write_binary,
    write_header,
    write_local,
)

REASONS = {
    "proxy_header_missing",
    "proxy_header_malformed",
    "proxy_header_too_long",
    "proxy_header_checksum",
}
HERE = Place(IPv4Address("192.168.0.11"), 443)
THERE = Place(IPv4Address("192.168.0.1"), 56_324)
HERE_6 = Place(IPv6Address("2001:db8::b"), 443)
THERE_6 = Place(IPv6Address("2001:db8::1"), 56_324)

LINE = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
LINE_6 = b"PROXY TCP6 2001:db8::1 2001:db8::b 56324 443\r\n"
BINARY = bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c c0a80001 c0a8000b dc04 01bb")
BINARY_6 = bytes.fromhex(
    "0d0a0d0a000d0a515549540a 21 21 0024"
    "20010db8000000000000000000000001 20010db800000000000000000000000b dc04 01bb"
)
DATAGRAM = BINARY[:13] + b"\x12" + BINARY[14:]
GOLDEN = [
    (LINE, Header(1, len(LINE), False, "tcp", THERE, HERE)),
    (LINE_6, Header(1, len(LINE_6), False, "tcp", THERE_6, HERE_6)),
    (b"PROXY UNKNOWN\r\n", Header(1, 15)),
    (b"PROXY UNKNOWN ffff: \x00\xff 1 \r\n", Header(1, 27)),
    (BINARY, Header(2, 28, False, "tcp", THERE, HERE)),
    (BINARY_6, Header(2, 52, False, "tcp", THERE_6, HERE_6)),
    (DATAGRAM, Header(2, 28, False, "udp", THERE, HERE)),
    (SIGNATURE + b"\x20\x00\x00\x00", Header(2, 16, True)),
    (SIGNATURE + b"\x20\x00\x00\x03\x04\x00\x00", Header(2, 19, True)),
    (SIGNATURE + b"\x20\xff\x00\x01x", Header(2, 17, True)),  # what a LOCAL header says else is not looked at
    (SIGNATURE + b"\x21\x00\x00\x02xy", Header(2, 18)),
    (SIGNATURE + b"\x21\x10\x00\x02xy", Header(2, 18)),
    (SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216), Header(2, 232, False, "tcp")),
]


def with_block(block: bytes, family_and_transport: int = 0x11) -> bytes:
    """A version 2 header with this behind its sixteen bytes."""
    return SIGNATURE + bytes([0x21, family_and_transport]) + len(block).to_bytes(2, "big") + block


def with_tlvs(tlvs: bytes) -> bytes:
    return with_block(BINARY[16:] + tlvs)


def outcome(data: bytes) -> Header | tuple[str, str] | None:
    """What is read, or what is refused and why."""
    try:
        return read_header(data)
    except ProtocolError as error:
        return error.reason, error.detail


def reason_of(data: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        read_header(data)
    return caught.value.reason


@pytest.mark.parametrize(("data", "header"), GOLDEN)
def test_golden_headers_are_read_whole_and_byte_by_byte_and_end_where_they_end(
    data: bytes, header: Header
) -> None:
    assert read_header(data) == header
    assert read_header(data + b"GET / HTTP/1.1\r\n") == header
    for size in range(len(data)):
        assert read_header(data[:size]) is None


def test_what_is_written_is_what_the_specification_shows() -> None:
    assert write_header(1, THERE, HERE) == LINE
    assert write_header(1, THERE_6, HERE_6) == LINE_6
    assert write_header(2, THERE, HERE) == BINARY
    assert write_header(2, THERE_6, HERE_6) == BINARY_6
    assert write_header(2, THERE, HERE, "udp") == DATAGRAM
    assert read_header(write_local()) == Header(2, 16, True)


def test_two_families_become_one() -> None:
    header = read_header(write_header(1, THERE, HERE_6))
    assert header is not None
    assert header.source == Place(ip_address("::ffff:192.168.0.1"), 56_324)
    assert header.destination == HERE_6
    assert read_header(write_header(2, THERE_6, HERE)) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"G",
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"proxy TCP4",
        b"PROXX",
        b"PROXY\r\n",
        b"\r\n\r\n\0\r\nQUIX",
        b"\r\nQ",
        b"\n",
        b"\0",
    ],
)
def test_what_is_no_header_is_told_at_once(data: bytes) -> None:
    assert reason_of(data) == "proxy_header_missing"


@pytest.mark.parametrize(
    "line",
    [
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\rX",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 \r\n",
        "PROXY TCP4 192.168.0.1  192.168.0.11 56324 443\r\n",
        "PROXY  TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 1\r\n",
        "PROXY tcp4 192.168.0.1 192.168.0.11 56324 443\r\n",
        "PROXY UDP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        "PROXY TCP6 192.168.0.1 192.168.0.11 56324 443\r\n",
        "PROXY TCP4 ::1 ::1 56324 443\r\n",
        "PROXY TCP4 192.168.0.01 192.168.0.11 56324 443\r\n",
        "PROXY TCP4 192.168.1 192.168.0.11 56324 443\r\n",
        "PROXY TCP4 192.168.0.256 192.168.0.11 56324 443\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 56324 443\r\n",
        "PROXY TCP6 ::1::1 ::1 56324 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 056324 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 -1 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 +1 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 4_3\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 \u0664\r\n",
        "PROXY TCP4 192.168.0.\u0661 192.168.0.11 56324 443\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY \r\n",
        "PROXY UNKNOWN\n",
    ],
)
def test_a_line_that_two_programs_could_read_differently_is_refused(line: str) -> None:
    assert reason_of(line.encode()) == "proxy_header_malformed"


def test_a_line_has_a_limit_and_the_longest_one_fits() -> None:
    longest = b"PROXY UNKNOWN " + b"x" * (LINE_BYTES_MAX - 16) + b"\r\n"
    assert len(longest) == LINE_BYTES_MAX
    assert read_header(longest) == Header(1, LINE_BYTES_MAX)
    too_long = longest[:-2] + b"x\r\n"
    assert reason_of(too_long) == "proxy_header_too_long"
    assert reason_of(too_long[: LINE_BYTES_MAX - 1]) == "proxy_header_too_long"
    assert read_header(too_long[: LINE_BYTES_MAX - 2]) is None


@pytest.mark.parametrize(
    "data",
    [
        SIGNATURE + b"\x11",  # another version
        SIGNATURE + b"\x22",  # another command
        SIGNATURE + b"\x21\x41",  # another family
        SIGNATURE + b"\x21\x13",  # another transport
        with_block(BINARY[16:-1]),
        with_block(BINARY_6[16:-1], 0x21),
        with_block(bytes(215), 0x31),
        with_block(b""),
        with_tlvs(b"\x04"),
        with_tlvs(b"\x04\x00"),
        with_tlvs(b"\x04\x00\x01"),
        with_tlvs(b"\x04\xff\xff"),
        with_tlvs(b"\x03\x00\x03abc"),
        with_tlvs(b"\x03\x00\x00"),
    ],
)
def test_a_block_that_is_not_what_it_says_is_refused(data: bytes) -> None:
    assert reason_of(data) == "proxy_header_malformed"


def test_tlvs_are_kept_within_limits() -> None:
    tlvs = tuple(Tlv(0xE0 + n % 16, bytes([n])) for n in range(TLVS_MAX))
    found = read_header(write_binary(THERE, HERE, tlvs=tlvs))
    assert found is not None
    assert found.tlvs == tlvs
    assert reason_of(write_binary(THERE, HERE, tlvs=[*tlvs, Tlv(4, b"")])) == "proxy_header_too_long"


def test_a_length_beyond_the_limit_is_refused_before_it_is_waited_for() -> None:
    most = write_binary(THERE, HERE, tlvs=[Tlv(4, bytes(BLOCK_BYTES_MAX - 15))])
    assert len(most) == HEADER_BYTES_MAX
    assert read_header(most) is not None
    assert reason_of(SIGNATURE + b"\x21\x11\x10\x01") == "proxy_header_too_long"
    assert reason_of(SIGNATURE + b"\x20\x00\xff\xff") == "proxy_header_too_long"


def test_a_checksum_is_checked_if_it_is_there() -> None:
    assert crc32c(b"123456789") == 0xE306_9283  # RFC 3720, appendix B.4, and every table of checksums
    whole = write_binary(THERE, HERE, tlvs=[Tlv(2, b"example.org")], checksum=True)
    found = read_header(whole)
    assert found is not None
    assert found.tlvs == (Tlv(2, b"example.org"),)
    for place in range(16, len(whole)):
        wrong = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        got = outcome(wrong)
        if isinstance(got, Header):  # the checksum's own type was hit: then there is none
            assert place == len(whole) - 7
        else:
            assert got is not None
            assert got[0] in {"proxy_header_checksum", "proxy_header_malformed"}
    twice = whole[16:] + bytes([CHECKSUM_TYPE, 0, 4]) + bytes(4)
    assert reason_of(with_block(twice)) in {"proxy_header_malformed", "proxy_header_checksum"}


def test_our_own_mistakes_are_told_as_such() -> None:
    with pytest.raises(WireError) as caught:
        write_header(1, THERE, HERE, "udp")
    assert not isinstance(caught.value, ProtocolError)
    with pytest.raises(WireError):
        write_binary(THERE, HERE, tlvs=[Tlv(4, bytes(BLOCK_BYTES_MAX))])


PLACES = st.builds(Place, st.ip_addresses(), st.integers(0, 65_535))
PORTS = st.integers(0, 65_535)
IPV4, IPV6 = (
    st.builds(Place, addresses, PORTS) for addresses in (st.ip_addresses(v=4), st.ip_addresses(v=6))
)
SAME_FAMILY = st.tuples(IPV4, IPV4) | st.tuples(IPV6, IPV6)
TLVS = st.lists(
    st.builds(Tlv, st.integers(0, 255).filter(lambda kind: kind != CHECKSUM_TYPE), st.binary(max_size=40)),
    max_size=8,
)


@given(SAME_FAMILY, st.sampled_from([1, 2]))
def test_what_is_written_reads_back_the_same(places: tuple[Place, Place], version: Literal[1, 2]) -> None:
    written = write_header(version, *places)
    assert read_header(written + b"x") == Header(version, len(written), False, "tcp", *places)


@given(PLACES, PLACES, TLVS, st.booleans(), st.sampled_from(["tcp", "udp"]))
def test_so_do_tlvs_and_checksums(
    source: Place, destination: Place, tlvs: list[Tlv], checksum: bool, transport: Literal["tcp", "udp"]
) -> None:
    found = read_header(write_binary(source, destination, transport, tlvs, checksum=checksum))
    assert found is not None
    assert (found.tlvs, found.transport) == (tuple(tlvs), transport)


@given(
    st.binary(max_size=300)
    | st.binary(max_size=300).map(lambda rest: b"PROXY TCP4 " + rest)
    | st.binary(max_size=300).map(lambda rest: SIGNATURE + b"\x21" + rest)
    | st.binary(max_size=60).map(with_tlvs),
)
def test_any_bytes_raise_only_the_documented_errors_and_the_first_one_stays(data: bytes) -> None:
    first: object = None
    for size in range(len(data) + 1):
        found = outcome(data[:size])
        first = first or found
        assert found == first
        if isinstance(found, Header):
            assert found.size <= size
        elif found is not None:
            assert found[0] in REASONS
            assert found[1].isprintable()
