"""The sockets to which a gateway's packet filter leads traffic of others, and what has to be so for it to arrive.

    ip rule add fwmark MARK lookup TABLE      ip route add local default dev lo table TABLE       (and with ip -6)

Sources: ip(7), ipv6(7), rtnetlink(7), Documentation/networking/tproxy.rst of Linux.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from doorward.capture.netlink import REQUEST, ROUTE, Message, attribute, pack
from doorward.capture.sockets import (
    BACKLOG,
    IP_RECVORIGDSTADDR,
    IPV6_RECVORIGDSTADDR,
    IPV6_TRANSPARENT,
    Place,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ANY: Final = {4: "0.0.0.0", 6: "::"}
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_TYPE: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_LEVEL: Final = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
_TRANSPARENT: Final = {4: 19, 6: IPV6_TRANSPARENT}
_ORIGINAL: Final = {4: IP_RECVORIGDSTADDR, 6: IPV6_RECVORIGDSTADDR}
# Addresses that are nobody's (RFC 5737, RFC 3849): the route to them is the one to everywhere.
_NOBODY: Final = {4: "198.51.100.7", 6: "2001:db8::7"}
_GET_ROUTE: Final = 26
_NEW_ROUTE: Final = 24
_ATTRIBUTE_DESTINATION: Final = 1
_ATTRIBUTE_MARK: Final = 16
_HEADER_BYTES: Final = 16
_TYPE_OFFSET: Final = _HEADER_BYTES + 7
_TYPE_LOCAL: Final = 2
_ANSWER_BYTES_MAX: Final = 8192
_TIMEOUT_S: Final = 5.0
# With it, a connection that came with the mark answers with the mark, and so to this machine itself.
_MARK_INHERITED: Final = Path("/proc/sys/net/ipv4/tcp_fwmark_accept")


def bound(place: Place) -> socket.socket:
    """A socket at this place, not blocking; one for TCP listens. Raises OSError."""
    sock = socket.socket(_FAMILY[place.version], _TYPE[place.kind] | socket.SOCK_NONBLOCK)
    try:
        if place.version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if place.kind == "udp":
            sock.setsockopt(_LEVEL[place.version], _ORIGINAL[place.version], 1)
        else:  # datagrams would go to whoever has bound it last
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((place.host, place.port))
        if place.kind == "tcp":
            sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def take_others_traffic(sock: socket.socket) -> None:
    """Let this socket have packets that are for others. Raises OSError without CAP_NET_RAW or CAP_NET_ADMIN."""
    version = 6 if sock.family == socket.AF_INET6 else 4
    sock.setsockopt(_LEVEL[version], _TRANSPARENT[version], 1)


def why_nothing_arrives(mark: int, versions: Sequence[int]) -> str:
    """What keeps packets with this mark from being delivered here; empty if nothing does. Says what to do."""
    for version in versions:
        if not _is_delivered_here(mark, version):
            ip = "ip" if version == 4 else "ip -6"
            return (
                f"IPv{version} packets that carry the mark {mark:#x} are not delivered to this machine; run "
                f'"{ip} rule add fwmark {mark:#x} lookup 100" and "{ip} route add local default dev lo table 100"'
            )
    try:
        inherited = _MARK_INHERITED.read_text().strip() != "0"
    except OSError:
        return ""  # a kernel that does not have it
    return (
        'answers to clients would come back to us; run "sysctl net.ipv4.tcp_fwmark_accept=0"'
        if inherited
        else ""
    )


def _is_delivered_here(mark: int, version: int) -> bool:
    """Whether the kernel's routes for packets with this mark end here. As `ip route get … mark …`."""
    destination = ipaddress.ip_address(_NOBODY[version]).packed
    body = struct.pack("=BBBBBBBBI", _FAMILY[version], len(destination) * 8, 0, 0, 0, 0, 0, 0, 0)
    body += attribute(_ATTRIBUTE_DESTINATION, destination) + attribute(
        _ATTRIBUTE_MARK, struct.pack("=I", mark)
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, ROUTE) as netlink:
        netlink.settimeout(_TIMEOUT_S)
        netlink.send(pack(Message(_GET_ROUTE, REQUEST, body, "asking for a route"), 1))
        answer = netlink.recv(_ANSWER_BYTES_MAX)
    kind = struct.unpack_from("=H", answer, 4)[0]
    return bool(kind == _NEW_ROUTE and answer[_TYPE_OFFSET] == _TYPE_LOCAL)


def why_no_right(error: OSError) -> str:
    """A sentence for what `take_others_traffic` has raised."""
    if error.errno == errno.EPERM:
        return (
            "it has to take packets that are for others, and needs the capability CAP_NET_RAW or CAP_NET_ADMIN "
            '(systemd: "AmbientCapabilities=CAP_NET_RAW"); without it, only method = "redirect" with udp = false '
            "and without keep_source is possible"
        )
    return f"this machine cannot take packets that are for others (IP_TRANSPARENT: {os.strerror(error.errno or 0)})"
