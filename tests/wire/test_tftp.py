"""TFTP's packets: what is a request that every server reads alike, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.errors import ProtocolError
from doorward.wire.tftp import (
    MODES,
    PACKET_BYTES_MAX,
    REQUEST_BYTES_MAX,
    ErrorCode,
    Opcode,
    Request,
    error_packet,
    opcode_of,
    read_request,
)

READ = b"\0\1"
WRITE = b"\0\2"


def packet(head: bytes, *texts: bytes) -> bytes:
    return head + b"".join(text + b"\0" for text in texts)


def outcome(data: bytes) -> Request | str:
    try:
        return read_request(data)
    except ProtocolError as error:
        return error.reason


def shape(data: bytes) -> Opcode | str:
    try:
        return opcode_of(data)
    except ProtocolError as error:
        return error.reason


def test_requests_are_read_wholly() -> None:
    assert read_request(packet(READ, b"pxelinux.0", b"octet")) == Request(False, b"pxelinux.0", "octet", {})
    assert read_request(packet(WRITE, b"a b/\xc3\xa9", b"NetASCII")) == Request(
        True, b"a b/\xc3\xa9", "netascii", {}
    )
    options = (b"blksize", b"1468", b"TSize", b"0", b"timeout", b"2", b"windowsize", b"16", b"x-new", b"?!")
    assert read_request(packet(READ, b"f", b"octet", *options)).options == {
        "blksize": b"1468",
        "tsize": b"0",
        "timeout": b"2",
        "windowsize": b"16",
        "x-new": b"?!",
    }


def test_cut_off_anywhere_it_is_no_request_unless_the_rest_is_options() -> None:
    whole = packet(READ, b"file", b"octet", b"blksize", b"512", b"tsize", b"0")
    good = {
        len(packet(READ, *texts))
        for texts in [
            (b"file", b"octet"),
            (b"file", b"octet", b"blksize", b"512"),
            (*whole[2:-1].split(b"\0"),),
        ]
    }
    for size in range(len(whole) + 1):
        found = outcome(whole[:size])
        assert isinstance(found, Request) == (size in good), (size, found)
        if isinstance(found, str):
            assert found in ("tftp_bad_request", "tftp_bad_option")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        packet(b"\0\0", b"f", b"octet"),
        packet(b"\0\3", b"f", b"octet"),
        packet(b"\1\1", b"f", b"octet"),
        packet(READ, b"", b"octet"),
        packet(READ, b"f", b""),
        packet(READ, b"f", b"mail"),
        packet(READ, b"f", b"octet\xff"),
        packet(READ, b"f\nx", b"octet"),
        packet(READ, b"\x1b[2J", b"octet"),
        packet(READ, b"f\x7f", b"octet"),
        packet(READ, b"f", b"octet") + b"x",
        packet(READ, b"f", b"octet") + b"\0",
        packet(READ, b"f", b"octet") + b"\0\0",
        packet(READ, b"f", b"octet", b"blksize"),
        packet(READ, b"f", b"octet", b"", b"512"),
        packet(READ, b"f", b"octet", b"blksize", b""),
        packet(READ, b"f", b"octet", b"", b"multicast"),
        packet(READ, b"multicast", b""),
        packet(READ, b"f", b"octet", b"x", b"multicast", b"", b""),
        packet(READ, b"f" * (REQUEST_BYTES_MAX - 8), b"octet"),
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    assert outcome(data) == "tftp_bad_request"


def test_the_longest_request_is_one() -> None:
    longest = packet(READ, b"f" * (REQUEST_BYTES_MAX - 9), b"octet")
    assert len(longest) == REQUEST_BYTES_MAX
    assert isinstance(outcome(longest), Request)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (b"blksize", [b"8", b"65464"], [b"7", b"65465", b"-8", b"+8", b"0x10", b"8 ", b"9" * 20]),
        (b"timeout", [b"1", b"255"], [b"0", b"256", b"1.5"]),
        (b"tsize", [b"0", b"5000000000"], [b"-1", b"18446744073709551616"]),
        (b"windowsize", [b"1", b"65535"], [b"0", b"65536"]),
    ],
)
def test_known_options_have_possible_values(name: bytes, good: list[bytes], bad: list[bytes]) -> None:
    for value in good:
        assert isinstance(outcome(packet(READ, b"f", b"octet", name.upper(), value)), Request)
    for value in bad:
        assert outcome(packet(READ, b"f", b"octet", name, value)) == "tftp_bad_option"


def test_an_option_is_given_once() -> None:
    twice = (b"blksize", b"512", b"BLKSIZE", b"1024")
    assert outcome(packet(READ, b"f", b"octet", *twice)) == "tftp_bad_option"
    long = b"x" * 210
    assert isinstance(outcome(packet(READ, b"f", b"octet", long + b"1", b"1", long + b"2", b"2")), Request)


@pytest.mark.parametrize("value", [b"", b","])
def test_data_for_a_group_is_refused_with_an_answer(value: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_request(packet(READ, b"f", b"octet", b"Multicast", value))
    assert caught.value.reason == "tftp_multicast"
    assert caught.value.reply == b"\0\5\0\x08Refused by the firewall: tftp_multicast\0"


@pytest.mark.parametrize(
    ("data", "opcode"),
    [
        (packet(READ, b"f", b"octet"), Opcode.READ),
        (packet(WRITE, b"f", b"octet"), Opcode.WRITE),
        (b"\0\3\0\1", Opcode.DATA),
        (b"\0\3\0\1" + bytes(65_464), Opcode.DATA),
        (b"\0\4\0\0", Opcode.ACK),
        (b"\0\5\0\1no\0", Opcode.ERROR),
        (b"\0\6tsize\x0042\0", Opcode.OPTIONS),
    ],
)
def test_packets_are_known_by_their_shape(data: bytes, opcode: Opcode) -> None:
    assert shape(data) is opcode


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0\4\0",
        b"\0\0\0\1",
        b"\0\7\0\1",
        b"\3\0\0\1",
        b"\0\4\0\1x",
        b"\0\5\0\1no",
        b"\0\6tsize\x0042",
        b"\0\3" + bytes(PACKET_BYTES_MAX),
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_what_is_no_packet_is_refused(data: bytes) -> None:
    assert shape(data) == "tftp_bad_packet"


def test_an_error_packet_has_a_code_and_a_text() -> None:
    assert error_packet(ErrorCode.ACCESS_VIOLATION, "no") == b"\0\5\0\2no\0"
    assert opcode_of(error_packet(ErrorCode.ACCESS_VIOLATION, "")) is Opcode.ERROR


TEXT = st.binary(min_size=1, max_size=40).filter(lambda text: all(31 < byte != 127 for byte in text))
PARTS = st.sampled_from([b"\0", b"\1", b"\2", b"octet", b"f", b"blksize", b"8", b"\xff", b"\n", bytes(600)])


@given(st.booleans(), TEXT, st.sampled_from(sorted(MODES)), st.dictionaries(TEXT, TEXT, max_size=3))
def test_a_request_says_what_was_written(
    writes: bool, file: bytes, mode: str, options: dict[bytes, bytes]
) -> None:
    data = packet(
        WRITE if writes else READ,
        file,
        mode.encode(),
        *[part for option in options.items() for part in option],
    )
    found = outcome(data)
    if isinstance(found, Request):
        assert (found.writes, found.file, found.mode) == (writes, file, mode)
        assert found.options == {name.lower().decode("latin-1"): value for name, value in options.items()}
        assert opcode_of(data) in (Opcode.READ, Opcode.WRITE)
    else:
        names = {name.lower() for name in options}
        known = {b"blksize", b"timeout", b"tsize", b"windowsize", b"multicast"}
        assert len(names) < len(options) or names & known or len(data) > REQUEST_BYTES_MAX


@given(st.lists(PARTS, max_size=12).map(b"".join) | st.binary(max_size=700))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    found = outcome(data)
    if isinstance(found, Request):
        texts = [
            found.file,
            found.mode.encode(),
            *(t for o in found.options.items() for t in (o[0].encode("latin-1"), o[1])),
        ]
        assert packet(data[:2], *texts).lower() == data.lower()
    else:
        assert found in ("tftp_bad_request", "tftp_bad_option", "tftp_multicast")
    assert shape(data) in (*Opcode, "tftp_bad_packet")
