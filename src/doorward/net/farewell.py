"""Parting from a peer so that the last words arrive.

Closing a socket that still holds unread bytes resets it, and the reset destroys what was on its way to the peer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from doorward.api.errors import DoorwardError

if TYPE_CHECKING:
    from doorward.net.carrier import Carrier

# A peer that is still sending is listened to for this long, so that no RST destroys the refusal on its way.
LINGER_S: Final = 1.0
LINGER_BYTES_MAX: Final = 256 * 1024


async def farewell(carrier: Carrier, data: bytes) -> None:
    """Send a last answer and close so that it arrives: end our side, read the rest for a moment, then close."""
    try:
        async with asyncio.timeout(LINGER_S):
            if data:
                await carrier.send(data)
            await carrier.shutdown()
            left = LINGER_BYTES_MAX
            while left > 0 and (rest := await carrier.recv()):
                left -= len(rest)
    except (TimeoutError, DoorwardError):
        pass  # it has had its chance
    carrier.close_now()
