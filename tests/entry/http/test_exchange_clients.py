"""Clients that go away in the middle of an exchange."""

from __future__ import annotations

import pytest
from tests.entry.http.test_exchange import begun
from tests.entry.peers import Peer, read_answer_head
from tests.entry.world import world

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("moment", ["uploading", "downloading"])
async def test_a_client_that_resets_ends_the_server_s_side_with_one_record(moment: str) -> None:
    async with world() as here:
        client, outer = await begun(here, "Content-Length: 10", method="POST")
        if moment == "downloading":
            await client.send(b"1234567890")
            await outer.receive(10)
            await outer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
            await read_answer_head(client)
        client.reset()
        if moment == "downloading":
            await outer.send(b"12345")
            await here.until(lambda: not here.firewall.engine.connections or _sent(outer))
        assert (await outer.outcome())[1] == "reset"
        await here.quiet()
        assert [(r.action, r.end, r.ended_by) for r in here.records] == [("allow", "reset", "internal")]


async def test_a_client_that_vanishes_while_its_answer_is_awaited_is_noticed() -> None:
    async with world() as here:
        client, outer = await begun(here)
        client.reset()
        assert (await outer.outcome())[1] == "reset"
        await here.quiet()
        assert [(r.action, r.end, r.ended_by) for r in here.records] == [("allow", "reset", "internal")]


def _sent(outer: Peer) -> bool:
    """One more byte for a client that is gone: the first ones may have been on their way when it went."""
    try:
        outer.socket.send(b"6")
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False
