"""Chains of data filters: order, containment, and that nothing is lost or doubled whenever a filter returns."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.filters import Copying, Leaning, Leaving, Marking, Pumping
from tests.engine.rig import Plugin, Rig, attaching, entry, wait_for
from tests.engine.wires import Wire

from doorward.api import (
    Connection,
    DataFilter,
    Priority,
    Socket,
    StreamFilter,
)
from doorward.engine.chain import Attached, Chain
from doorward.engine.joint import HELD_BYTES_MAX, JointEnd, joint
from doorward.engine.supervision import Holder, Watchdog

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
NOBODY = cast(Any, None)  # these filters do not look at their connection


def chain_of(*filters: DataFilter) -> tuple[JointEnd, Chain, JointEnd]:
    """A chain between two wires in memory, and their far ends."""
    (client, internal), (external, server) = joint(), joint()
    attached = [Attached(f.priority, f, type(f).__name__) for f in filters]
    return client, Chain(NOBODY, attached, internal, external, Watchdog(5.0), Holder()), server


async def carry(chain: Chain) -> None:
    await chain.pass_rest(await chain.run())


async def rest(socket: Socket) -> bytes:
    data = b""
    while chunk := await socket.recv():
        data += chunk
    return data


async def say(socket: Socket, chunks: Sequence[bytes], pauses: Sequence[int]) -> None:
    for index, chunk in enumerate(chunks):
        await socket.send(chunk)
        for _ in range(pauses[index % len(pauses)]):
            await asyncio.sleep(0)
    await socket.shutdown()


async def test_filters_stand_by_priority_and_then_in_the_order_of_attachment() -> None:
    places = [
        (b"4", Priority.EXTERNAL),
        (b"2", Priority.MIDDLE),
        (b"1", Priority.NAT),
        (b"3", Priority.MIDDLE),
    ]
    client, chain, server = chain_of(*(Marking(letter, priority) for letter, priority in places))
    carrying = asyncio.get_running_loop().create_task(carry(chain))
    await client.send(b"there:")
    assert await server.recv() == b"there:1234"
    await server.send(b"back:")
    assert await client.recv() == b"back:4321", "a server's bytes meet them in the opposite order"
    await client.shutdown()
    await server.shutdown()
    await carrying


def test_neighbouring_stream_filters_are_one_stage() -> None:
    stream, data = StreamFilter, Copying
    _, chain, _ = chain_of(stream(), stream(), data(), data(), stream(), stream(), stream())
    assert [len(stage.attached) for stage in chain.stages] == [2, 1, 1, 3]


async def test_an_end_flushes_what_each_stream_filter_kept_through_those_behind_it() -> None:
    class Keeping(StreamFilter):
        kept = b""

        def client_data(self, data: bytes) -> bytes:
            self.kept += data
            return b""

        def client_end(self) -> bytes:
            return self.kept + b"|"

    client, chain, server = chain_of(Keeping(), Marking(b"!"), Copying(), Keeping())
    carrying = asyncio.get_running_loop().create_task(carry(chain))
    await client.send(b"a")
    await client.send(b"b")
    await client.shutdown()
    assert await rest(server) == b"ab|!|"
    await server.shutdown()
    assert await rest(client) == b""
    await carrying


async def test_one_that_returns_is_passed_by_while_the_others_go_on() -> None:
    client, chain, server = chain_of(Leaving(1), Marking(b"!"), Leaving(0))
    carrying = asyncio.get_running_loop().create_task(carry(chain))
    for _ in range(3):
        await client.send(b"x")
        assert await server.recv() == b"x!"
        await server.send(b"y")
        assert await client.recv() == b"y!"
    await client.shutdown()
    assert await rest(server) == b""
    await server.send(b"late")
    assert await client.recv() == b"late!"
    await server.shutdown()
    assert await rest(client) == b""
    await carrying


CHUNKS = st.lists(st.binary(min_size=1, max_size=50), max_size=12)
FILTERS = st.lists(
    st.builds(lambda kind, count: (kind, count), st.sampled_from([Leaving, Leaning]), st.integers(0, 14)),
    min_size=1,
    max_size=4,
)
PAUSES = st.lists(st.integers(0, 6), min_size=1, max_size=8)


@settings(max_examples=250, deadline=None)
@given(there=CHUNKS, back=CHUNKS, kinds=FILTERS, pauses=PAUSES)
def test_in_memory_too_what_arrives_is_what_was_sent(
    there: list[bytes],
    back: list[bytes],
    kinds: list[tuple[type[Leaving | Leaning], int]],
    pauses: list[int],
) -> None:
    async def run() -> tuple[bytes, bytes]:
        client, chain, server = chain_of(*(kind(count) for kind, count in kinds))
        async with asyncio.timeout(5):
            _, _, _, at_server, at_client = await asyncio.gather(
                carry(chain),
                say(client, there, pauses),
                say(server, back, pauses[::-1]),
                rest(server),
                rest(client),
            )
        return at_server, at_client

    assert asyncio.run(run()) == (b"".join(there), b"".join(back))


async def test_a_socket_that_is_used_after_its_pump_says_that_it_is_over(make_rig: MakeRig) -> None:
    kept: list[Socket] = []

    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        kept.extend((internal, external))

    rig = make_rig(entry(Plugin("it", [], connect=attaching(Pumping(pump)))))
    talk = await rig.converse()
    await talk.both_ways(b"x")
    for handle in kept:
        for call in (handle.recv(), handle.send(b"x"), handle.shutdown(), handle.close()):
            with pytest.raises(Exception, match="this filter's pump is over"):
                await call


@pytest.mark.parametrize("chunks", [0, 1, 3])
async def test_after_the_last_filter_has_returned_the_relay_carries_the_rest(
    make_rig: MakeRig, chunks: int
) -> None:
    rig = make_rig(entry(Plugin("it", [], connect=attaching(Leaving(chunks)))))
    talk = await rig.converse()
    for _ in range(4):
        await talk.both_ways(b"some bytes")
    await wait_for(lambda: talk.connection.relay_id is not None, "the relay has it")
    await talk.end()
    record = await rig.record()
    assert (record.end, record.bytes_sent, record.bytes_received) == ("closed", 40, 40)


async def test_a_half_close_is_kept_when_the_filters_return_after_it(make_rig: MakeRig) -> None:
    rig = make_rig(entry(Plugin("it", [], connect=attaching(Leaving(2), Leaving(2)))))
    talk = await rig.converse()
    await talk.client.send(b"question")
    assert await talk.server.exactly(8) == b"question"
    talk.client.end()
    assert await talk.server.rest() == b""
    await wait_for(lambda: talk.connection.relay_id is not None, "the relay has it")
    await talk.server.send(b"answer")
    talk.server.end()
    assert await talk.client.rest() == b"answer"
    assert (await rig.record()).end == "closed"


async def test_an_end_that_a_filter_said_itself_arrives_behind_the_bytes(make_rig: MakeRig) -> None:
    async def last_words(internal: Socket, external: Socket, connection: Connection) -> None:
        await external.send(b"goodbye")
        await external.shutdown()

    filters = [Pumping(last_words), Leaving(0)]
    rig = make_rig(entry(Plugin("it", [], connect=attaching(*filters))))
    talk = await rig.converse()
    assert await talk.server.rest() == b"goodbye"
    await talk.server.send(b"and to you")
    talk.server.end()
    assert await talk.client.rest() == b"and to you"
    assert (await rig.record()).end == "closed"


@pytest.mark.parametrize("order", [0, 1])
async def test_what_a_filter_has_closed_is_never_joined_up_again(make_rig: MakeRig, order: int) -> None:
    seen = asyncio.Event()

    async def close(internal: Socket, external: Socket, connection: Connection) -> None:
        await internal.recv()
        await (external if order == 0 else internal).close()
        seen.set()

    filters = [Pumping(close), Leaving(0)] if order == 0 else [Leaving(0), Pumping(close)]
    rig = make_rig(entry(Plugin("it", [], connect=attaching(*filters))))
    talk = await rig.converse()
    await talk.client.send(b"bad")
    await seen.wait()
    record = await rig.record()
    assert talk.connection.relay_id is None
    assert record.bytes_sent == 0
    assert record.ended_by == "ours"


async def test_bytes_that_were_on_their_way_at_the_hand_over_are_counted_once(make_rig: MakeRig) -> None:
    go = asyncio.Event()

    async def hold(internal: Socket, external: Socket, connection: Connection) -> None:
        await go.wait()

    async def fetch(internal: Socket, external: Socket, connection: Connection) -> None:
        await internal.send(await external.recv())  # into the joint, where nobody reads it
        go.set()

    rig = make_rig(entry(Plugin("it", [], connect=attaching(Pumping(hold), Pumping(fetch)))))
    talk = await rig.converse()
    await talk.server.send(b"twelve bytes")
    assert await talk.client.exactly(12) == b"twelve bytes"
    await talk.end()
    assert (await rig.record()).bytes_received == 12


@pytest.mark.parametrize("seed", range(16))
async def test_whenever_filters_return_what_arrives_is_what_was_sent(make_rig: MakeRig, seed: int) -> None:
    """Over real sockets, into the real relay: random chunks, one to four filters that leave at random moments."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    kinds = (Leaving, Leaning)
    filters = [chance.choice(kinds)(chance.randrange(12)) for _ in range(chance.randint(1, 4))]
    rig = make_rig(entry(Plugin("it", [], connect=attaching(*filters))))
    talk = await rig.converse()
    there = [chance.randbytes(chance.choice((1, 700, 40_000))) for _ in range(chance.randint(0, 25))]
    back = [chance.randbytes(chance.choice((1, 700, 40_000))) for _ in range(chance.randint(0, 25))]

    async def say(wire: Wire, chunks: list[bytes]) -> None:
        for chunk in chunks:
            await wire.send(chunk)
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        wire.end()

    _, _, at_server, at_client = await asyncio.gather(
        say(talk.client, there), say(talk.server, back), talk.server.rest(), talk.client.rest()
    )
    assert at_server == b"".join(there)
    assert at_client == b"".join(back)
    record = await rig.record()
    assert (record.end, record.bytes_sent, record.bytes_received) == (
        "closed",
        len(at_server),
        len(at_client),
    )


