"""Addresses and routes of a captured program's namespace: `lo`, and every address there is behind it.

    ip link set lo up
    ip address add OWN/32 dev lo                      ip -6 address add OWN6/128 dev lo nodad
    ip route add local default dev lo src OWN         ip -6 route add local default dev lo src OWN6

Sources: linux/rtnetlink.h, linux/if_addr.h. There is no other device, so what is not caught goes nowhere.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Final

from doorward.capture.addresses import OWN
from doorward.capture.netlink import ACK, CREATE, EXCLUSIVE, Message, attribute

_LO: Final = 1  # the index of `lo` in every network namespace
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_NEW_LINK: Final = 16
_NEW_ADDRESS: Final = 20
_NEW_ROUTE: Final = 24
_UP: Final = 1
_NO_DAD: Final = 2
_SCOPE_HOST: Final = 254
_TABLE_LOCAL: Final = 255
_PROTOCOL_BOOT: Final = 3
_TYPE_LOCAL: Final = 2


def lo_up() -> Message:
    """Bring `lo` up, which gives it 127.0.0.1 and ::1."""
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, _LO, _UP, _UP)
    return Message(_NEW_LINK, ACK, body, "bringing lo up")


def address(version: int) -> Message:
    """Give `lo` the address that the program has as its own."""
    own = ipaddress.ip_address(OWN[version]).packed
    body = struct.pack("=BBBBI", _FAMILY[version], len(own) * 8, _NO_DAD, 0, _LO)
    attributes = attribute(2, own) + attribute(1, own)
    return Message(
        _NEW_ADDRESS, ACK | CREATE | EXCLUSIVE, body + attributes, f"giving lo its IPv{version} address"
    )


def route(version: int) -> Message:
    """Make every address one of this machine's own, as far as this namespace knows."""
    own = ipaddress.ip_address(OWN[version]).packed
    body = struct.pack(
        "=BBBBBBBBI", _FAMILY[version], 0, 0, 0, _TABLE_LOCAL, _PROTOCOL_BOOT, _SCOPE_HOST, _TYPE_LOCAL, 0
    )
    attributes = attribute(4, struct.pack("=I", _LO)) + attribute(7, own)
    return Message(
        _NEW_ROUTE, ACK | CREATE | EXCLUSIVE, body + attributes, f"adding the local route for IPv{version}"
    )
