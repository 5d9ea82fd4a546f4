"""The header in front of every datagram between a client and the UDP relay (RFC 1928 section 7).

    00 00  RSV     FRAG     ATYP, address, port     payload

Fragments are told apart but not joined: the RFC lets a relay drop them, and
nobody sends them. The caller drops whatever has `fragment` other than 0.
"""

from __future__ import annotations

from typing import NamedTuple

from doorward.wire.errors import ProtocolError
from doorward.wire.socks.address import read_address, write_address
from doorward.wire.socks.model import IPAddress


class Datagram(NamedTuple):
    """One datagram and its far end. Exactly one of `host` and `address` is set; `fragment` is 0 to 255."""

    fragment: int
    host: str | None
    address: IPAddress | None
    port: int
    payload: bytes


def read_datagram(data: bytes) -> Datagram:
    """Read one whole datagram as received from the client.

    Raises ProtocolError `bad_reserved`, `bad_address_type`, `bad_name`,
    `bad_port` (0), and `truncated` if the header is not all there.
    """
    if data[:2].strip(b"\0"):
        raise ProtocolError("bad_reserved", "the reserved bytes are not zero")
    found = read_address(data, 3)
    if found is None:
        raise ProtocolError("truncated", f"the header ends early, in a datagram of {len(data)} bytes")
    host, address, port, end = found
    if not port:
        raise ProtocolError("bad_port", "no datagram can be sent to port 0")
    return Datagram(data[2], host, address, port, data[end:])


def write_datagram(source: str | IPAddress, port: int, payload: bytes) -> bytes:
    """Put the header in front of a payload, unfragmented. Raises as `write_address` does."""
    return b"\0\0\0" + write_address(source, port) + payload
