"""The address and port of a data connection, as PORT, EPRT, 227 and 229 write them.

    PORT h1,h2,h3,h4,p1,p2                      RFC 959 section 4.1.2
    EPRT |1|192.0.2.1|6275|                     RFC 2428 section 2; 1 is IPv4, 2 is IPv6
    227 Entering Passive Mode (h1,…,p2).        RFC 959; found as RFC 1123 section 4.1.2.6 says
    229 Entering Extended Passive Mode (|||6446|)   RFC 2428 section 3; the address is the control connection's

Strict where readers differ: numbers are decimal without leading zeros, bytes at most 255, ports 1 to 65,535, and
nothing stands before, between or behind. Whether an address may be used is not asked here.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple, TypeAlias

from doorward.wire.errors import ProtocolError
from doorward.wire.ftp.commands import Command
from doorward.wire.ftp.replies import Reply
from doorward.wire.printable import printable

IPAddress: TypeAlias = IPv4Address | IPv6Address

PORT_MAX: Final = 65_535

_SIX: Final = re.compile(rb"[0-9]+(?:,[0-9]+){5}")
# Where six numbers stand in a text; a seventh is part of what is found, so that it can be refused.
_SIX_OR_MORE: Final = re.compile(rb"(?<![0-9,])[0-9]+(?:,[0-9]+){5,}")
_EPRT: Final = re.compile(rb"(?P<d>[!-,/;-@\[-`{-~])([12])(?P=d)([0-9A-Fa-f.:]{2,45})(?P=d)([0-9]+)(?P=d)")
_EXTENDED: Final = re.compile(rb"\((?P<d>[!-/:-~])(?P=d)(?P=d)([0-9]+)(?P=d)\)")


class Endpoint(NamedTuple):
    """Where a data connection goes; the port is 1 to 65,535."""

    address: IPAddress
    port: int


def read_port(argument: bytes | None) -> Endpoint:
    """What PORT names. Raises ProtocolError `ftp_bad_address`."""
    if argument is None or not _SIX.fullmatch(argument):
        raise _bad("not six numbers", argument)
    return _six(argument)


def read_eprt(argument: bytes | None) -> Endpoint:
    """What EPRT names. Raises ProtocolError `ftp_bad_address`."""
    found = _EPRT.fullmatch(argument or b"")
    if found is None:
        raise _bad("not |1|address|port| or |2|address|port|", argument)
    _, family, address, port = found.groups()
    try:
        kind = IPv4Address if family == b"1" else IPv6Address
        return Endpoint(kind(address.decode("ascii")), _port(port))
    except ValueError:
        raise _bad("not an address of that family", argument) from None


def read_passive(text: bytes) -> Endpoint:
    """The first six numbers in the text of a 227. Raises ProtocolError `ftp_bad_address`."""
    found = _SIX_OR_MORE.search(text)
    if found is None or not _SIX.fullmatch(found[0]):
        raise _bad("not six numbers", text)
    return _six(found[0])


def read_extended_passive(text: bytes) -> int:
    """The port in the text of a 229. Raises ProtocolError `ftp_bad_address`."""
    found = _EXTENDED.search(text)
    if found is None:
        raise _bad("not (|||port|)", text)
    return _port(found[2])


def port_command(endpoint: Endpoint) -> Command:
    """PORT for an IPv4 endpoint."""
    return Command("PORT", _six_of(endpoint))


def eprt_command(endpoint: Endpoint) -> Command:
    """EPRT for an endpoint of either family."""
    family = 1 if endpoint.address.version == 4 else 2
    return Command("EPRT", f"|{family}|{endpoint.address}|{endpoint.port}|".encode("ascii"))


def passive_reply(endpoint: Endpoint) -> Reply:
    """227 for an IPv4 endpoint."""
    return Reply(227, (b"Entering Passive Mode (" + _six_of(endpoint) + b").",))


def extended_passive_reply(port: int) -> Reply:
    """229 for a port."""
    return Reply(229, (b"Entering Extended Passive Mode (|||%d|)" % port,))


def _six(text: bytes) -> Endpoint:
    numbers = [_number(part, 255) for part in text.split(b",")]
    port = numbers[4] << 8 | numbers[5]
    if not port:
        raise _bad("port 0", text)
    return Endpoint(IPv4Address(bytes(numbers[:4])), port)


def _six_of(endpoint: Endpoint) -> bytes:
    assert endpoint.address.version == 4
    return b",".join(b"%d" % byte for byte in endpoint.address.packed + endpoint.port.to_bytes(2, "big"))


def _port(text: bytes) -> int:
    port = _number(text, PORT_MAX)
    if not port:
        raise _bad("port 0", text)
    return port


def _number(text: bytes, most: int) -> int:
    """A decimal number without leading zeros: where there is one, some readers count in eights."""
    if len(text) > 5 or (len(text) > 1 and text.startswith(b"0")) or int(text) > most:
        raise _bad(f"not a number from 0 to {most} without leading zeros", text)
    return int(text)


def _bad(what: str, text: bytes | None) -> ProtocolError:
    return ProtocolError("ftp_bad_address", f"{what}: {printable((text or b'')[:60])}")
