"""The part of the carriers' contract that is about bytes: all of them, in order, and no faster than they are read."""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from tests.net.carrier_world import (
    MIB,
    ON_ITS_WAY_BYTES_MAX,
    PATIENCE_S,
    Contract,
    Ends,
    digest,
    exactly,
    failure,
    fill,
    start,
    waiting,
)
from tests.net.wires import turns

from doorward.api.errors import NotSupported
from doorward.net.carrier import Carrier


class BytesContract(Contract):
    """Every byte, once, in order, and no faster than it is read."""

    async def test_megabytes_both_ways_at_once_arrive_unchanged_and_are_counted(self, ends: Ends) -> None:
        one, other = os.urandom(3 * MIB), os.urandom(2 * MIB + 1)
        got_one, got_other, *_ = await asyncio.gather(
            exactly(ends.far, len(one)),
            exactly(ends.near, len(other)),
            ends.near.send(one),
            ends.far.send(other),
        )
        assert (digest(got_one), digest(got_other)) == (digest(one), digest(other))
        assert (ends.near.sent, ends.near.received) == (len(one), len(other))
        assert (ends.far.sent, ends.far.received) == (len(other), len(one))

    async def test_messages_go_back_and_forth(self, ends: Ends) -> None:
        for number in range(20):
            await ends.near.send(b"ping %d" % number)
            assert await exactly(ends.far, len(b"ping %d" % number)) == b"ping %d" % number
            await ends.far.send(b"pong")
            assert await exactly(ends.near, 4) == b"pong"

    async def test_any_form_of_bytes_can_be_sent_and_is_kept_apart_from_later_changes(
        self, ends: Ends
    ) -> None:
        changing = bytearray(b"array")
        await ends.near.send(changing)
        changing[:] = b"XXXXX"
        await ends.near.send(memoryview(b"a view of bytes")[2:6])
        assert await exactly(ends.far, 9) == b"arrayview"

    async def test_sending_nothing_is_nothing(self, ends: Ends) -> None:
        await ends.near.send(b"")
        assert await ends.near.send_some(b"") == 0
        await ends.near.send(b"something")
        assert await exactly(ends.far, 9) == b"something"
        assert ends.near.sent == 9

    async def test_recv_takes_no_more_than_it_was_asked_for(self, ends: Ends) -> None:
        await ends.near.send(b"abcdef")
        assert [await ends.far.recv(2), await ends.far.recv(3), await ends.far.recv(3)] == [
            b"ab",
            b"cde",
            b"f",
        ]
        await ends.near.send(b"x" * 100_000)
        found = b""
        while len(found) < 100_000:
            data = await ends.far.recv(30_000)
            assert 0 < len(data) <= 30_000
            found += data
        assert found == b"x" * 100_000

    async def test_a_stream_has_no_datagrams(self, ends: Ends) -> None:
        assert isinstance(await failure(ends.near.recv_from()), NotSupported)
        assert isinstance(await failure(ends.near.send_to(b"x", ("192.0.2.1", 9))), NotSupported)

    async def test_asking_for_no_bytes_is_not_the_end(self, ends: Ends) -> None:
        await ends.near.send(b"abc")
        assert await ends.far.recv(0) == b"abc"

    async def test_a_cancelled_recv_has_consumed_nothing(self, ends: Ends) -> None:
        for _ in range(3):
            reading = await waiting(ends.far.recv())
            await ends.near.send(b"kept")
            reading.cancel()
            await asyncio.wait([reading])
            assert reading.cancelled()
            assert await exactly(ends.far, 4) == b"kept"

    async def test_who_reads_nothing_holds_up_the_sender_and_loses_nothing(self, narrow: Ends) -> None:
        sent = await fill(narrow.near)
        assert 0 < len(sent) <= ON_ITS_WAY_BYTES_MAX
        assert narrow.near.sent == len(sent)
        sending = await waiting(narrow.near.send(b"at last" * 100_000))
        assert digest(await exactly(narrow.far, len(sent))) == digest(sent)
        assert await exactly(narrow.far, 700_000) == b"at last" * 100_000
        await sending

    async def test_a_cancelled_send_some_has_sent_nothing(self, narrow: Ends) -> None:
        sent = await fill(narrow.near)  # ends with a cancelled one
        assert digest(await exactly(narrow.far, len(sent))) == digest(sent)
        await narrow.near.send(b"next")
        assert await exactly(narrow.far, 4) == b"next"
        assert narrow.near.sent == len(sent) + 4

    async def test_a_full_direction_does_not_hold_up_the_other(self, narrow: Ends) -> None:
        await fill(narrow.near)
        sending = await waiting(narrow.near.send_some(b"x"))
        for _ in range(3):
            await narrow.far.send(b"ping")
            assert await exactly(narrow.near, 4) == b"ping"
        sending.cancel()
        await asyncio.wait([sending])

    @pytest.mark.parametrize("seed", range(4))
    async def test_nothing_is_lost_or_doubled_whatever_is_cancelled(self, narrow: Ends, seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        data = dice.randbytes(700_000)
        sending = start(_send_restlessly(narrow.near, data, random.Random(seed + 100)))  # noqa: S311 - see above
        found = bytearray()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                reading = start(narrow.far.recv(dice.choice([None, 1, 1000, 50_000])))
                await turns(dice.randrange(4))
                if not reading.done() and dice.random() < 0.3:
                    reading.cancel()
                    await asyncio.wait([reading])
                    if reading.cancelled():
                        continue
                if not (part := await reading):
                    break
                found += part
        await sending
        assert digest(bytes(found)) == digest(data)


async def _send_restlessly(end: Carrier, data: bytes, dice: random.Random) -> None:
    rest = memoryview(data)
    while rest:
        sending = start(end.send_some(rest[: dice.choice([1, 500, 20_000, len(rest)])]))
        await turns(dice.randrange(4))
        if not sending.done() and dice.random() < 0.5:
            sending.cancel()
            await asyncio.wait([sending])
            if sending.cancelled():
                continue
        count = await sending
        assert count > 0
        rest = rest[count:]
    await end.shutdown()
