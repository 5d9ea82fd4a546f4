"""The PROXY protocol, versions 1 and 2: what a proxy says of a connection before the connection's own first byte.

    version 1   PROXY TCP4 192.0.2.1 192.0.2.9 56324 443 CR LF
    version 2   signature, version and command, family and transport, length | addresses | TLVs

Source: HAProxy's "The PROXY protocol", sections 2.1 and 2.2. Reading does not guess: whoever calls it expects a header,
and what is none is an error, not the client's first bytes. What the specification lets a receiver tolerate is refused
where two programs could understand it differently.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Literal, NamedTuple, TypeAlias

from doorward.wire.errors import ProtocolError, WireError
from doorward.wire.printable import printable

IPAddress: TypeAlias = IPv4Address | IPv6Address
Transport: TypeAlias = Literal["tcp", "udp"]

# Section 2.1: the longest line, with its end. So a CR stands at index 105 at the latest.
LINE_BYTES_MAX: Final = 107
SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
# What follows the sixteen bytes of version 2: 216 for the longest addresses, and room for TLVs. The specification's
# 65,535 would let a sender keep that much of our memory for each connection; others stop here, too.
BLOCK_BYTES_MAX: Final = 4096
HEADER_BYTES_MAX: Final = 16 + BLOCK_BYTES_MAX
TLVS_MAX: Final = 64

CHECKSUM_TYPE: Final = 0x03
_LOCAL, _PROXY = 0, 1
_INET, _INET6, _UNIX = 1, 2, 3
_ADDRESS_BYTES: Final = {_INET: 12, _INET6: 36, _UNIX: 216}
_TRANSPORTS: Final[tuple[Transport | None, ...]] = (None, "tcp", "udp")
_HEAD: Final = struct.Struct("!12sBBH")
_TLV: Final = struct.Struct("!BH")
_START: Final = b"PROXY "
_PORT: Final = re.compile(rb"0|[1-9][0-9]{0,4}")
_PORT_MAX: Final = 65_535
_LINE_END: Final = re.compile(rb"[\r\n]")


class Place(NamedTuple):
    """An address and a port, 0 to 65535."""

    address: IPAddress
    port: int


class Tlv(NamedTuple):
    """One more thing that the sender says; `kind` is 0 to 255."""

    kind: int
    value: bytes


class Header(NamedTuple):
    """A whole header of `size` bytes.

    `is_local`: the sender speaks for itself. `source` and `destination` are those of the connection that it carries,
    both None where it does not say (LOCAL, UNKNOWN, UNSPEC, Unix sockets): then the wire's own hold.
    """

    version: int
    size: int
    is_local: bool = False
    transport: Transport | None = None
    source: Place | None = None
    destination: Place | None = None
    tlvs: tuple[Tlv, ...] = ()


def read_header(data: bytes) -> Header | None:
    """The header that `data` begins with; None while it is not all there, and after HEADER_BYTES_MAX it is.

    Once a beginning is refused, every continuation of it is, for the same reason. Raises ProtocolError
    `proxy_header_missing`, `proxy_header_malformed`, `proxy_header_too_long`, `proxy_header_checksum`.
    """
    if _START.startswith(data[: len(_START)]):
        return _read_line(data) if len(data) > len(_START) else None
    if SIGNATURE.startswith(data[: len(SIGNATURE)]):
        return _read_binary(data)
    raise ProtocolError("proxy_header_missing", f"begins with {printable(data[:1])}")


def write_header(
    version: Literal[1, 2], source: Place, destination: Place, transport: Transport = "tcp"
) -> bytes:
    """What to say of a connection, in this version. Version 1 knows TCP alone: raises WireError for `udp`."""
    if version == 2:
        return write_binary(source, destination, transport)
    if transport != "tcp":
        raise WireError("proxy_header_transport", "version 1 has no datagrams")
    source, destination = _one_family(source, destination)
    family = "TCP4" if source.address.version == 4 else "TCP6"
    ports = f"{source.port} {destination.port}"
    return f"PROXY {family} {source.address} {destination.address} {ports}\r\n".encode("ascii")


def write_binary(
    source: Place,
    destination: Place,
    transport: Transport = "tcp",
    tlvs: Iterable[Tlv] = (),
    *,
    checksum: bool = False,
) -> bytes:
    """The same in version 2, with TLVs; a checksum stands behind them. Raises WireError for more than can be read."""
    source, destination = _one_family(source, destination)
    family = _INET if source.address.version == 4 else _INET6
    ports = struct.pack("!HH", source.port, destination.port)
    block = source.address.packed + destination.address.packed + ports
    block += b"".join(_TLV.pack(kind, len(value)) + value for kind, value in tlvs)
    if checksum:
        block += _TLV.pack(CHECKSUM_TYPE, 4) + bytes(4)
    if len(block) > BLOCK_BYTES_MAX:
        raise WireError("proxy_header_too_long", f"{len(block)} bytes, at most {BLOCK_BYTES_MAX}")
    family_and_transport = family << 4 | _TRANSPORTS.index(transport)
    header = _HEAD.pack(SIGNATURE, 0x20 | _PROXY, family_and_transport, len(block)) + block
    return header[:-4] + crc32c(header).to_bytes(4, "big") if checksum else header


def write_local() -> bytes:
    """Version 2: the sender itself asks, for nobody."""
    return _HEAD.pack(SIGNATURE, 0x20 | _LOCAL, 0, 0)


def crc32c(data: bytes) -> int:
    """Castagnoli's checksum (RFC 4960, appendix B)."""
    found = 0xFFFF_FFFF
    for byte in data:
        found = _CRC_TABLE[(found ^ byte) & 0xFF] ^ (found >> 8)
    return found ^ 0xFFFF_FFFF


