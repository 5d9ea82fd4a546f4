"""How a connection ends whose server is a filter: each way once, on record, with nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.engine.emulators import Being, being, echo_lines
from tests.engine.filters import Copying, Leaving
from tests.engine.rig import Plugin, Rig, entry, wait_for

from doorward.api import (
    ConnectEvent,
    Connection,
    DataFilter,
    PeerReset,
    Refuse,
    Socket,
    Terminating,
)
from doorward.config.model import Limits

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
BIG = bytes(range(256)) * (32 * 1024)  # 8 MiB

# What may stand between the client and the server that a filter is.
BETWEEN: dict[str, Callable[[], list[DataFilter]]] = {
    "nothing": list,
    "a pump": lambda: [Copying()],
    "a pump that leaves at once": lambda: [Leaving(0)],
}


@pytest.mark.parametrize("kind", ["nothing", "a pump", "a pump that leaves at once"])
async def test_a_client_that_resets_is_on_record_as_the_one_that_ended_it(
    make_rig: MakeRig, kind: str
) -> None:
    met: list[Exception] = []

    async def serve(internal: Socket, connection: Connection) -> None:
        try:
            while True:
                await internal.send(BIG)
        except (PeerReset, Terminating) as error:
            met.append(error)
            raise

    rig = make_rig(being(serve, *BETWEEN[kind]()))
    talk = await rig.emulated()
    await talk.client.exactly(10)
    talk.client.reset()
    await talk.carried
    record = await rig.record()
    assert (record.action, record.end, record.ended_by) == ("allow", "reset", "internal")
    assert record.bytes_received > 10
    assert rig.failures == []
    if kind == "nothing":
        assert isinstance(met[0], PeerReset)


@pytest.mark.parametrize("kind", ["nothing", "a pump", "a pump that leaves at once"])
async def test_a_client_that_resets_before_it_has_taken_everything_did_not_end_in_order(
    make_rig: MakeRig, kind: str
) -> None:
    said = asyncio.Event()

    async def serve(internal: Socket, connection: Connection) -> None:
        await internal.send(b"x" * 200_000)
        said.set()

    rig = make_rig(being(serve, *BETWEEN[kind]()), limits=Limits())
    talk = await rig.emulated()
    await said.wait()
    await talk.client.exactly(1)
    talk.client.reset()
    await talk.carried
    record = await rig.record()
    assert (record.end, record.ended_by) == ("reset", "internal")


@pytest.mark.parametrize("fail", ["closed", "open"])
@pytest.mark.parametrize("kind", ["nothing", "a pump"])
async def test_a_server_that_fails_resets_its_client_whatever_may_be_open(
    make_rig: MakeRig, kind: str, fail: str
) -> None:
    async def serve(internal: Socket, connection: Connection) -> None:
        await internal.recv()
        raise ZeroDivisionError

    rig = make_rig(being(serve, *BETWEEN[kind](), fail=fail))
    talk = await rig.emulated()
    await talk.client.send(b"x")
    assert await talk.client.is_reset()
    await talk.carried
    record = await rig.record()
    assert (record.action, record.reason, record.end) == ("fail", "filter_failed", "filter_failed")
    assert record.filters == '[["it","emulated",""],["it","failed","filter_failed"]]'
    assert [name for name, _ in rig.failures] == ["it"]
    assert rig.server.nobody_came()
    rig.failures.clear()


async def test_a_server_may_refuse_on_purpose(make_rig: MakeRig) -> None:
    async def serve(internal: Socket, connection: Connection) -> None:
        raise Refuse("closed_on_sundays")

    rig = make_rig(being(serve))
    talk = await rig.emulated()
    assert await talk.client.is_reset()
    record = await rig.record()
    assert (record.action, record.reason) == ("deny", "closed_on_sundays")


@pytest.mark.parametrize("fail", ["closed", "open"])
async def test_a_handler_that_fails_after_its_claim_leaves_no_connection_without_a_server(
    make_rig: MakeRig, fail: str
) -> None:
    async def connect(event: ConnectEvent) -> None:
        event.connection.emulate_for_connect(Being(echo_lines))
        raise ZeroDivisionError

    rig = make_rig(entry(Plugin("it", [], connect=connect), fail=fail))  # type: ignore[arg-type]  # one of both
    connection = await rig.connect()
    assert connection.refusal is not None
    assert connection.refusal.reason == "filter_failed"
    assert rig.server.nobody_came()
    rig.failures.clear()


@pytest.mark.parametrize("kind", ["nothing", "a pump"])
async def test_a_server_that_forgets_to_serve_is_ended_by_its_silence(make_rig: MakeRig, kind: str) -> None:
    async def serve(internal: Socket, connection: Connection) -> None:
        await asyncio.Event().wait()

    rig = make_rig(being(serve, *BETWEEN[kind]()), limits=Limits(idle_timeout_s=0.1))
    talk = await rig.emulated()
    assert await talk.client.is_reset()
    assert (await rig.record()).end == "idle_timeout"


@pytest.mark.parametrize("kind", ["nothing", "a pump"])
async def test_an_emulated_connection_is_held_to_the_limit_of_bytes(make_rig: MakeRig, kind: str) -> None:
    async def serve(internal: Socket, connection: Connection) -> None:
        while True:
            await internal.send(b"x" * 400)

    rig = make_rig(being(serve, *BETWEEN[kind]()), limits=Limits(bytes_max_per_direction=1000))
    talk = await rig.emulated()
    assert await talk.client.is_reset()
    record = await rig.record()
    assert record.end == "byte_limit"
    assert rig.failures == []


@pytest.mark.parametrize("kind", ["nothing", "a pump", "a pump that leaves at once"])
async def test_a_client_that_takes_nothing_and_only_sends_is_ended_all_the_same(
    make_rig: MakeRig, kind: str
) -> None:
    async def serve(internal: Socket, connection: Connection) -> None:
        await internal.send(b"x" * 100)

    async def send_for_ever() -> None:
        while True:
            await talk.client.send(b"x" * 1000)

    rig = make_rig(being(serve, *BETWEEN[kind]()), limits=Limits(idle_timeout_s=0.1))
    talk = await rig.emulated()
    sending = rig.start(send_for_ever())
    await talk.carried
    await asyncio.wait([sending])
    assert isinstance(sending.exception(), ConnectionError)
    # Whichever is first: that it took nothing for so long, or that it had taken all there was and a moment more.
    assert (await rig.record()).end in ("idle_timeout", "closed")


async def _never(internal: Socket, connection: Connection) -> None:
    await asyncio.Event().wait()


async def _send_big(internal: Socket, connection: Connection) -> None:
    await internal.send(BIG)


async def _return(internal: Socket, connection: Connection) -> None:
    await internal.send(b"x")


async def _listen(internal: Socket, connection: Connection) -> None:
    await internal.recv()


@pytest.mark.parametrize("kind", ["nothing", "a pump", "a pump that leaves at once"])
@pytest.mark.parametrize("serve", [_never, _send_big, _return, _listen])
@pytest.mark.parametrize("moment", ["before", "during"])
async def test_a_kill_resets_the_client_whatever_the_server_is_doing(
    make_rig: MakeRig, kind: str, serve: Callable[..., object], moment: str
) -> None:
    rig = make_rig(being(serve, *BETWEEN[kind]()))  # type: ignore[arg-type]  # a coroutine function
    if moment == "before":
        connection = await rig.connect()
        connection.kill()
        client, leg = rig.client()
        carried = rig.start(rig.engine.carry(connection, leg))
    else:
        connection, client, carried = await rig.emulated()
        await wait_for(lambda: connection.internal is not None, "it is carried")
        internal = connection.internal
        assert internal is not None
        if serve is _return:
            assert await client.exactly(1) == b"x"
        elif serve is _send_big:
            await wait_for(lambda: internal.sent > 0, "it sends")
        else:
            await wait_for(lambda: connection.chain_scope is not None, "it runs")
        connection.kill()
    reset = await client.is_reset()
    assert reset or serve is _return  # whose end may have come before
    await carried
    assert (await rig.record()).end == "killed"


async def test_a_server_may_kill_its_connection(make_rig: MakeRig) -> None:
    async def serve(internal: Socket, connection: Connection) -> None:
        connection.kill()
        await internal.send(b"never")

    rig = make_rig(being(serve))
    talk = await rig.emulated()
    assert await talk.client.is_reset()
    record = await rig.record()
    assert (record.end, record.ended_by) == ("killed", "ours")
    assert rig.failures == []


async def test_a_cancelled_carrier_ends_its_connection(make_rig: MakeRig) -> None:
    rig = make_rig(being(_never, Copying()))
    talk = await rig.emulated()
    await wait_for(lambda: talk.connection.chain_scope is not None, "it runs")
    talk.carried.cancel()
    assert await talk.client.is_reset()
    assert (await rig.record()).end == "killed"
