"""The packet filter of a captured program's namespace, as netlink messages: everything it sends comes to us.

    table inet doorward { chain captured { type filter hook prerouting priority mangle; policy drop;
        ip daddr 127.0.0.0/8 accept          ip6 daddr ::1 accept            the program's own loopback
        ip daddr OWN accept                  ip6 daddr OWN6 accept           itself; answers on their way back
        ip protocol tcp, udp   tproxy to OWN:1 accept           ip6 …        everything else, if we are there
        meta l4proto tcp reject with tcp reset                               if we are not: refused at once
        meta l4proto udp reject with icmpx port-unreachable } }

Sources: linux/netfilter/nf_tables.h, and nft(8) for the language above. A packet that no rule accepts is dropped; the
namespace has no way out but us, so neither this table nor its absence lets anything through.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final

from doorward.capture.addresses import OWN, PORT
from doorward.capture.netlink import ACK, APPEND, CREATE, Message, attribute, nested, text, u32

TABLE: Final = "doorward"
CHAIN: Final = "captured"

_INET: Final = 1
_NFPROTO: Final = {4: 2, 6: 10}
_SUBSYSTEM: Final = 10
_BATCH_BEGIN: Final = 0x10
_BATCH_END: Final = 0x11
_NEW_TABLE: Final = _SUBSYSTEM << 8
_NEW_CHAIN: Final = _SUBSYSTEM << 8 | 3
_NEW_RULE: Final = _SUBSYSTEM << 8 | 6
_PREROUTING: Final = 0
_MANGLE: Final = -150
_DROP: Final = 0
_ACCEPT: Final = 1

_REGISTER: Final = 1
_REGISTER_PORT: Final = 2
_META_NFPROTO: Final = 15
_META_L4PROTO: Final = 16
_NETWORK_HEADER: Final = 1
# Offset and size of the destination address in each header.
_DESTINATION: Final = {4: (16, 4), 6: (24, 16)}
_TCP: Final = 6
_UDP: Final = 17
_REJECT_RESET: Final = 1
_REJECT_ICMPX: Final = 2
_ICMPX_PORT_UNREACHABLE: Final = 1


def table() -> list[Message]:
    """The table as one batch: all of it, or nothing."""
    name = text(1, TABLE)
    hook = nested(4, u32(1, _PREROUTING), attribute(2, struct.pack(">i", _MANGLE)))
    chain = name + text(3, CHAIN) + hook + u32(5, _DROP) + text(7, "filter")
    bodies = [
        _message(_NEW_TABLE, CREATE, name, "making a packet filter's table"),
        _message(_NEW_CHAIN, CREATE, chain, "making a packet filter's chain"),
        _rule(_is_version(4), _goes_to(4, "127.0.0.0/8"), _verdict(_ACCEPT)),
        _rule(_is_version(6), _goes_to(6, "::1/128"), _verdict(_ACCEPT)),
    ]
    for version, own in OWN.items():
        prefix = f"{own}/{_DESTINATION[version][1] * 8}"
        bodies.append(_rule(_is_version(version), _goes_to(version, prefix), _verdict(_ACCEPT)))
    for version in OWN:
        for protocol in (_TCP, _UDP):
            is_it = _is_version(version) + _is_protocol(protocol)
            bodies.append(_rule(is_it, _caught(version), _verdict(_ACCEPT)))
    bodies.append(_rule(_is_protocol(_TCP), _reject(_REJECT_RESET, 0)))
    bodies.append(_rule(_is_protocol(_UDP), _reject(_REJECT_ICMPX, _ICMPX_PORT_UNREACHABLE)))
    return [_batch(_BATCH_BEGIN), *bodies, _batch(_BATCH_END)]


def _batch(kind: int) -> Message:
    return Message(kind, 0, struct.pack(">BBH", 0, 0, _SUBSYSTEM), "a batch of the packet filter")


def _message(kind: int, flags: int, attributes: bytes, says: str) -> Message:
    return Message(kind, flags | ACK, struct.pack(">BBH", _INET, 0, 0) + attributes, says)


def _rule(*expressions: bytes) -> Message:
    body = text(1, TABLE) + text(2, CHAIN) + nested(4, *expressions)
    return _message(_NEW_RULE, CREATE | APPEND, body, "adding a rule to the packet filter (tproxy, reject)")


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *attributes))


def _is(data: bytes) -> bytes:
    return _expression("cmp", u32(1, _REGISTER), u32(2, 0), nested(3, attribute(1, data)))


def _is_version(version: int) -> bytes:
    return _expression("meta", u32(1, _REGISTER), u32(2, _META_NFPROTO)) + _is(bytes([_NFPROTO[version]]))


def _is_protocol(protocol: int) -> bytes:
    return _expression("meta", u32(1, _REGISTER), u32(2, _META_L4PROTO)) + _is(bytes([protocol]))


def _goes_to(version: int, prefix: str) -> bytes:
    """Whether the destination lies in this network."""
    offset, size = _DESTINATION[version]
    network = ipaddress.ip_network(prefix)
    load = _expression("payload", u32(1, _REGISTER), u32(2, _NETWORK_HEADER), u32(3, offset), u32(4, size))
    masked = _expression(
        "bitwise", u32(1, _REGISTER), u32(2, _REGISTER), u32(3, size),
        nested(4, attribute(1, network.netmask.packed)), nested(5, attribute(1, bytes(size))),
    )  # fmt: skip
    return load + masked + _is(network.network_address.packed)


def _caught(version: int) -> bytes:
    """Lead it to our socket; if there is none, the rule does not match."""
    address = ipaddress.ip_address(OWN[version]).packed
    return b"".join(
        (
            _expression("immediate", u32(1, _REGISTER), nested(2, attribute(1, address))),
            _expression(
                "immediate", u32(1, _REGISTER_PORT), nested(2, attribute(1, struct.pack(">H", PORT)))
            ),
            _expression("tproxy", u32(1, _NFPROTO[version]), u32(2, _REGISTER), u32(3, _REGISTER_PORT)),
        )
    )


def _verdict(code: int) -> bytes:
    return _expression("immediate", u32(1, 0), nested(2, nested(2, u32(1, code))))


def _reject(kind: int, code: int) -> bytes:
    return _expression("reject", u32(1, kind), attribute(2, bytes([code])))
