"""Queries on a stream: in order, however they are cut; and streams that lie, stall or break."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.engine.names.messages import Read, ask
from tests.engine.names.server import ORIGIN, RULES, Asker, lookup
from tests.engine.rig import Rig, wait_for
from tests.engine.wires import PATIENCE_S, Wire

from doorward.engine.names import stream
from doorward.engine.names.stream import serve_stream
from doorward.wire.dns_stream import framed

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


class Streaming:
    """A client's stream, being served."""

    def __init__(self, asker: Asker) -> None:
        self.wire, self.leg = asker.rig.client()
        self.served = asker.rig.start(serve_stream(asker.server, asker.session, ORIGIN, self.leg))

    async def reply(self) -> Read:
        return Read(await self.wire.exactly(int.from_bytes(await self.wire.exactly(2))))

    async def over(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.served


@pytest.fixture
async def asker(make_rig: MakeRig) -> Asker:
    return Asker(make_rig(lookup=lookup, rules=RULES))


async def test_queries_are_answered_in_order_until_the_client_ends(asker: Asker) -> None:
    streaming = Streaming(asker)
    await streaming.wire.send(framed(ask("many.test")) + framed(ask("www.bad.test"))[:5])
    assert len((await streaming.reply()).data) == 32
    await streaming.wire.send(framed(ask("www.bad.test"))[5:])
    assert (await streaming.reply()).code == "NXDOMAIN"
    streaming.wire.end()
    assert await streaming.wire.rest() == b""
    await streaming.over()


async def test_what_cannot_be_read_is_told_so_and_the_stream_goes_on(asker: Asker) -> None:
    streaming = Streaming(asker)
    await streaming.wire.send(framed(ask("four.test")[:-1]) + framed(ask("four.test")))
    assert [(await streaming.reply()).code for _ in range(2)] == ["FORMERR", "NOERROR"]
    streaming.wire.end()
    await streaming.over()


@pytest.mark.parametrize(
    "lie", [b"\0\0", b"\0\5hello", b"\xff\xff" + bytes(100), b"\x04\xd1", b"\0\x20" + ask("four.test")[:20]]
)
async def test_a_lie_about_a_length_ends_the_stream(asker: Asker, lie: bytes) -> None:
    streaming = Streaming(asker)
    await streaming.wire.send(framed(ask("four.test")) + lie)
    streaming.wire.end()
    await streaming.over()
    assert [record.reason for record in asker.records] == ["dns_bad_length"]
    assert asker.records[0].transport == "tcp"


async def test_a_stream_that_begins_with_an_answer_is_closed(asker: Asker) -> None:
    streaming = Streaming(asker)
    data = ask("four.test")
    await streaming.wire.send(framed(data[:2] + b"\x84" + data[3:]))
    await streaming.over()


@pytest.mark.parametrize("begun", [b"", b"\0", framed(ask("four.test"))[:20]])
async def test_a_silent_stream_is_closed(asker: Asker, monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(stream, "MESSAGE_TIMEOUT_S", 0.05)
    streaming = Streaming(asker)
    if begun:
        await streaming.wire.send(begun)
    await streaming.over()
    assert await streaming.wire.is_reset()


async def test_a_stream_whose_answers_nobody_reads_is_closed(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MESSAGE_TIMEOUT_S", 0.2)
    streaming = Streaming(asker)

    async def ask_on() -> None:
        while True:
            await streaming.wire.send(framed(ask("many.test")) * 10)

    asking = asyncio.Task(ask_on())
    await streaming.over()
    asking.cancel()
    await asyncio.wait([asking])


async def test_a_stream_that_breaks_leaves_nothing(asker: Asker) -> None:
    streaming = Streaming(asker)
    streaming.wire.reset()
    await streaming.over()
    other = Streaming(asker)
    await other.wire.send(b"\0")
    await wait_for(lambda: other.leg.busy, "it waits for more")
    other.served.cancel()
    await asyncio.wait([other.served])
    assert await Wire.is_reset(other.wire)


async def test_a_stream_ends_with_its_session(asker: Asker) -> None:
    streaming = Streaming(asker)
    asker.rig.engine.sessions.remove(asker.session)
    await streaming.wire.send(framed(ask("four.test")))
    await streaming.over()
