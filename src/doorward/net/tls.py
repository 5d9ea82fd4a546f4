"""The two doors to TLS over a leg: as a client toward a server, as a server toward a client.

A handshake is given so many seconds and no more, before the first byte of anything else.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from doorward.api.errors import HandshakeTimedOut, Side, Terminating, TimedOut
from doorward.net.tls_leg import TLSLeg
from doorward.net.tls_records import Records

if TYPE_CHECKING:
    from doorward.net.carrier import Carrier


async def connect_tls(
    carrier: Carrier,
    context: ssl.SSLContext,
    server_name: str | None,
    *,
    timeout_s: float,
    side: Side = Side.EXTERNAL,
) -> TLSLeg:
    """TLS toward a server, whose certificate must be good for `server_name`, unless `context` waives it.

    Takes over the carrier: after failure or cancellation it is closed. Raises TLSFailed, TLSUntrusted, TimedOut,
    BadArgument for an impossible name, and what the carrier raises.
    """
    return await _shaken(carrier, context, side, server_name, timeout_s, server_side=False)


async def accept_tls(
    carrier: Carrier, context: ssl.SSLContext, *, timeout_s: float, side: Side = Side.INTERNAL
) -> TLSLeg:
    """TLS toward a client. The rest as in `connect_tls`; what is late is HandshakeTimedOut."""
    return await _shaken(carrier, context, side, None, timeout_s, server_side=True)


async def _shaken(
    carrier: Carrier,
    context: ssl.SSLContext,
    side: Side,
    server_name: str | None,
    timeout_s: float,
    *,
    server_side: bool,
) -> TLSLeg:
    try:
        records = Records(context, side, server_side=server_side, server_name=server_name)
    except BaseException:
        carrier.close_now()
        raise
    leg = TLSLeg(carrier, records)
    late = HandshakeTimedOut if server_side else TimedOut
    try:
        async with asyncio.timeout(timeout_s):
            await leg.handshake()
    except TimeoutError:
        error = late(f"no TLS handshake within {timeout_s:g} s", side=side)
        leg.abort(error)
        raise error from None
    except BaseException:
        leg.abort(Terminating("the handshake was given up", side=Side.OURS))
        raise
    return leg
