"""The channel to the helper: a helper that lies, hangs or goes costs the channel and nothing else."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from tests.packetfilter.helpers import helping
from tests.packetfilter.tables import HOLE, HOLE6, WEB, table_of

from doorward.packetfilter import client as module
from doorward.packetfilter.client import Client, HelperGone, HelperRefused
from doorward.packetfilter.messages import LENGTH, REPLY_BYTES_MAX, Done, Flow, Noticed, Opening, packed

pytestmark = pytest.mark.anyio

FLOW = Flow("revision", 1, "udp", "10.1.0.2", 4, "10.2.0.2", 53)


class Lines:
    """A client whose helper is the test."""

    def __init__(self) -> None:
        sock, self.helper = socket.socketpair()
        sock.setblocking(False)
        self.flows: list[Flow] = []
        self.ends = 0
        self.client = Client(sock, self.flows.extend, self._end)

    def _end(self) -> None:
        self.ends += 1

    async def lost(self) -> None:
        async with asyncio.timeout(5):
            while not self.client.closed:  # noqa: ASYNC110
                await asyncio.sleep(0)

    def close(self) -> None:
        self.client.close()
        self.helper.close()


async def test_everything_can_be_asked_at_once_and_is_answered(tmp_path: Path) -> None:
    with helping(tmp_path / "s") as helped:
        client = await Client.connect(tmp_path / "s", lambda flows: None, lambda: None)
        _, _, counts = await asyncio.gather(
            client.load(table_of(WEB), ()), client.change((Opening(HOLE, 9.0),), ()), client.count()
        )
        assert counts == {}
        helped.nft.unwanted = ["fd02::ff"]
        with pytest.raises(HelperRefused) as refused:
            await client.change((Opening(HOLE6, 9.0),), ())
        assert refused.value.elements == (HOLE6,)
        client.close()
        client.close()
        with pytest.raises(HelperGone):
            await client.count()


async def test_nobody_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(HelperGone, match="no packet filter's helper answers"):
        await Client.connect(tmp_path / "s", lambda flows: None, lambda: None)


@pytest.mark.parametrize(
    "nonsense", [b"\0\0\0\1x", LENGTH.pack(REPLY_BYTES_MAX + 1), packed(Done(7)), b""], ids=str
)
async def test_a_helper_that_talks_nonsense_is_left(nonsense: bytes) -> None:
    lines = Lines()
    lines.helper.sendall(nonsense) if nonsense else lines.helper.close()
    await lines.lost()
    assert lines.ends == 1
    lines.close()


async def test_who_waits_hears_of_the_end() -> None:
    lines = Lines()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(_gone(lines.client))
        await asyncio.sleep(0)
        lines.helper.close()
        await waiting
    assert lines.ends == 1
    lines.close()


async def _gone(client: Client) -> None:
    with pytest.raises(HelperGone):
        await client.count()


async def test_a_helper_that_does_not_answer_in_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHANGE_TIMEOUT_S", 0.01)
    lines = Lines()
    await _gone(lines.client)
    assert (lines.client.closed, lines.ends) == (True, 1)
    lines.close()


async def test_who_is_cancelled_leaves_no_half_question_behind() -> None:
    lines = Lines()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await lines.client.count()
    assert lines.client.closed
    lines.close()


async def test_flows_come_between_the_answers() -> None:
    lines = Lines()
    for byte in packed(Noticed(0, (FLOW,))):
        lines.helper.send(bytes([byte]))
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        while not lines.flows:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert lines.flows == [FLOW]
    lines.close()
