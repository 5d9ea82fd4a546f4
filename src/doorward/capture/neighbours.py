"""Which machine on a wire has an address, as far as the kernel knows: its link-layer address (ip-neighbour(8)).

A machine with IPv4 and IPv6, or with IPv6 addresses that change by the day, is one machine all the same. An address
that is not on a wire of ours, behind another router say, is known by nothing but itself.
Source: linux/neighbour.h, rtnetlink(7). Asking for a single entry needs Linux 5.0.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from doorward.capture.netlink import REQUEST, ROUTE, Message, attribute, pack

_GET_NEIGHBOUR: Final = 30
_NEW_NEIGHBOUR: Final = 28
_DESTINATION: Final = 1
_LINK_LAYER_ADDRESS: Final = 2
_HEADER_BYTES: Final = 16
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ALIGNMENT: Final = 4
_ANSWER_BYTES_MAX: Final = 8192
# The kernel answers in the call itself; this is for one that does not answer at all.
_TIMEOUT_S: Final = 0.5


def machine_of(address: str, interfaces: Sequence[str]) -> str | None:
    """A text that is the same for every address of one machine on one of these wires; None if it is not on any."""
    host = ipaddress.ip_address(address.partition("%")[0])
    for name in interfaces:
        try:
            index = socket.if_nametoindex(name)
            found = _ask(socket.AF_INET if host.version == 4 else socket.AF_INET6, host.packed, index)
        except OSError:
            continue  # no such wire, or nobody there has this address
        if found:
            return f"{found.hex(':')} on {name}"
    return None


def _ask(family: int, packed: bytes, index: int) -> bytes:
    """Raises OSError; empty if the kernel does not know."""
    body = _NEIGHBOUR.pack(family, index, 0, 0, 0) + attribute(_DESTINATION, packed)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, ROUTE) as netlink:
        netlink.settimeout(_TIMEOUT_S)
        netlink.send(pack(Message(_GET_NEIGHBOUR, REQUEST, body, "asking for a neighbour"), 1))
        answer = netlink.recv(_ANSWER_BYTES_MAX)
    if len(answer) < _HEADER_BYTES or struct.unpack_from("=H", answer, 4)[0] != _NEW_NEIGHBOUR:
        return b""
    return next((value for kind, value in _attributes(answer[_HEADER_BYTES + _NEIGHBOUR.size :])
                 if kind == _LINK_LAYER_ADDRESS), b"")  # fmt: skip


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= size <= len(data):
            return
        yield kind, data[_ATTRIBUTE.size : size]
        data = data[size + -size % _ALIGNMENT :]