async def test_bytes_that_wait_for_a_slow_neighbour_are_not_lost_when_it_returns() -> None:
    go = asyncio.Event()

    async def wait(internal: Socket, external: Socket, connection: Connection) -> None:
        await go.wait()

    client, chain, server = chain_of(Leaving(0), Pumping(wait))
    carrying = asyncio.get_running_loop().create_task(carry(chain))
    chunks = [bytes([letter]) * HELD_BYTES_MAX for letter in b"abcd"]
    saying = asyncio.get_running_loop().create_task(say(client, chunks, [0]))
    joint_to_the_next = chain.stages[0].far
    assert joint_to_the_next is not None
    await wait_for(lambda: joint_to_the_next.busy, "the first one is full")
    go.set()
    assert await rest(server) == b"".join(chunks)
    await server.shutdown()
    assert await rest(client) == b""
    await asyncio.gather(carrying, saying)


async def test_bytes_that_a_slow_server_has_taken_in_part_are_not_lost_at_the_hand_over(
    make_rig: MakeRig,
) -> None:
    big = random.Random(0).randbytes(12_000_000)  # noqa: S311 - no secret

    async def send(internal: Socket, external: Socket, connection: Connection) -> None:
        await external.send(big)
        await wait_for(lambda: talk.connection.external.busy, "the wire is full")  # type: ignore[union-attr]  # it stands

    rig = make_rig(entry(Plugin("it", [], connect=attaching(Pumping(send), Leaving(0)))))
    talk = await rig.converse()
    await talk.carried
    assert talk.connection.relay_id is not None
    await talk.client.send(b"newer")
    assert await talk.server.exactly(len(big) + 5) == big + b"newer"
    await talk.end()
    assert (await rig.record()).bytes_sent == len(big) + 5
