"""Scripted peers: a conversation that goes as written passes, any other one says where it went wrong."""

from __future__ import annotations

import asyncio

import pytest

from doorward.testing import (
    ConversationBroken,
    End,
    Expect,
    ExpectEnd,
    ExpectReset,
    Peer,
    Reset,
    Send,
    socket_pair,
)

pytestmark = pytest.mark.anyio


async def play(one: list[object], other: list[object]) -> tuple[Peer, Peer]:
    near, far = socket_pair()
    peers = Peer("one", near, one), Peer("the other", far, other)  # type: ignore[arg-type]  # lists of lines
    playing = [asyncio.get_running_loop().create_task(peer.play()) for peer in peers]
    done, waiting = await asyncio.wait(playing, timeout=5, return_when=asyncio.FIRST_EXCEPTION)
    for task in waiting:
        task.cancel()
    for task in done:
        await task
    assert not waiting
    return peers


async def test_a_conversation_that_goes_as_written() -> None:
    one, other = await play(
        [Send(b"he"), Send(b"llo"), Expect(b"HELLO"), End(), ExpectEnd()],
        [Expect(b"hello"), Send(b"HELLO"), ExpectEnd(), End()],
    )
    assert (bytes(one.received), bytes(other.received)) == (b"HELLO", b"hello")
    assert one.where == "one is at the end of its script"


async def test_expected_bytes_come_in_any_cut_and_the_rest_waits_for_the_next_line() -> None:
    await play([Send(b"abc"), Send(b"de")], [Expect(b"a"), Expect(b"bcd"), Expect(b"e"), ExpectEnd()])


async def test_what_comes_after_the_script_is_taken_in() -> None:
    _, other = await play([Send(b"a"), Send(b"b")], [])
    assert other.received == b"ab"


async def test_a_reset_is_a_reset_for_the_other_side() -> None:
    one, other = await play([Expect(b"x"), Reset()], [Send(b"x"), ExpectReset()])
    assert other.reset_by is not None
    assert one.received == b"x"


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ([Send(b"abX")], [Expect(b"abc")], "something else"),
        ([Send(b"ab")], [Expect(b"abc")], "has ended"),
        ([Send(b"a")], [ExpectEnd()], "went on"),
        ([Send(b"ab")], [Expect(b"a"), ExpectEnd()], "went on"),
        ([End()], [ExpectReset()], "in order"),
        ([Reset()], [Expect(b"a")], "it met reset"),
    ],
)
async def test_a_conversation_that_goes_otherwise_says_where(
    one: list[object], other: list[object], told: str
) -> None:
    with pytest.raises(ConversationBroken, match=told) as broken:
        await play(one, other)
    assert "the other is at line" in str(broken.value)
