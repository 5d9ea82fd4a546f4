"""Parting from a peer: its last words arrive, and nobody waits for it for ever."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tests.entry.peers import Peer

from doorward.api.errors import Side
from doorward.net import farewell as farewell_module
from doorward.net.farewell import farewell
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


async def test_a_farewell_arrives_although_the_client_is_still_sending() -> None:
    leg, peer, poller = pair()
    await peer.send(b"x" * 100_000)
    saying = asyncio.gather(farewell(leg, b"no"), peer.receive(2))
    peer.half_close()
    assert (await saying)[1] == b"no"
    assert not leg.open
    peer.close()
    poller.close()


async def test_a_farewell_does_not_wait_for_a_client_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell_module, "LINGER_S", 0.05)
    leg, peer, poller = pair()
    await farewell(leg, b"no")
    assert not leg.open
    assert await peer.receive(2) == b"no"
    peer.close()
    poller.close()


async def test_a_farewell_listens_to_no_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell_module, "LINGER_BYTES_MAX", 1000)
    leg, peer, poller = pair()
    await peer.send(b"x" * 5000)
    await farewell(leg, b"no")
    assert not leg.open
    peer.close()
    poller.close()


async def test_a_farewell_to_somebody_who_has_gone_is_no_error() -> None:
    leg, peer, poller = pair()
    peer.reset()
    await farewell(leg, b"no")
    assert not leg.open
    poller.close()
