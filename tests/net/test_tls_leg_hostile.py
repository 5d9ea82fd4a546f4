"""A TLS leg whose peer does what no honest peer does, or what few do."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NamedTuple

import pytest
from tests.net.carrier_world import exactly, failure, fill, outcome, start, waiting
from tests.net.certificates import SERVER_NAME, Authority
from tests.net.openssl import ask_for_key_update, ask_for_renegotiation, send_small_records
from tests.net.tls_client import Serve
from tests.net.tls_ends import TIMEOUT_S
from tests.net.wires import SMALL_BUFFER_BYTES, Peer, connected, turns, until

from doorward.api.errors import Side, Terminating, TLSFailed
from doorward.net.leg import Leg
from doorward.net.poller import Poller
from doorward.net.tls import connect_tls
from doorward.net.tls_context import client_context, server_context
from doorward.net.tls_leg import ANSWERS_BYTES_MAX, CHUNK_BYTES, IDLE_BYTES_MAX, TLSLeg

pytestmark = pytest.mark.anyio


async def test_a_bad_record_ends_both_directions_with_an_alert_and_a_reset(serve: Serve) -> None:
    leg, client = await serve()
    record = bytearray(client.encrypted(b"true"))
    record[-1] ^= 1
    await client.peer.send(bytes(record))
    for _ in range(2):
        error = await failure(leg.recv())
        assert (type(error), error.detail) == (TLSFailed, "decryption failed or bad record mac")
    assert isinstance(await failure(leg.send(b"x")), TLSFailed)
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        await client.read(1)


async def test_a_close_after_a_failure_leaves_nothing_to_read(serve: Serve) -> None:
    leg, client = await serve()
    good, bad = client.encrypted(b"true"), bytearray(client.encrypted(b"false"))
    bad[-1] ^= 1
    await client.peer.send(good + bad)
    assert await leg.recv(1) == b"t"
    leg.close_now()
    error = await failure(leg.recv())
    assert isinstance(error, Terminating)


async def test_plain_text_in_the_middle_is_refused(serve: Serve) -> None:
    leg, client = await serve()
    await client.peer.send(b"QUIT\r\n" * 10)
    assert isinstance(await failure(leg.recv()), TLSFailed)


async def test_a_record_larger_than_any_may_be_is_refused_before_it_is_there(serve: Serve) -> None:
    leg, client = await serve()
    await client.peer.send(b"\x17\x03\x03" + (2**14 + 2049).to_bytes(2, "big"))
    assert isinstance(await failure(leg.recv()), TLSFailed)


async def test_key_updates_are_answered_while_we_read_and_write(serve: Serve) -> None:
    leg, client = await serve()
    for number in range(100):
        ask_for_key_update(client.tls)
        await client.send(b"%03d" % number)
        assert await exactly(leg, 3) == b"%03d" % number
        await leg.send(b"ok")
        assert await client.read(2) == b"ok"


async def test_a_key_update_is_answered_although_nobody_writes(serve: Serve) -> None:
    leg, client = await serve()
    reading = await waiting(leg.recv())
    for _ in range(2):  # OpenSSL answers each when it looks at the next
        ask_for_key_update(client.tls)
    await client.flush()
    await until(client.peer.pull, "an answer")
    await client.send(b"x")
    assert await reading == b"x"


async def test_key_updates_without_end_are_ended(serve: Serve) -> None:
    leg, client = await serve()
    reading = start(leg.recv())
    flood = client.key_updates(8000)
    assert len(flood) > IDLE_BYTES_MAX + 2 * CHUNK_BYTES
    sent = 0

    def is_over() -> bool:
        nonlocal sent
        if not reading.done():
            try:
                sent += client.peer.push(memoryview(flood)[sent:])
                client.peer.pull()
            except ConnectionError:
                return True
        return reading.done()

    await until(is_over, "the end")
    error = await failure(outcome(reading))
    assert (type(error), error.detail) == (TLSFailed, f"over {IDLE_BYTES_MAX} bytes without data")


async def test_who_asks_for_key_updates_and_reads_no_answers_is_not_read_from_any_more(serve: Serve) -> None:
    leg, client = await serve(buffer_bytes=SMALL_BUFFER_BYTES)
    await fill(leg)
    reading = start(leg.recv())
    sent = 0
    for _ in range(20):
        flood = client.key_updates(500) + client.encrypted(b"x")
        while flood and (count := client.peer.push(flood)):
            flood = flood[count:]
            sent += count
            await turns(20)
            if reading.done():
                assert set(await reading) == {ord("x")}
                reading = start(leg.recv())
        if flood:
            break
    else:
        pytest.fail("everything was taken")
    assert leg._backlog <= ANSWERS_BYTES_MAX + 2 * CHUNK_BYTES
    reading.cancel()
    await asyncio.wait([reading])


async def test_attempts_to_renegotiate_are_refused_and_the_talk_goes_on(serve: Serve) -> None:
    leg, client = await serve(ssl.TLSVersion.TLSv1_2, renegotiates=True)
    reading = await waiting(leg.recv())
    ask_for_renegotiation(client.tls)
    await client.flush()
    await until(client.peer.pull, "a refusal")
    assert not reading.done()
    await leg.send(b"we go on")
    reading.cancel()
    await asyncio.wait([reading])


async def test_a_flood_of_warnings_is_ended(serve: Serve) -> None:
    leg, client = await serve(ssl.TLSVersion.TLSv1_2)
    await client.peer.send(b"\x15\x03\x03\x00\x02\x01\x5a" * 1000)
    assert isinstance(await failure(leg.recv()), TLSFailed)


class Half(NamedTuple):
    """A leg of ours that has half of the server's session ticket, and how the other half comes.

    Until it is there, OpenSSL takes nothing to send.
    """

    leg: TLSLeg
    rest: bytes
    peer: Peer
    server: ssl.SSLObject
    incoming: ssl.MemoryBIO

    def plaintext(self) -> bytes:
        """What the server has received by now."""
        self.incoming.write(self.peer.pull() or b"")
        try:
            return self.server.read(100)
        except ssl.SSLWantReadError:
            return b""


@pytest.fixture
async def half(poller: Poller, authority: Authority) -> AsyncIterator[Half]:
    ours, theirs = connected()
    context = server_context(authority.identity("server"), ask_client="required", ca=authority.file)
    context.options &= ~ssl.OP_NO_TICKET
    context.num_tickets = 1
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    send_small_records(server, 512)
    client = client_context(ca=authority.file, identity=authority.identity("client"))
    shaking = start(connect_tls(Leg(poller, ours, Side.EXTERNAL), client, SERVER_NAME, timeout_s=TIMEOUT_S))
    with Peer(theirs) as peer:

        def is_shaken() -> bool:
            incoming.write(peer.pull() or b"")
            try:
                server.do_handshake()
            except ssl.SSLWantReadError:
                peer.push(outgoing.read())
                return False
            return True

        await until(is_shaken, "the handshake")
        leg = await shaking
        ticket = outgoing.read()
        await peer.send(ticket[:-10])
        reading = await waiting(leg.recv())
        reading.cancel()
        await asyncio.wait([reading])
        yield Half(leg, ticket[-10:], peer, server, incoming)
        leg.close_now()


SENDING: dict[str, Callable[[TLSLeg], Coroutine[Any, Any, Any]]] = {
    "send": lambda leg: leg.send(b"hello"),
    "send_some": lambda leg: leg.send_some(b"hello"),
    "shutdown": lambda leg: leg.shutdown(),
}


@pytest.mark.parametrize("how", SENDING)
@pytest.mark.parametrize("reads", [False, True], ids=["alone", "beside a reader"])
async def test_who_cannot_send_before_a_message_is_complete_reads_the_rest_of_it(
    half: Half, how: str, reads: bool
) -> None:
    reading = await waiting(half.leg.recv()) if reads else None
    sending = await waiting(SENDING[how](half.leg))
    if not reads:
        reading = await waiting(half.leg.recv())
    assert reading is not None
    await half.peer.send(half.rest)
    await asyncio.wait_for(sending, TIMEOUT_S)
    if how == "shutdown":
        assert await half.peer.read_to_end()
    else:
        await until(lambda: half.plaintext() == b"hello", "what was sent")
    assert not reading.done()
    reading.cancel()
    await asyncio.wait([reading])


async def test_a_send_that_had_to_read_first_and_was_cancelled_has_sent_nothing(half: Half) -> None:
    sending = await waiting(half.leg.send_some(b"never"))
    sending.cancel()
    await asyncio.wait([sending])
    await half.peer.send(half.rest)
    await half.leg.send(b"hello")
    await until(lambda: half.plaintext() == b"hello", "what was sent")


async def test_close_now_in_the_middle_of_a_message_is_a_reset(half: Half) -> None:
    half.leg.close_now()
    await half.peer.sees_reset()
