"""Flows that the kernel has settled, as it tells of them: packets of nfnetlink_log, read down to addresses and ports.

The prefix of the rule that logged says which outcome it was. Whatever else comes, is cut, or is of no use, is passed
over: it tells about packets, it does not decide about them. Sources: linux/netfilter/nfnetlink_log.h, netlink(7).
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from doorward.packetfilter.messages import Flow

PREFIX: Final = "doorward"
PACKETS_MAX: Final = 512
"""Read in one go; the rest waits in the socket's buffer, or is lost when that is full. Counters miss none."""

_NETFILTER: Final = 12  # NETLINK_NETFILTER
_BUFFER_BYTES: Final = 2**20
_READ_BYTES: Final = 65_536
_MESSAGE: Final = struct.Struct("=IHHII")
_GENERIC: Final = struct.Struct(">BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_PACKET: Final = 0x400  # the subsystem ULOG, NFULNL_MSG_PACKET
_CONFIGURE: Final = 0x401
_REQUEST_ACK: Final = 5
_COMMAND, _BIND = 1, 1
_MODE, _COPY_PACKET = 2, 2
_COPIED_BYTES: Final = 128
_PAYLOAD, _LABEL = 9, 10
_ERROR: Final = 2
_TRANSPORTS: Final = {6: "tcp", 17: "udp"}
_SAID: Final = re.compile(PREFIX.encode() + rb" ([0-9A-Za-z]{1,64}) ([0-9]{1,6})\0?")


class FlowLog:
    """One group's listener. Needs CAP_NET_ADMIN."""

    def __init__(self, group: int) -> None:
        """Raises OSError: EPERM, or EPROTONOSUPPORT and others in a kernel without nfnetlink_log."""
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        try:
            self.socket.settimeout(1.0)
            self.socket.bind((0, 0))
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._configure(group, _COMMAND, struct.pack("B", _BIND))
            self._configure(group, _MODE, struct.pack(">IBB", _COPIED_BYTES, _COPY_PACKET, 0))
            self.socket.setblocking(False)
        except BaseException:
            self.socket.close()
            raise

    def read(self) -> tuple[Flow, ...]:
        """Flows that have begun since."""
        found: list[Flow] = []
        for _ in range(PACKETS_MAX):
            try:
                data = self.socket.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: some were lost
                continue
            found += flows_in(data)
        return tuple(found)

    def _configure(self, group: int, kind: int, value: bytes) -> None:
        attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
        body = _GENERIC.pack(socket.AF_UNSPEC, 0, group) + attribute + bytes(-len(attribute) % 4)
        self.socket.send(_MESSAGE.pack(_MESSAGE.size + len(body), _CONFIGURE, _REQUEST_ACK, 0, 0) + body)
        answer = self.socket.recv(_READ_BYTES)
        _, code, _, _, _ = _MESSAGE.unpack_from(answer)
        number: int = struct.unpack_from("=i", answer, _MESSAGE.size)[0] if code == _ERROR else 0
        if number:
            raise OSError(-number, "the kernel does not log to us")


def flows_in(data: bytes) -> Iterator[Flow]:
    """The flows that a datagram of netlink tells of; never an exception."""
    at = 0
    while at + _MESSAGE.size <= len(data):
        length, kind, _, _, _ = _MESSAGE.unpack_from(data, at)
        if length < _MESSAGE.size:
            return
        if kind == _PACKET:
            found = _flow(data[at + _MESSAGE.size + _GENERIC.size : at + length])
            if found is not None:
                yield found
        at += (length + 3) & ~3


def _flow(data: bytes) -> Flow | None:
    payload = label = b""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return None
        if kind == _PAYLOAD:
            payload = data[at + _ATTRIBUTE.size : at + length]
        elif kind == _LABEL:
            label = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    said = _SAID.fullmatch(label)
    ends = _ends(payload)
    if said is None or ends is None:
        return None
    return Flow(said[1].decode(), int(said[2]), *ends)


def _ends(packet: bytes) -> tuple[str, str, int, str, int] | None:
    """Transport, source and destination of an IP packet that may be cut after its ports."""
    if len(packet) < 24:
        return None
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    if packet[0] >> 4 == 4:
        transport, ports_at = packet[9], (packet[0] & 15) * 4
        source, destination = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    elif packet[0] >> 4 == 6 and len(packet) >= 44:
        transport, ports_at = packet[6], 40  # with other headers between, there are no ports to be told
        source, destination = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    else:
        return None
    if transport not in _TRANSPORTS or len(packet) < ports_at + 4:
        return None
    source_port, port = struct.unpack_from(">HH", packet, ports_at)
    return _TRANSPORTS[transport], str(source), source_port, str(destination), port