def _read_line(data: bytes) -> Header | None:
    """Version 1."""
    end = _LINE_END.search(data, 0, LINE_BYTES_MAX - 1)
    if end is None:
        if len(data) >= LINE_BYTES_MAX - 1:
            raise ProtocolError("proxy_header_too_long", f"no end of line within {LINE_BYTES_MAX} bytes")
        return None
    place = end.start()
    if data[place : place + 1] == b"\n" or data[place + 1 : place + 2] not in (b"", b"\n"):
        raise _malformed("a line ends with CR and LF, and neither stands alone")
    if place + 1 == len(data):
        return None
    size = place + 2
    kind, *rest = data[len(_START) : place].split(b" ")
    if kind == b"UNKNOWN":
        return Header(1, size)
    if kind not in (b"TCP4", b"TCP6"):
        raise _malformed(f"{printable(kind)} is neither TCP4, TCP6 nor UNKNOWN")
    if len(rest) != 4:
        raise _malformed(f"{len(rest)} fields in place of two addresses and two ports")
    version = 4 if kind == b"TCP4" else 6
    source = Place(_read_address(rest[0], version), _read_port(rest[2]))
    destination = Place(_read_address(rest[1], version), _read_port(rest[3]))
    return Header(1, size, transport="tcp", source=source, destination=destination)


def _read_address(text: bytes, version: int) -> IPAddress:
    try:
        found = ip_address(text.decode("ascii"))
    except ValueError:
        found = None
    if found is None or found.version != version or b"%" in text:
        raise _malformed(f"{printable(text)} is no IPv{version} address")
    return found


def _read_port(text: bytes) -> int:
    if _PORT.fullmatch(text) is None or int(text) > _PORT_MAX:
        raise _malformed(f"{printable(text)} is no port")
    return int(text)


def _read_binary(data: bytes) -> Header | None:
    """Version 2. Each byte is judged as soon as it is there."""
    if len(data) > 12 and (data[12] >> 4 != 2 or data[12] & 0xF > _PROXY):
        raise _malformed(f"version and command 0x{data[12]:02x}")
    is_local = len(data) > 12 and data[12] & 0xF == _LOCAL
    if len(data) > 13 and not is_local and (data[13] >> 4 > _UNIX or data[13] & 0xF >= len(_TRANSPORTS)):
        raise _malformed(f"family and transport 0x{data[13]:02x}")
    if len(data) < _HEAD.size:
        return None
    _, _, family_and_transport, length = _HEAD.unpack_from(data)
    if length > BLOCK_BYTES_MAX:
        raise ProtocolError("proxy_header_too_long", f"{length} bytes, at most {BLOCK_BYTES_MAX}")
    family, transport = family_and_transport >> 4, family_and_transport & 0xF
    size = _HEAD.size + length
    is_told = not is_local and family and transport
    if is_told and length < _ADDRESS_BYTES[family]:
        raise _malformed(f"{length} bytes for addresses of {_ADDRESS_BYTES[family]}")
    if len(data) < size:
        return None
    if not is_told:  # LOCAL and UNSPEC: the block is to be skipped as it is
        return Header(2, size, is_local)
    addresses_end = _HEAD.size + _ADDRESS_BYTES[family]
    tlvs = tuple(_read_tlvs(data[:size], addresses_end))
    told = Header(2, size, transport=_TRANSPORTS[transport], tlvs=tlvs)
    if family == _UNIX:
        return told
    source, destination = _read_places(data[_HEAD.size : addresses_end])
    return told._replace(source=source, destination=destination)


def _read_places(block: bytes) -> tuple[Place, Place]:
    """Two addresses of one family, then two ports."""
    half = (len(block) - 4) // 2
    source_port, destination_port = struct.unpack("!HH", block[-4:])
    kind = IPv4Address if half == 4 else IPv6Address
    return Place(kind(block[:half]), source_port), Place(kind(block[half : 2 * half]), destination_port)


def _read_tlvs(header: bytes, start: int) -> Iterator[Tlv]:
    """Every TLV but the checksum, which is checked."""
    count, checked = 0, False
    while start < len(header):
        count += 1
        if count > TLVS_MAX:
            raise ProtocolError("proxy_header_too_long", f"more than {TLVS_MAX} TLVs")
        if start + _TLV.size > len(header):
            raise _malformed("a TLV ends early")
        kind, length = _TLV.unpack_from(header, start)
        start += _TLV.size
        if start + length > len(header):
            raise _malformed("a TLV ends early")
        if kind == CHECKSUM_TYPE:
            if checked or length != 4:
                raise _malformed("not one checksum of four bytes")
            checked = True
            _check(header, start)
        else:
            yield Tlv(kind, header[start : start + length])
        start += length


def _check(header: bytes, place: int) -> None:
    """The checksum at `place` was made with zeros in its place."""
    told = int.from_bytes(header[place : place + 4], "big")
    found = crc32c(header[:place] + bytes(4) + header[place + 4 :])
    if found != told:
        raise ProtocolError("proxy_header_checksum", f"0x{told:08x} in place of 0x{found:08x}")


def _one_family(source: Place, destination: Place) -> tuple[Place, Place]:
    """Both as IPv6 where they differ: a header has one family."""
    if source.address.version == destination.address.version:
        return source, destination
    return _mapped(source), _mapped(destination)


def _mapped(place: Place) -> Place:
    if isinstance(place.address, IPv6Address):
        return place
    return place._replace(address=IPv6Address(0xFFFF_0000_0000 | int(place.address)))


def _malformed(detail: str) -> ProtocolError:
    return ProtocolError("proxy_header_malformed", detail)


def _crc_row(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F6_3B78 if value & 1 else 0)
    return value


_CRC_TABLE: Final = tuple(map(_crc_row, range(256)))
