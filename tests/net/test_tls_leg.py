"""A TLS leg and what its contract does not say: truncation, orderly closing, and whose task sends what is left."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any

import pytest
from tests.net.carrier_world import exactly, failure, fill, to_the_end, waiting
from tests.net.certificates import Authority
from tests.net.tls_client import Serve
from tests.net.tls_ends import Contexts
from tests.net.wires import SMALL_BUFFER_BYTES, connected, turns, until

from doorward.api.errors import LinkError, PeerReset, Side, Terminating, TLSTruncated
from doorward.net import tls_leg
from doorward.net.carrier import Carrier
from doorward.net.leg import Leg
from doorward.net.poller import Poller
from doorward.net.tls_leg import TLSLeg

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2], ids=lambda v: v.name)
@pytest.mark.parametrize("cut", [0, 1, 4, 20])
async def test_a_wire_that_ends_without_close_notify_is_never_an_end_of_the_stream(
    serve: Serve, version: ssl.TLSVersion, cut: int
) -> None:
    leg, client = await serve(version)
    await client.send(b"whole")
    record = client.encrypted(b"the rest of it")
    await client.peer.send(record[:cut])
    client.peer.finish()
    assert await exactly(leg, 5) == b"whole"
    for _ in range(2):
        error = await failure(leg.recv())
        assert isinstance(error, TLSTruncated)
        assert isinstance(error, PeerReset)
        assert (error.slug, error.side) == ("tls_truncated", Side.INTERNAL)
    assert not leg.open
    await client.peer.sees_reset()


async def test_what_follows_a_close_notify_is_not_read_and_the_other_direction_goes_on(serve: Serve) -> None:
    leg, client = await serve()
    after = client.encrypted(b"first") + b""
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    await client.peer.send(after + client.outgoing.read() + b"\x17\x03\x03\x00\x05never" * 100)
    client.peer.finish()
    assert await to_the_end(leg) == b"first"
    assert await leg.recv() == b""
    await leg.send(b"answer")
    assert await client.read(6) == b"answer"


async def test_shutdown_is_a_close_notify_and_then_an_end_of_the_wire(serve: Serve) -> None:
    leg, client = await serve()
    await leg.send(b"last")
    await leg.shutdown()
    assert await client.read(4) == b"last"
    client.incoming.write(await client.peer.read_to_end())
    assert client.tls.read(1) == b""
    await client.send(b"still here")
    assert await exactly(leg, 10) == b"still here"


async def test_a_client_that_sends_and_closes_without_reading_loses_nothing(serve: Serve) -> None:
    """With session tickets unread in its kernel, its close would be a reset that overtakes its last words."""
    leg, client = await serve()
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    ending = client.outgoing.read()
    assert client.peer.pull() is None, "nothing was sent that a client need not read"
    await client.peer.send(ending)
    client.peer.socket.close()
    assert await to_the_end(leg) == b""


async def test_send_and_shutdown_return_when_the_wire_has_taken_everything(serve: Serve) -> None:
    leg, client = await serve(buffer_bytes=SMALL_BUFFER_BYTES)
    sent = 0
    while leg._flusher is None:
        sent += await leg.send_some(bytes(8000))
    sending = await waiting(leg.send(b"x"))
    assert len(await client.read(sent)) == sent
    await sending
    assert not leg._backlog
    await client.read(1)
    sent = len(await fill(leg))
    ending = await waiting(leg.shutdown())
    assert len(await client.read(sent)) == sent
    await ending
    client.incoming.write(await client.peer.read_to_end())
    assert client.tls.read(1) == b""


async def test_a_large_handshake_does_not_count_against_what_comes_after_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_leg, "IDLE_BYTES_MAX", 100)
    leg, client = await serve()
    reading = await waiting(leg.recv())
    record = client.encrypted(b"x" * 50)
    await client.peer.send(record[:20])
    await turns(5)
    await client.peer.send(record[20:])
    assert await reading == b"x" * 50


async def test_close_waits_for_the_wire_to_take_what_was_sent(serve: Serve) -> None:
    leg, client = await serve(buffer_bytes=SMALL_BUFFER_BYTES)
    sent = await fill(leg)
    closing = await waiting(leg.close())
    assert await client.read(len(sent)) == sent
    client.incoming.write(await client.peer.read_to_end())
    assert client.tls.read(1) == b"", "a close_notify"
    await closing


async def test_close_does_not_wait_for_ever(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_leg, "CLOSE_WAIT_S", 0.02)
    leg, client = await serve(buffer_bytes=SMALL_BUFFER_BYTES)
    await fill(leg)
    await leg.close()
    assert isinstance(await failure(leg.recv()), Terminating)
    await client.peer.sees_reset()


async def test_a_cancelled_close_has_closed(serve: Serve) -> None:
    leg, client = await serve(buffer_bytes=SMALL_BUFFER_BYTES)
    await fill(leg)
    closing = await waiting(leg.close())
    closing.cancel()
    await asyncio.wait([closing])
    assert not leg.open
    await client.peer.sees_reset()


async def test_what_close_now_cannot_deliver_ends_in_a_reset_and_not_in_an_end(serve: Serve) -> None:
    leg, client = await serve(buffer_bytes=SMALL_BUFFER_BYTES)
    await fill(leg)
    leg.close_now()
    await client.peer.sees_reset()


async def test_what_was_taken_is_sent_although_nobody_calls_any_more(serve: Serve) -> None:
    leg, client = await serve(buffer_bytes=SMALL_BUFFER_BYTES)
    data = os.urandom(tls_leg.CHUNK_BYTES)
    total = 0
    while leg._flusher is None:
        total += await leg.send_some(data)
    assert len(await client.read(total)) == total
    await until(lambda: leg._flusher is None, "the end of the task")
    assert not leg.busy


async def test_the_task_that_sends_does_not_belong_to_whoever_called(serve: Serve) -> None:
    """A filter's tasks are counted and end with its connection; this one is the leg's."""
    leg, _ = await serve(buffer_bytes=SMALL_BUFFER_BYTES)
    made: list[Any] = []

    def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(make_task)
    try:
        while leg._flusher is None:
            await leg.send_some(bytes(tls_leg.CHUNK_BYTES))
    finally:
        loop.set_task_factory(None)
    assert not made


async def test_a_task_that_was_cancelled_from_outside_is_a_failure_to_send_and_no_silence(
    serve: Serve,
) -> None:
    leg, _ = await serve(buffer_bytes=SMALL_BUFFER_BYTES)
    await fill(leg)
    assert leg._flusher is not None
    leg._flusher.cancel()
    error = await failure(leg.send(b"x"))
    assert isinstance(error, LinkError)


async def test_a_peers_last_words_are_read_although_it_takes_no_more(serve: Serve) -> None:
    leg, client = await serve(buffer_bytes=SMALL_BUFFER_BYTES)
    await client.send(b"413 too large")
    await turns(5)
    client.peer.socket.close()  # with our bytes unread: RST
    await fill_until_failure(leg)
    assert await exactly(leg, 13) == b"413 too large"
    assert isinstance(await failure(leg.recv()), PeerReset)


async def fill_until_failure(leg: TLSLeg) -> None:
    async def push() -> None:
        while True:
            await leg.send(bytes(1000))
            await turns(1)

    await failure(push())


async def test_the_counts_are_of_plaintext(serve: Serve) -> None:
    leg, client = await serve()
    await client.send(b"12345")
    await exactly(leg, 5)
    await leg.send(b"123")
    assert (leg.received, leg.sent) == (5, 3)


async def test_two_readers_or_two_writers_are_our_own_bug(serve: Serve) -> None:
    leg, _ = await serve(buffer_bytes=SMALL_BUFFER_BYTES)
    await fill(leg)
    waiters = [await waiting(leg.recv()), await waiting(leg.send(b"x"))]
    for call in (leg.recv(), leg.send(b"x"), leg.send_some(b"x")):
        with pytest.raises(AssertionError):
            await call
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)


async def test_tls_in_tls_ends_layer_by_layer(poller: Poller, authority: Authority) -> None:
    one, other = connected()
    contexts = Contexts(authority)
    inner: tuple[Carrier, Carrier] = await contexts.over(
        Leg(poller, one, Side.INTERNAL), Leg(poller, other, Side.EXTERNAL)
    )
    near, far = await contexts.over(*inner)
    inner[0].close_now()  # in order, but only the lower one
    assert isinstance(await failure(far.recv()), TLSTruncated)
    near.close_now()
    far.close_now()
    assert not any(end.open for end in (*inner, near, far))
