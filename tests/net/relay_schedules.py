"""The part of the relay's contract that is left to chance: random conversations against a model of two pipes.

The model: what was sent before an orderly end arrives, exactly and in order; what arrives is always a beginning
of what was sent; a reset by either side reaches the other, if the pair was still alive.
"""

from __future__ import annotations

import asyncio
from typing import Literal, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.net.relay_world import SIDES, MakeRelay, Pair, World, other
from tests.net.wires import open_descriptors, turns, until

Step: TypeAlias = tuple[Literal["send", "read", "finish", "reset", "wait", "again"], str, int]

_SIZES = st.sampled_from([1, 100, 16 * 1024, 64 * 1024, 64 * 1024 + 1, 300 * 1024])
_STEPS = st.tuples(
    st.sampled_from(["send", "send", "send", "read", "read", "wait", "again", "finish"]),
    st.sampled_from(SIDES),
    _SIZES,
)
_RESET = st.tuples(st.just("reset"), st.sampled_from(SIDES), st.just(0))


class Talk:
    """One conversation: does the steps and keeps the books."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pair: Pair = world.pair(buffer_bytes=32 * 1024)
        self.sent = {side: bytearray() for side in SIDES}
        self.got = {side: bytearray() for side in SIDES}
        self.finished: set[str] = set()
        self.at_end: set[str] = set()

    def send(self, side: str, size: int) -> None:
        """As much of `size` bytes as the kernel takes; every byte differs from its neighbours."""
        if side not in self.finished:
            start = len(self.sent[side])
            data = bytes((start + offset) * 31 % 251 for offset in range(size))
            self.sent[side] += data[: self.pair.peer(side).push(data)]

    def read(self, side: str, size: int) -> None:
        """What is there, at most `size`; it must continue what this side got before."""
        if side in self.at_end:
            return
        data = self.pair.peer(side).pull(size)
        if data == b"":
            self.at_end.add(side)
            assert other(side) in self.finished, "an end that nobody sent"
            assert self.got[side] == self.sent[other(side)], "an end before the last byte"
        elif data:
            start = len(self.got[side])
            assert data == self.sent[other(side)][start : start + len(data)], "other bytes than were sent"
            self.got[side] += data

    def finish(self, side: str) -> None:
        """FIN, once."""
        if side not in self.finished:
            self.finished.add(side)
            self.pair.peer(side).finish()

    async def do(self, step: Step) -> None:
        """One step that is not a reset."""
        what, side, size = step
        if what == "send":
            self.send(side, size)
        elif what == "read":
            self.read(side, size)
        elif what == "finish":
            self.finish(side)
        elif what == "again":
            self.world.hand_over_again(self.pair)
        else:
            await turns(size % 5 + 1)

    async def end_in_order(self) -> None:
        """Both sides finish and read on: all must arrive."""
        for side in SIDES:
            self.finish(side)

        def drained() -> bool:
            for side in SIDES:
                self.read(side, 256 * 1024)
            return len(self.at_end) == 2

        await until(drained, "everything that was sent")
        assert (await self.pair.completion()).end == "closed"

    async def end_by_reset(self, side: str) -> None:
        """One side resets. Alive till then, the pair ends as reset and the other side learns of it."""
        self.pair.peer(side).reset()
        if self.finished == set(
            SIDES
        ):  # its connection may have ended in order: then it is over once all is read
            await until(lambda: self._is_over(other(side)), "the completion")
        done = await self.pair.completion()
        if done.end == "closed":  # both had finished before
            assert self.finished == set(SIDES)
        else:
            assert (done.end, done.ended_by) == ("reset", side)
            if self.finished != set(SIDES):  # else the other's connection may have ended in order already
                await self.pair.other(side).sees_reset()

    def _is_over(self, reader: str) -> bool:
        try:
            self.read(reader, 256 * 1024)
        except ConnectionError:
            self.at_end.add(reader)  # from then on the kernel shows an end
        return self.pair.id in self.world.completed


class SchedulesContract:
    """Random conversations."""

    @settings(
        max_examples=60, deadline=None, report_multiple_bugs=False, suppress_health_check=list(HealthCheck)
    )
    @given(steps=st.lists(_STEPS, max_size=25), reset=st.none() | _RESET)
    def test_any_conversation_fits_the_model(
        self, make_relay: MakeRelay, steps: list[Step], reset: Step | None
    ) -> None:
        async def talk() -> None:
            world = World(make_relay)
            conversation = Talk(world)
            for step in steps:
                await conversation.do(step)
            if reset is None:
                await conversation.end_in_order()
            else:
                await conversation.end_by_reset(reset[1])
            world.close()

        before = open_descriptors()
        asyncio.run(talk())
        assert open_descriptors() <= before
