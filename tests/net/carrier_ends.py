"""The part of the carriers' contract that is about ends: in order for each direction, or an error for everybody."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
from tests.net.carrier_world import (
    MIB,
    PATIENCE_S,
    Contract,
    Ends,
    digest,
    exactly,
    failure,
    fill,
    outcome,
    start,
    to_the_end,
    waiting,
)
from tests.net.wires import turns

from doorward.api.errors import PeerReset, Side, Terminating, TimedOut
from doorward.net.carrier import Carrier

ABORTS: dict[str, Callable[[Carrier], Any]] = {
    "abort": lambda end: end.abort(TimedOut("too slow", side=Side.OURS)),
    "shutdown": lambda end: end.shutdown(abortive=True),
    "close": lambda end: end.close(abortive=True),
    "close_now": lambda end: end.close_now(abortive=True),
}


class EndsContract(Contract):
    """Ends in order, one direction at a time."""

    async def test_the_end_comes_behind_the_bytes_again_and_again_and_the_other_direction_goes_on(
        self, ends: Ends
    ) -> None:
        await ends.near.send(b"last")
        await ends.near.shutdown()
        assert await exactly(ends.far, 4) == b"last"
        assert [await ends.far.recv() for _ in range(3)] == [b"", b"", b""]
        answer = os.urandom(MIB)
        got, _ = await asyncio.gather(exactly(ends.near, len(answer)), ends.far.send(answer))
        assert digest(got) == digest(answer)
        await ends.far.shutdown()
        assert [await ends.near.recv(), await ends.near.recv()] == [b"", b""]
        assert ends.near.open
        assert ends.far.open

    async def test_both_may_end_at_once_with_bytes_on_their_way(self, ends: Ends) -> None:
        await asyncio.gather(ends.near.send(b"one"), ends.far.send(b"two"))
        await asyncio.gather(ends.near.shutdown(), ends.far.shutdown())
        assert (await to_the_end(ends.near), await to_the_end(ends.far)) == (b"two", b"one")

    async def test_an_end_may_be_said_while_half_of_what_came_is_read(self, ends: Ends) -> None:
        noise = os.urandom(100_000)
        await ends.far.send(noise)
        assert await ends.near.recv(10) == noise[:10]
        await ends.near.shutdown()
        assert await ends.far.recv() == b""
        assert digest(await exactly(ends.near, 99_990)) == digest(noise[10:])
        await ends.far.send(b"more")
        assert await exactly(ends.near, 4) == b"more"

    async def test_an_end_while_the_reader_is_slow_waits_behind_the_bytes(self, narrow: Ends) -> None:
        sent = await fill(narrow.near)
        ending = start(narrow.near.shutdown())
        assert digest(await to_the_end(narrow.far)) == digest(sent)
        await ending

    async def test_a_waiting_reader_meets_the_end(self, ends: Ends) -> None:
        reading = await waiting(ends.far.recv())
        assert ends.far.busy
        await ends.near.shutdown()
        assert await asyncio.wait_for(reading, PATIENCE_S) == b""
        assert not ends.far.busy

    async def test_shutdown_may_be_repeated_and_what_is_sent_after_it_is_the_callers_mistake(
        self, ends: Ends
    ) -> None:
        await ends.near.shutdown()
        await ends.near.shutdown()
        for call in (ends.near.send, ends.near.send_some):
            assert isinstance(await failure(call(b"late")), Terminating)
        await ends.far.send(b"still open")
        assert await exactly(ends.near, 10) == b"still open"
        assert await ends.far.recv() == b""

    async def test_shutdown_may_be_repeated_when_both_have_ended(self, ends: Ends) -> None:
        await ends.near.shutdown()
        await ends.far.shutdown()
        assert await ends.near.recv() == b""
        await ends.near.shutdown()
        assert await ends.near.recv() == b""

    async def test_a_close_in_order_is_an_end_for_the_far_side_behind_the_bytes(self, ends: Ends) -> None:
        await ends.near.send(b"last")
        await ends.near.close()
        await ends.near.close()
        assert await to_the_end(ends.far) == b"last"
        assert await ends.far.recv() == b""

    async def test_close_now_says_the_end_as_well(self, ends: Ends) -> None:
        await ends.near.send(b"last")
        ends.near.close_now()
        ends.near.close_now()
        assert await to_the_end(ends.far) == b"last"

    async def test_after_a_close_nothing_works_any_more(self, ends: Ends) -> None:
        await ends.far.send(b"unread")
        await ends.near.recv(2)
        await ends.near.close()
        for call in (ends.near.recv(), ends.near.recv(), ends.near.send(b"x"), ends.near.send_some(b"x")):
            assert isinstance(await failure(call), Terminating)

    async def test_a_close_wakes_whoever_waits_on_its_own_side(self, narrow: Ends) -> None:
        await fill(narrow.near)
        waiters = [await waiting(narrow.near.recv()), await waiting(narrow.near.send_some(b"x"))]
        assert narrow.near.busy
        narrow.near.close_now()
        for waiter in waiters:
            assert isinstance(await failure(outcome(waiter)), Terminating)


class AbortContract(Contract):
    """Ends out of order: an error for everybody, never an end of stream."""

    @pytest.mark.parametrize("how", ABORTS)
    async def test_an_abort_is_an_error_for_the_far_side_whether_it_waits_or_comes_later(
        self, ends: Ends, how: str
    ) -> None:
        reading = await waiting(ends.far.recv())
        await _call(ABORTS[how], ends.near)
        await failure(outcome(reading))
        await failure(ends.far.recv())
        await failure(ends.far.send(b"x"))
        assert not ends.far.open

    @pytest.mark.parametrize("how", ABORTS)
    async def test_an_abort_behind_bytes_is_no_end_of_stream(self, ends: Ends, how: str) -> None:
        await ends.near.send(b"half a sentence")
        await _call(ABORTS[how], ends.near)
        await failure(to_the_end(ends.far))

    @pytest.mark.parametrize("how", ABORTS)
    async def test_an_abort_of_a_direction_that_is_stuck_reaches_the_far_side(
        self, narrow: Ends, how: str
    ) -> None:
        await fill(narrow.near)
        await _call(ABORTS[how], narrow.near)
        await failure(to_the_end(narrow.far))

    async def test_an_abort_after_an_end_reaches_whoever_sends(self, ends: Ends) -> None:
        await ends.near.shutdown()
        assert await ends.far.recv() == b""
        ends.near.abort(TimedOut("no answer", side=Side.OURS))

        async def send_on() -> None:
            while True:
                await ends.far.send(b"x" * 1000)
                await turns(1)

        await failure(send_on())

    async def test_an_abort_raises_its_reason_to_whoever_waits_and_ever_after(self, narrow: Ends) -> None:
        await fill(narrow.near)
        waiters = [await waiting(narrow.near.recv()), await waiting(narrow.near.send(b"x"))]
        narrow.near.abort(TimedOut("too long", side=Side.OURS))
        narrow.near.abort(PeerReset("the first reason stands"))
        narrow.near.close_now()
        for call in (*(outcome(w) for w in waiters), narrow.near.send_some(b"x")):
            error = await failure(call)
            assert (type(error), error.detail) == (TimedOut, "too long")
        assert not narrow.near.open

    async def test_an_abort_by_the_far_side_wakes_reader_and_writer(self, narrow: Ends) -> None:
        await fill(narrow.near)
        waiters = [await waiting(narrow.near.recv()), await waiting(narrow.near.send(b"x"))]
        narrow.far.abort(TimedOut("too long", side=Side.OURS))
        for waiter in waiters:
            await failure(outcome(waiter))

    async def test_a_sender_learns_that_the_far_side_has_closed(self, narrow: Ends) -> None:
        await fill(narrow.near)
        sending = await waiting(narrow.near.send(b"x"))
        narrow.far.close_now()
        await failure(outcome(sending))


async def _call(how: Callable[[Carrier], Any], end: Carrier) -> None:
    done = how(end)
    if done is not None:
        await done
