"""Addresses and ports of data connections: what is read, what is refused, what is written."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.wire.errors import ProtocolError
from doorward.wire.ftp.commands import Command
from doorward.wire.ftp.endpoints import (
    Endpoint,
    eprt_command,
    extended_passive_reply,
    passive_reply,
    port_command,
    read_eprt,
    read_extended_passive,
    read_passive,
    read_port,
)

HERE = IPv4Address("192.0.2.1")
SIX = b"192,0,2,1,24,131"
ENDPOINT = Endpoint(HERE, 24 * 256 + 131)

# Six numbers that are none, for PORT and 227 alike.
BAD_SIX = [
    b"192,0,2,1,0,0",  # port 0
    b"192,0,2,256,24,131",
    b"192,0,2,1,256,131",
    b"192,0,2,1,24,99999999999999999999",
    b"192,0,2,01,24,131",
    b"192,0,2,1,024,131",
    b"192,0,2,1,24",
    b"192,0,2,1,24,131,1",
    b"192,0,2,1,24,",
    b"192,0,2,1,,131",
    b"192,0,2,1,24,-131",
    b"192.0.2.1,24,131",
    b"192, 0, 2, 1, 24, 131",
    b"",
]


def refused(read: object, text: bytes | None) -> None:
    with pytest.raises(ProtocolError) as caught:
        read(text)  # type: ignore[operator]  # one of the four readers
    assert caught.value.reason == "ftp_bad_address"


def test_port_is_read() -> None:
    assert read_port(SIX) == ENDPOINT


@pytest.mark.parametrize(
    "argument",
    [None, *BAD_SIX, b" " + SIX, SIX + b" ", SIX + b"\xd9\xa1", b"(" + SIX + b")", "١٩٢,0,2,1,4,5".encode()],
)
def test_port_is_refused(argument: bytes | None) -> None:
    refused(read_port, argument)


@pytest.mark.parametrize(
    "text",
    [b"Entering Passive Mode (%s).", b"Entering Passive Mode %s", b"=%s", b"%s", b"3 of 4: %s",
     b"(%s) (10,0,0,1,4,5)"],
)  # fmt: skip
def test_the_six_numbers_of_a_227_are_found_wherever_they_stand(text: bytes) -> None:
    assert read_passive(text % SIX) == ENDPOINT


@pytest.mark.parametrize("numbers", BAD_SIX)
def test_a_227_is_refused(numbers: bytes) -> None:
    refused(read_passive, b"Entering Passive Mode (" + numbers + b")")


def test_finding_six_numbers_takes_no_longer_for_hostile_text() -> None:
    for text in (b"1" * 200_000, b"1," * 100_000, b"1,1,1,1,1 " * 20_000, b"(" * 200_000):
        refused(read_passive, text)
        refused(read_extended_passive, text)
        refused(read_eprt, text)


@pytest.mark.parametrize(
    ("argument", "address", "port"),
    [
        (b"|1|192.0.2.1|6275|", HERE, 6275),
        (b"|2|2001:db8::1|6275|", IPv6Address("2001:db8::1"), 6275),
        (b"|2|::ffff:192.0.2.1|1|", IPv6Address("::ffff:192.0.2.1"), 1),
        (b"!1!192.0.2.1!65535!", HERE, 65535),
    ],
)
def test_eprt_is_read(argument: bytes, address: IPv4Address | IPv6Address, port: int) -> None:
    assert read_eprt(argument) == Endpoint(address, port)


@pytest.mark.parametrize(
    "argument",
    [
        None,
        b"",
        b"|1|192.0.2.1|0|",
        b"|1|192.0.2.1|65536|",
        b"|1|192.0.2.1|99999999999999999999|",
        b"|1|192.0.2.1|06275|",
        b"|1|192.0.2.1|6275",
        b"|1|192.0.2.1|6275|1|",
        b"|1|192.0.2.1|6275|\xff",
        b" |1|192.0.2.1|6275|",
        b"|1|192.0.2.01|6275|",
        b"|1|192.0.2|6275|",
        b"|1|2001:db8::1|6275|",
        b"|2|192.0.2.1|6275|",
        b"|2|fe80::1%eth0|6275|",
        b"|3|192.0.2.1|6275|",
        b"|01|192.0.2.1|6275|",
        b"|1!192.0.2.1|6275|",
        b"111192.0.2.1162751",
        b"|1|example.org|6275|",
        b"||192.0.2.1|6275|",
    ],
)
def test_eprt_is_refused(argument: bytes | None) -> None:
    refused(read_eprt, argument)


@pytest.mark.parametrize(
    "text", [b"Entering Extended Passive Mode (|||6446|)", b"(|||6446|)", b"ok (!!!6446!) go"]
)
def test_the_port_of_a_229_is_found(text: bytes) -> None:
    assert read_extended_passive(text) == 6446


@pytest.mark.parametrize(
    "text",
    [b"(|||0|)", b"(|||65536|)", b"(|||06446|)", b"(|||6446)", b"|||6446|", b"(|1|192.0.2.1|6446|)", b"(|||6446!)", b"",
     b"(1116446111)", b"(|||99999999999999999999|)", b"(||| 6446|)"],
)  # fmt: skip
def test_a_229_is_refused(text: bytes) -> None:
    refused(read_extended_passive, text)


def test_what_is_written() -> None:
    assert port_command(ENDPOINT) == Command("PORT", SIX)
    assert eprt_command(ENDPOINT) == Command("EPRT", b"|1|192.0.2.1|6275|")
    assert eprt_command(Endpoint(IPv6Address("2001:db8::1"), 21)) == Command("EPRT", b"|2|2001:db8::1|21|")
    assert passive_reply(ENDPOINT).wire == b"227 Entering Passive Mode (192,0,2,1,24,131).\r\n"
    assert extended_passive_reply(6446).wire == b"229 Entering Extended Passive Mode (|||6446|)\r\n"


@given(st.ip_addresses(), st.integers(1, 65535))
def test_what_is_written_is_read_as_the_same(address: IPv4Address | IPv6Address, port: int) -> None:
    endpoint = Endpoint(address, port)
    assert read_eprt(eprt_command(endpoint).argument) == endpoint
    assert read_extended_passive(extended_passive_reply(port).text) == port
    if address.version == 4:
        assert read_port(port_command(endpoint).argument) == endpoint
        assert read_passive(passive_reply(endpoint).text) == endpoint


@given(st.text("0123456789,|(). :\xff").map(lambda text: text.encode("latin-1")))
def test_any_text_is_read_or_refused(text: bytes) -> None:
    for read in (read_port, read_eprt, read_passive, read_extended_passive):
        with suppress(ProtocolError):
            read(text)
