"""The bounded pair of sockets in memory: like a wire in everything that a filter can notice."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.rig import wait_for

from doorward.api import PeerReset, Refuse, Terminating
from doorward.engine.joint import HELD_BYTES_MAX, joint

pytestmark = pytest.mark.anyio


async def test_what_one_end_sends_the_other_receives_chunk_by_chunk_both_ways() -> None:
    near, far = joint()
    await near.send(b"one")
    await near.send(bytearray(b"two"))
    await far.send(memoryview(b"three"))
    assert [await far.recv(), await far.recv(), await near.recv()] == [b"one", b"two", b"three"]
    assert (near.sent, near.received, far.sent, far.received) == (6, 5, 5, 6)


async def test_a_chunk_is_cut_to_what_was_asked_for_and_the_rest_comes_next() -> None:
    near, far = joint()
    await near.send(b"abcdef")
    assert [await far.recv(2), await far.recv(100)] == [b"ab", b"cdef"]


async def test_asking_for_no_bytes_is_not_the_end_of_the_stream() -> None:
    near, far = joint()
    await near.send(b"abc")
    assert await far.recv(0) == b"abc"


async def test_an_empty_send_is_not_the_end_of_the_stream() -> None:
    near, far = joint()
    await near.send(b"")
    await near.send(b"x")
    assert await far.recv() == b"x"


async def test_the_end_comes_after_the_bytes_and_again_each_time_and_the_other_direction_goes_on() -> None:
    near, far = joint()
    await near.send(b"last")
    await near.shutdown()
    assert [await far.recv(), await far.recv(), await far.recv()] == [b"last", b"", b""]
    await far.send(b"answer")
    assert await near.recv() == b"answer"


async def test_nothing_can_be_sent_after_shutdown_or_close() -> None:
    near, _ = joint()
    await near.shutdown()
    with pytest.raises(Terminating):
        await near.send(b"x")
    near, _ = joint()
    await near.close()
    with pytest.raises(Terminating):
        await near.send(b"x")
    with pytest.raises(Terminating):
        await near.recv()


async def test_after_a_close_the_neighbour_reads_the_rest_and_cannot_send() -> None:
    near, far = joint()
    await near.send(b"rest")
    await near.close()
    await near.close()
    assert [await far.recv(), await far.recv()] == [b"rest", b""]
    with pytest.raises(PeerReset):
        await far.send(b"x")


async def test_closing_after_the_neighbour_has_ended_is_an_orderly_end() -> None:
    near, far = joint()
    await far.shutdown()
    await near.close()
    assert far.incoming.failure is None
    assert far.outgoing.failure is None


async def test_an_abort_destroys_bytes_on_their_way_and_meets_both_ends_with_its_error() -> None:
    near, far = joint()
    await near.send(b"lost")
    near.abort(Refuse("seen_enough"))
    near.abort(PeerReset("later"))
    for end in (near, far):
        with pytest.raises(Refuse):
            await end.recv()
        with pytest.raises(Refuse):
            await end.send(b"x")
    assert not near.open


@pytest.mark.parametrize("how", ["shutdown", "close"])
async def test_an_abortive_end_is_a_reset_for_the_neighbour(how: str) -> None:
    near, far = joint()
    await getattr(near, how)(abortive=True)
    with pytest.raises(PeerReset):
        await far.recv()


async def test_a_sender_waits_while_the_other_side_cannot_take_more() -> None:
    near, far = joint()
    await near.send(bytes(HELD_BYTES_MAX))
    sending = asyncio.get_running_loop().create_task(near.send(b"more"))
    await wait_for(lambda: near.busy, "the sender waits")
    assert near.outgoing.size == HELD_BYTES_MAX
    assert len(await far.recv()) == HELD_BYTES_MAX
    await sending
    assert await far.recv() == b"more"
    assert not near.busy


@pytest.mark.parametrize("event", ["abort", "close"])
async def test_whoever_waits_is_woken_when_the_joint_breaks(event: str) -> None:
    near, far = joint()
    await near.send(bytes(HELD_BYTES_MAX))
    loop = asyncio.get_running_loop()
    waiting = [loop.create_task(near.send(b"x")), loop.create_task(near.recv())]
    await wait_for(lambda: near.busy and near.incoming.reader is not None, "both wait")
    if event == "abort":
        far.abort(PeerReset("gone"))
    else:
        await far.close()
    sent, received = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(sent, PeerReset)
    assert received == b"" if event == "close" else isinstance(received, PeerReset)


async def test_a_reader_that_its_own_side_closes_meets_terminating() -> None:
    near, _ = joint()
    reading = asyncio.get_running_loop().create_task(near.recv())
    await wait_for(lambda: near.busy, "it reads")
    await near.close()
    with pytest.raises(Terminating):
        await reading


async def test_a_cancelled_recv_has_consumed_nothing_even_if_bytes_came_at_that_moment() -> None:
    near, far = joint()
    reading = asyncio.get_running_loop().create_task(far.recv())
    await wait_for(lambda: far.busy, "it reads")
    await near.send(b"kept")
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await far.recv() == b"kept"


async def test_a_cancelled_send_some_has_sent_nothing() -> None:
    near, far = joint()
    await near.send(bytes(HELD_BYTES_MAX))
    sending = asyncio.get_running_loop().create_task(near.send_some(b"never"))
    await wait_for(lambda: near.busy, "it sends")
    await far.recv()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await near.shutdown()
    assert await far.recv() == b""


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=20), st.lists(st.integers(1, 30), min_size=1))
def test_bytes_arrive_once_and_in_order_however_they_are_cut(chunks: list[bytes], cuts: list[int]) -> None:
    async def run() -> bytes:
        near, far = joint()
        for chunk in chunks:
            await near.send(chunk)
        await near.shutdown()
        received, index = b"", 0
        while data := await far.recv(cuts[index % len(cuts)]):
            assert len(data) <= cuts[index % len(cuts)]
            received += data
            index += 1
        return received

    assert asyncio.run(run()) == b"".join(chunks)
