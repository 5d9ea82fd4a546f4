"""Reading a PROXY header from a wire that must begin with one, before anything else is done with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from doorward.api.errors import HandshakeTimedOut, Side
from doorward.wire.errors import ProtocolError
from doorward.wire.proxy_protocol import HEADER_BYTES_MAX, Header, read_header

if TYPE_CHECKING:
    from doorward.net.leg import Leg

MISSING: Final = "proxy_header_missing"
MALFORMED: Final = "proxy_header_malformed"


async def read_greeting(leg: Leg, timeout_s: float) -> Header:
    """The header; what came behind it is put back, and the leg has not counted the header.

    Raises ProtocolError for what is none (`proxy_header_…`), HandshakeTimedOut, LinkError kinds.
    """
    data = b""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                more = await leg.recv(HEADER_BYTES_MAX)
                if not more:
                    raise ProtocolError(MISSING if not data else MALFORMED, f"closed after {len(data)} bytes")
                data += more
                header = read_header(data)
                if header is not None:
                    break
    except TimeoutError:
        detail = f"no whole PROXY header within {timeout_s:g} s"
        raise HandshakeTimedOut(detail, side=Side.EXTERNAL) from None
    _expect_meaning(header)
    leg.put_back(data[header.size :])
    leg.received -= header.size
    return header


def _expect_meaning(header: Header) -> None:
    """What cannot be said of a TCP connection. Raises ProtocolError."""
    if header.transport == "udp":
        raise ProtocolError(MALFORMED, "a datagram's header on a stream")
    source = header.source
    if source is not None and (source.address.is_unspecified or source.address.is_multicast):
        raise ProtocolError(MALFORMED, f"nobody comes from {source.address}")
