"""A destination in bytes: ATYP, address, port (RFC 1928 sections 4 to 7), and what a name may be.

    01  4 bytes IPv4          03  length, name          04  16 bytes IPv6      then 2 bytes port

Names are visible ASCII. A length-prefixed name could hide a NUL that a C
resolver would cut at; a space or control character has no place in one, and
internationalized names travel in their ASCII form.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Final

from doorward.wire.errors import ProtocolError, WireError
from doorward.wire.printable import printable
from doorward.wire.socks.model import IPAddress

NAME_BYTES_MAX: Final = 253  # RFC 1035 allows 255 on its own wire, which is this much as text
_IPV4: Final = 1
_NAME: Final = 3
_IPV6: Final = 4


def read_name(name: bytes) -> str:
    """The name as text, checked but not changed. At most 253 bytes, and one more if that is a final dot.

    Raises ProtocolError `bad_name`.
    """
    size = len(name) - name.endswith(b".")
    if not size:
        raise ProtocolError("bad_name", "the name is empty")
    if size > NAME_BYTES_MAX:
        raise ProtocolError("bad_name", f"the name has {size} bytes, at most {NAME_BYTES_MAX}")
    if name.isascii():
        text = name.decode("ascii")
        if text.isprintable() and " " not in text:
            return text
    raise ProtocolError("bad_name", f"not visible ASCII: {printable(name)}")


def write_name(name: str) -> bytes:
    """The opposite of `read_name`, with the same limits and error."""
    try:
        raw = name.encode("ascii")
    except UnicodeEncodeError:
        raise ProtocolError("bad_name", f"not visible ASCII: {printable(name)}") from None
    read_name(raw)
    return raw


def read_address(data: bytes, start: int) -> tuple[str | None, IPAddress | None, int, int] | None:
    """Read ATYP, address and port from `data` at `start`; None: more bytes needed.

    Returns name or address, the other None; the port, 0 to 65,535; and where
    the next field begins. Raises ProtocolError `bad_address_type`, `bad_name`.
    """
    size = len(data)
    if size <= start:
        return None
    kind = data[start]
    host: str | None = None
    address: IPAddress | None = None
    begin = start + 1
    if kind == _IPV4:
        end = begin + 4
        if size < end + 2:
            return None
        address = IPv4Address(data[begin:end])
    elif kind == _NAME:
        begin += 1
        if size < begin:
            return None
        end = begin + data[begin - 1]
        if size < end + 2:
            return None
        host = read_name(data[begin:end])
    elif kind == _IPV6:
        end = begin + 16
        if size < end + 2:
            return None
        address = IPv6Address(data[begin:end])
    else:
        raise ProtocolError("bad_address_type", f"address type {kind}, known are 1, 3 and 4")
    return host, address, data[end] << 8 | data[end + 1], end + 2


def write_address(destination: str | IPAddress | None, port: int) -> bytes:
    """The opposite of `read_address`. No destination is written as 0.0.0.0.

    Raises ProtocolError `bad_name`, WireError `misuse` for an impossible port.
    """
    raw_port = write_port(port)
    if destination is None:
        return b"\x01\x00\x00\x00\x00" + raw_port
    if isinstance(destination, str):
        name = write_name(destination)
        return bytes((_NAME, len(name))) + name + raw_port
    return (b"\x01" if destination.version == 4 else b"\x04") + destination.packed + raw_port


def write_port(port: int) -> bytes:
    """Two bytes, network order. Raises WireError `misuse` outside 0 to 65,535."""
    if not 0 <= port <= 65_535:
        raise WireError("misuse", f"port {port}, at most 65535")
    return port.to_bytes(2, "big")
