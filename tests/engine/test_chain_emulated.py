"""A filter is the server: the client gets all that it says and then an orderly end, whatever stands between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.engine.emulators import Being, being, echo_lines
from tests.engine.filters import Copying, Leaning, Leaving, Marking
from tests.engine.rig import Emulated, Plugin, Rig, entry

from doorward.api import (
    AlreadyEmulated,
    ConnectEvent,
    Connection,
    ConnectionFlags,
    DataFilter,
    EventKind,
    NotConnected,
    Priority,
    Socket,
    StreamFilter,
)

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
BIG = bytes(range(256)) * (32 * 1024)  # 8 MiB

# What may stand between the client and the server that a filter is.
BETWEEN: dict[str, Callable[[], list[DataFilter]]] = {
    "nothing": list,
    "a pump": lambda: [Copying()],
    "a stream filter": lambda: [Leaning(10**9)],
    "a pump that leaves at once": lambda: [Leaving(0)],
    "a pump that leaves after a chunk": lambda: [Leaving(1)],
    "a stream filter that leaves after a chunk": lambda: [Leaning(1)],
    "all kinds": lambda: [Leaving(2), Copying(), Leaning(3), Leaning(10**9), Leaving(0)],
}
between = pytest.mark.parametrize("kind", BETWEEN)


@between
async def test_a_line_protocol_is_spoken_without_a_server(make_rig: MakeRig, kind: str) -> None:
    rig = make_rig(being(echo_lines, *BETWEEN[kind]()))
    talk = await rig.emulated()
    assert talk.connection.flags is ConnectionFlags.EMULATED
    with pytest.raises(NotConnected):
        _ = talk.connection.external_peer_name
    for word in (b"hello", b"world"):
        await talk.client.send(word + b"\n")
        if kind not in ("a stream filter", "all kinds"):  # which keep a byte back
            assert await talk.client.exactly(6) == word.upper() + b"\n"
    talk.client.end()
    assert (await talk.client.rest()).endswith(b"bye")
    await talk.carried
    record = await rig.record()
    assert (record.action, record.reason, record.rule) == ("allow", "rule_allow", "local")
    assert (record.end, record.ended_by) == ("closed", "ours")
    assert (record.bytes_sent, record.bytes_received) == (12, 15)
    assert record.filters == '[["it","emulated",""]]'
    assert record.connect_us is None
    assert rig.server.nobody_came()


@between
async def test_a_big_answer_waits_for_a_slow_client_and_arrives_whole(make_rig: MakeRig, kind: str) -> None:
    said = asyncio.Event()

    async def serve(internal: Socket, connection: Connection) -> None:
        for start in range(0, len(BIG), 65_536):
            await internal.send(BIG[start : start + 65_536])
        said.set()

    rig = make_rig(being(serve, *BETWEEN[kind]()))
    talk = await rig.emulated()
    assert await talk.client.exactly(10) == BIG[:10]
    assert not said.is_set()
    assert await _rest(talk) == BIG[10:]
    talk.client.end()
    await talk.carried
    record = await rig.record()
    assert (record.end, record.bytes_received) == ("closed", len(BIG))


@between
async def test_a_client_that_goes_on_sending_gets_everything_all_the_same(
    make_rig: MakeRig, kind: str
) -> None:
    async def serve(internal: Socket, connection: Connection) -> None:
        await internal.recv(1)
        await internal.send(BIG[: 2**20])

    async def upload() -> None:
        await talk.client.send(BIG)
        talk.client.end()

    rig = make_rig(being(serve, *BETWEEN[kind]()))
    talk = await rig.emulated()
    uploading = rig.start(upload())
    await uploading  # nothing is read before all is sent
    assert await _rest(talk) == BIG[: 2**20]
    await talk.carried
    record = await rig.record()
    assert (record.end, record.bytes_received) == ("closed", 2**20)


async def _rest(talk: Emulated) -> bytes:
    parts = []
    while chunk := await talk.client.recv(2**20):
        parts.append(chunk)
    return b"".join(parts)


async def test_a_filter_that_leaves_after_the_server_has_said_all_loses_nothing(make_rig: MakeRig) -> None:
    leave = asyncio.Event()

    class LeavingLate(DataFilter):
        async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
            await internal.send(await external.recv(10))
            await leave.wait()

    async def serve(internal: Socket, connection: Connection) -> None:
        await internal.send(b"x" * 100)
        leave.set()

    rig = make_rig(being(serve, LeavingLate()))
    talk = await rig.emulated()
    assert await talk.client.rest() == b"x" * 100
    talk.client.end()
    await talk.carried


async def test_the_first_claim_stands_against_the_same_filter_and_any_other(make_rig: MakeRig) -> None:
    refused: list[str] = []

    async def never(internal: Socket, connection: Connection) -> None:
        await internal.send(b"never")

    def claims(times: int, first: bool) -> Callable[[ConnectEvent], object]:
        async def connect(event: ConnectEvent) -> None:
            for number in range(times):
                try:
                    event.connection.emulate_for_connect(Being(echo_lines if first and not number else never))
                except AlreadyEmulated as error:
                    refused.append(error.detail)

        return connect

    one = Plugin("one", [], connect=claims(2, True))  # type: ignore[arg-type]  # a coroutine function
    two = Plugin("two", [], connect=claims(1, False))  # type: ignore[arg-type]  # a coroutine function
    rig = make_rig(entry(one), entry(two))
    talk = await rig.emulated()
    talk.client.end()
    assert await talk.client.rest() == b"bye"
    await talk.carried
    assert refused == ['filter "one" emulates this connection'] * 2
    assert (await rig.record()).filters == '[["one","emulated",""],["two","joined",""]]'


async def test_who_emulates_stands_behind_all_others(make_rig: MakeRig) -> None:
    got: list[bytes] = []

    async def serve(internal: Socket, connection: Connection) -> None:
        got.append(await internal.recv())

    letters = zip(b"abc", (Priority.EMULATION, Priority.NAT, Priority.EXTERNAL), strict=True)
    rig = make_rig(being(serve, *(Marking(bytes([letter]), place) for letter, place in letters)))
    talk = await rig.emulated()
    await talk.client.send(b"x")
    assert await talk.client.rest() == b""
    assert got == [b"xbca"]
    talk.client.end()
    await talk.carried


async def test_a_stream_filter_cannot_be_a_server(make_rig: MakeRig) -> None:
    async def connect(event: ConnectEvent) -> None:
        event.connection.attach_data_filter(Marking(b"x"))
        event.connection.emulate_for_connect(StreamFilter())

    rig = make_rig(entry(Plugin("it", [], connect=connect)))
    talk = await rig.emulated()
    assert await talk.client.is_reset()
    assert (await rig.record()).reason == "filter_failed"
    rig.failures.clear()


async def test_who_wants_to_know_hears_that_it_stands_and_that_it_ends(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []
    ears = Plugin("ears", heard)
    rig = make_rig(being(echo_lines), entry(ears, events=[EventKind.ESTABLISHED]))
    talk = await rig.emulated()
    assert heard == [("ears", "established")]
    await talk.client.send(b"hello\n")
    talk.client.end()
    await talk.client.rest()
    await rig.record()
    assert heard[1:] == [("ears", "terminating")]
    assert [(end.bytes_sent, end.bytes_received, end.end) for end in ears.ends] == [(6, 9, "closed")]


@between
async def test_returning_without_a_word_is_an_orderly_end(make_rig: MakeRig, kind: str) -> None:
    async def serve(internal: Socket, connection: Connection) -> None:
        pass

    rig = make_rig(being(serve, *BETWEEN[kind]()))
    talk = await rig.emulated()
    assert await talk.client.rest() == b""
    talk.client.end()
    await talk.carried
    assert (await rig.record()).end == "closed"
