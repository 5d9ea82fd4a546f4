"""The end of a client's side whose server is a filter: all that it has said still arrives, and then an orderly end.

A client may be slow, and may go on sending meanwhile; closing at once would reset it, and the reset would destroy
what it has not taken yet. Whoever calls this bounds it: with a client that takes nothing, it has no end of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from doorward.api.errors import DoorwardError
from doorward.engine.joint import JointEnd
from doorward.net.farewell import LINGER_S
from doorward.net.leg import Leg

if TYPE_CHECKING:
    from doorward.net.carrier import Carrier


async def hear_out(internal: Carrier) -> None:
    """End our side and listen until the client ends too, or has taken everything and a moment more; then close.

    Raises LinkError kinds if the client resets meanwhile.
    """
    await internal.shutdown()
    while True:
        try:
            async with asyncio.timeout(LINGER_S):
                await _listen(internal)
            break
        except TimeoutError:
            if not _untaken(internal):
                break
    internal.close_now()


async def discard(source: Carrier) -> None:
    """Let a neighbour in the chain send on to who listens no more. Ends when it does; to be cancelled otherwise."""
    try:
        await _listen(source)
    except DoorwardError:
        pass  # whoever meets that on the client's side tells it


async def _listen(source: Carrier) -> None:
    while await source.recv():
        pass


def _untaken(carrier: Carrier) -> int:
    """Bytes that are on their way to the client."""
    if isinstance(carrier, Leg):
        return carrier.unsent
    return carrier.outgoing.size if isinstance(carrier, JointEnd) else 0
