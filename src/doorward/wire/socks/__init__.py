"""SOCKS4, SOCKS4a and SOCKS5 as codecs without I/O, in both roles.

    model      the nouns: commands, reply codes, requests
    address    a destination in bytes, shared by all of SOCKS5
    server     what we speak to clients
    client     what we speak to an upstream proxy
    datagram   the header in front of every relayed UDP datagram

Rules: RFC 1928 and RFC 1929; for version 4 the memos "SOCKS: A protocol for
TCP proxy across firewalls" and "SOCKS 4A: A Simple Extension to SOCKS 4
Protocol". GSSAPI (RFC 1961) is left out: nobody offers it alone.
"""

from doorward.wire.socks.client import Socks4Client, Socks5Client
from doorward.wire.socks.datagram import Datagram, read_datagram, write_datagram
from doorward.wire.socks.model import (
    Bound,
    Command,
    Method,
    MethodsOffered,
    Request,
    Socks4Reply,
    Socks5Reply,
)
from doorward.wire.socks.server import ServerHandshake, read_request5, reply5

__all__ = [
    "Bound",
    "Command",
    "Datagram",
    "Method",
    "MethodsOffered",
    "Request",
    "ServerHandshake",
    "Socks4Client",
    "Socks4Reply",
    "Socks5Client",
    "Socks5Reply",
    "read_datagram",
    "read_request5",
    "reply5",
    "write_datagram",
]
