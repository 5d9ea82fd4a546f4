"""`host:port` as it stands in request targets and Host fields (RFC 9110 4.2, RFC 3986 3.2).

Stricter than the RFC, so that the host that is judged is the host that is reached: no user information, no percent
encoding, no zone identifiers. Underscores are accepted, because real names have them. A number that some resolver
reads as an address although it is not written as one (`127.1`, `0x7f000001`, `2130706433`) stays text here: what it
means is for policy to say (`policy.address`), and two spellings of one address are two hosts to this module.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Final, NamedTuple

from doorward.wire.http.errors import HttpError

AUTHORITY_BYTES_MAX: Final = 262  # a name of 253 bytes, its final dot, a colon and five digits, with room

_SPLIT: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([1-9][0-9]{0,4}))?")
_NAME: Final = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")


class Authority(NamedTuple):
    """`host` lower case, without brackets or final dot; `port` None if none was written."""

    host: str
    port: int | None


@lru_cache(maxsize=1024)  # hosts repeat; an entry is at most some 600 bytes
def parse_authority(text: bytes) -> Authority:
    """Read `name`, `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.

    Raises HttpError: `http_userinfo`, `http_host` or `http_port`.
    """
    if b"@" in text:
        raise HttpError("http_userinfo", "user information before the host is not accepted")
    match = _SPLIT.fullmatch(text) if len(text) <= AUTHORITY_BYTES_MAX else None
    if match is None:
        raise HttpError("http_host", f"{text[:AUTHORITY_BYTES_MAX]!r} is not host or host:port")
    port = int(match[2]) if match[2] else None
    if port is not None and port > 65_535:
        raise HttpError("http_port", f"port {port} is over 65535")
    return Authority(_canonical_host(match[1].decode("ascii").lower()), port)


def write_authority(host: str, port: int, default_port: int | None) -> bytes:
    """The canonical text: IPv6 in brackets, the port left out if it is the default one."""
    text = f"[{host}]" if ":" in host else host
    return (text if port == default_port else f"{text}:{port}").encode("ascii")


def _canonical_host(host: str) -> str:
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1]))
    except AddressValueError:
        raise HttpError("http_host", f"{host!r} is not an IPv6 address") from None
    name = host.removesuffix(".")
    if not _NAME.fullmatch(host) or len(name) > 253:
        raise HttpError("http_host", f"{host!r} is not a host name")
    return name
