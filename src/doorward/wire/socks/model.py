"""The nouns of SOCKS: commands, methods, reply codes, and what a handshake yields."""

from __future__ import annotations

import enum
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, TypeAlias

IPAddress: TypeAlias = IPv4Address | IPv6Address


class Command(enum.IntEnum):
    """What the client wants (RFC 1928 section 4). Version 4 has no UDP_ASSOCIATE."""

    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class Method(enum.IntEnum):
    """How a client may say who it is (RFC 1928 section 3); those we speak, and none of them."""

    NO_AUTHENTICATION = 0x00
    USERNAME_PASSWORD = 0x02
    NO_ACCEPTABLE = 0xFF


class Socks5Reply(enum.IntEnum):
    """REP of RFC 1928 section 6."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


class Socks4Reply(enum.IntEnum):
    """CD of the SOCKS4 memo. The last two are about identd, which we never ask."""

    GRANTED = 0x5A
    REJECTED = 0x5B
    NO_IDENTD = 0x5C
    IDENTD_MISMATCH = 0x5D


class MethodsOffered(NamedTuple):
    """The client's greeting: 1 to 255 methods, one byte each, as sent; some may be unknown to us."""

    methods: bytes


class Request(NamedTuple):
    """What the client asks for. Exactly one of `host` and `address` is set.

    `host` is the name as the client sent it: visible ASCII, not folded, its
    final dot still there; it may well spell an address. `port` is 1 to 65,535
    for CONNECT and may be 0 otherwise. `user_id` is what a version 4 client
    calls itself, unproven, one character per byte; None from version 5.
    """

    version: int
    command: Command
    host: str | None
    address: IPAddress | None
    port: int
    user_id: str | None = None


class Bound(NamedTuple):
    """The address a proxy gave in its reply: where it dialled from, or where it listens. Often all zeros."""

    host: str | None
    address: IPAddress | None
    port: int
