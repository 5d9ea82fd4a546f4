from __future__ import annotations

import asyncio
import socket

import pytest
from tests.entry.peers import Peer
from tests.entry.world import HEAD, RULE, limits, world

from doorward.api.errors import Side, TimedOut
from doorward.entry.client import Client, Lobby
from doorward.net.leg import Leg
from doorward.net.poller import Poller

pytestmark = pytest.mark.anyio


def pair() -> tuple[Leg, Peer, Poller]:
    """A client's leg and the client; the poller is to be closed."""
    poller = Poller(asyncio.get_running_loop())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    ours.setblocking(False)
    return Leg(poller, ours, Side.INTERNAL), Peer(theirs), poller


async def test_a_client_that_does_not_read_its_answer_is_given_up() -> None:
    async with world(HEAD + limits(handshake_timeout_s=0.1) + RULE) as here:
        leg, peer, poller = pair()
        client = Client(here.firewall.engine, here.firewall.authenticator, Lobby(), leg, "127.0.0.1", 1)
        with pytest.raises(TimedOut):
            await client.tell(bytes(20_000_000))
        leg.close_now()
        peer.close()
        poller.close()
