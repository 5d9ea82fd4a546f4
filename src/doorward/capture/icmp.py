"""What a router would say of a datagram that cannot be delivered: so a refused program learns of it at once.

Port unreachable, which its socket reports as "connection refused". Sources: RFC 792, RFC 4443 section 3.1.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

End: TypeAlias = tuple[IPv4Address | IPv6Address, int]

_UDP: Final = 17
_UDP_HEADER_BYTES: Final = 8
_HOPS: Final = 64
_UNREACHABLE: Final = {4: (3, 3), 6: (1, 4)}


def unreachable(client: End, meant_for: End) -> bytes:
    """The message to `client` about what it had sent; over IPv6 without its checksum, which the kernel adds."""
    version = client[0].version
    udp = struct.pack(">HHHH", client[1], meant_for[1], _UDP_HEADER_BYTES, 0)
    head = struct.pack(">BBHI", *_UNREACHABLE[version], 0, 0)
    addresses = client[0].packed + meant_for[0].packed
    if version == 6:
        return head + struct.pack(">IHBB", 6 << 28, len(udp), _UDP, _HOPS) + addresses + udp
    size = 20 + len(udp)
    message = head + struct.pack(">BBHHHBBH", 0x45, 0, size, 0, 0, _HOPS, _UDP, 0) + addresses + udp
    return message[:2] + struct.pack(">H", _checksum(message)) + message[4:]


def _checksum(data: bytes) -> int:
    """RFC 1071. The data has an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
