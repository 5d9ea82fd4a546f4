"""TLS laid over whatever carries bytes: a wire, the end of a joint, another TLS leg. Itself a `Carrier`.

A reader and a writer may be at work at the same time. Only one of them (or a task of the leg's own) sends on the
carrier at a time, because a read may have something to send, too: an answer to a key update, an alert. So what is
encrypted goes through one buffer, which is offered to the carrier at once; what that does not take, a task of
the leg's own sends as soon as it can. That task ends with the carrier.

An end of the wire without the peer's close_notify is never an end of the stream: it is TLSTruncated.
RFC 8446, for the half-close section 6.1; the same is kept with TLS 1.2, although RFC 5246, section 7.2.1 lets a
peer answer our end by dropping what it had to say.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from doorward.api.errors import DoorwardError, LinkError, Side, Terminating, TLSFailed, TLSTruncated
from doorward.net.carrier import StreamOnly

if TYPE_CHECKING:
    from doorward.net.carrier import Carrier
    from doorward.net.tls_records import Records

# What is encrypted or decrypted between two turns of the loop. Above 64 KiB buffers cost more than calls.
CHUNK_BYTES: Final = 64 * 1024
# Encrypted and not yet taken by the carrier; a writer waits from here on, with at most one chunk more.
UNSENT_BYTES_MAX: Final = 64 * 1024
# Answers to a peer that asks and does not read: from here on nothing more is read from it.
ANSWERS_BYTES_MAX: Final = UNSENT_BYTES_MAX + 2 * CHUNK_BYTES
# A handshake is 2 to 10 KB; long chains with post-quantum signatures reach some 50 KB.
HANDSHAKE_BYTES_MAX: Final = 128 * 1024
# After it: bytes without any data in them (tickets, key updates, half records). An honest peer sends some 20 KB;
# 64 KiB of key updates, answered, cost 40 ms.
IDLE_BYTES_MAX: Final = 64 * 1024
# How long an orderly close waits for the carrier to take what was sent.
CLOSE_WAIT_S: Final = 2.0


class TLSLeg(StreamOnly):
    """One side of a TLS connection. Owns its carrier. Fulfils `Carrier` once `handshake` is over."""

    __slots__ = (
        "_carrier",
        "_failure",
        "_feeder",
        "_finished",
        "_flusher",
        "_idle_bytes",
        "_reading",
        "_records",
        "_send_failure",
        "_shut",
        "_unread",
        "_unsent",
        "_writing",
        "received",
        "sent",
    )

    def __init__(self, carrier: Carrier, records: Records) -> None:
        self.received = 0
        self.sent = 0
        self._carrier = carrier
        self._records = records
        self._failure: DoorwardError | None = None
        self._send_failure: DoorwardError | None = None  # the peer may still have something to say
        self._unread = b""
        self._idle_bytes = 0  # of the wire, since there was data in them
        self._reading = False
        self._writing = False
        self._feeder: asyncio.Future[None] | None = None  # somebody reads the wire; done when that is over
        self._unsent = memoryview(b"")  # taken out of the records, and not by the carrier
        self._flusher: asyncio.Task[None] | None = None
        self._shut = False  # our close_notify is in the records
        self._finished = False  # and the carrier has been shut down behind it

    @property
    def open(self) -> bool:
        return self._failure is None and self._send_failure is None

    @property
    def busy(self) -> bool:
        return self._reading or self._writing

    @property
    def over(self) -> bool:
        """Whether both sides have said that they will send no more."""
        return self._shut and self._records.ended

    @property
    def version(self) -> str:
        """`TLSv1.3` or `TLSv1.2`."""
        return self._records.version

    @property
    def cipher(self) -> str:
        """The name of the cipher suite."""
        return self._records.cipher

    @property
    def alpn(self) -> str | None:
        """The application protocol that both sides agreed on."""
        return self._records.alpn

    @property
    def server_name(self) -> str | None:
        """The name that the client asked for (SNI), lower case."""
        return self._records.server_name

    @property
    def peer_certificate(self) -> bytes | None:
        """The peer's certificate (DER), None if it sent none. Proven only if the context verifies."""
        return self._records.peer_certificate

    @property
    def peer_names(self) -> tuple[tuple[str, str], ...]:
        """Kind and value of each name in the peer's certificate, if it was verified: `("DNS", "example.org")`."""
        return self._records.peer_names

    async def handshake(self) -> None:
        """To its end; the caller has a deadline. Raises TLSFailed kinds, after which the carrier is closed."""
        try:
            while not self._records.handshake():
                await self._drain()
                await self._feed()
            self._idle_bytes = 0
            await self._drain()
        except TLSFailed as error:
            # In order, so that the peer hears our alert before the end.
            self._offer(start=False)
            self._failure = error
            self._carrier.close_now()
            raise

    async def recv(self, bytes_max: int | None = None) -> bytes:
        """See `Socket.recv`. Raises TLSTruncated for an end that the peer has not said, TLSFailed for bad records."""
        assert not self._reading, "two tasks read one leg"
        self._reading = True
        try:
            while not self._unread:
                if self._failure is not None:
                    raise self._failure
                if self._records.ended:
                    return b""
                if not self._decrypt(bytes_max or CHUNK_BYTES):
                    await self._feed()
            return self._take(bytes_max)
        finally:
            self._reading = False

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """See `Socket.send`. The carrier has taken all of it when this returns."""
        assert not self._writing, "two tasks write one leg"
        self._writing = True
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[await self._put(rest) :]
            await self._drain()
            self._expect_sendable(after_shutdown=True)
        finally:
            self._writing = False

    async def send_some(self, data: bytes | bytearray | memoryview) -> int:
        """See `Carrier.send_some`: up to 64 KiB. What the carrier does not take at once follows by itself."""
        assert not self._writing, "two tasks write one leg"
        self._writing = True
        try:
            return await self._put(memoryview(data)) if data else 0
        finally:
            self._writing = False

    async def shutdown(self, *, abortive: bool = False) -> None:
        """See `Socket.shutdown`: close_notify, then an end of the carrier's direction, both taken when this returns."""
        if abortive:
            self.abort(Terminating("aborted", side=Side.OURS))
            return
        self._expect_sendable(after_shutdown=True)
        while not self._say_end():
            await self._feed()
            self._decrypt(1)
        await self._drain()
        self._expect_sendable(after_shutdown=True)

    async def close(self, *, abortive: bool = False) -> None:
        """See `Socket.close`. In order: waits up to 2 s for the carrier to take what was sent."""
        try:
            if not abortive and self.open and self._say_end() and self._flusher is not None:
                await asyncio.wait([self._flusher], timeout=CLOSE_WAIT_S)
        except DoorwardError:
            pass  # it has failed by now, and that is an end, too
        finally:
            self.close_now(abortive=abortive)

    def close_now(self, *, abortive: bool = False) -> None:
        """See `Carrier.close_now`. What the carrier has not taken by now is lost; then the peer is reset."""
        if self._failure is None:
            try:
                is_told = not abortive and self._say_end(start=False) and self._finished
            except DoorwardError:
                is_told = False
            self._end(Terminating("the leg is closed", side=Side.OURS))
            self._carrier.close_now(abortive=not is_told)
        self._unread = b""

    def abort(self, error: DoorwardError) -> None:
        """See `Carrier.abort`."""
        if self._failure is None:
            self._end(error)
            self._carrier.abort(error)

    def _end(self, error: DoorwardError) -> None:
        self._failure = error
        self._unread = b""

    def _fail(self, error: DoorwardError) -> DoorwardError:
        """Both directions are over; the carrier is reset. What was decrypted may still be read."""
        if self._failure is None:
            self._offer(start=False)  # an alert, if there is one
            self._failure = error
            self._carrier.abort(error)
        return self._failure

    def _take(self, bytes_max: int | None) -> bytes:
        data = self._unread
        if bytes_max and len(data) > bytes_max:
            data, self._unread = data[:bytes_max], data[bytes_max:]
        else:
            self._unread = b""
        return data

    def _decrypt(self, bytes_min: int) -> bool:
        """More plaintext into `_unread`; whether anything came of it. Raises TLSFailed."""
        try:
            data = self._records.decrypt(bytes_min)
        except TLSFailed as error:
            raise self._fail(error) from None
        if data:
            self._unread += data
            self.received += len(data)
            self._idle_bytes = 0
        self._offer()
        return bool(data) or self._records.ended

    async def _feed(self) -> None:
        """More of the wire, by this task, or by another one that waits for it already. A cancelled call took nothing.

        Raises what the carrier raises; TLSTruncated, or TLSFailed during the handshake, at its end.
        """
        if self._feeder is not None:
            await asyncio.wait([self._feeder])
            return
        limit = IDLE_BYTES_MAX if self._records.ready else HANDSHAKE_BYTES_MAX
        if self._idle_bytes > limit:
            raise self._fail(TLSFailed(f"over {limit} bytes without data", side=self._records.side))
        self._feeder = asyncio.get_running_loop().create_future()
        try:
            if self._backlog > ANSWERS_BYTES_MAX:
                await self._drain()
            data = await self._carrier.recv(CHUNK_BYTES)
        except DoorwardError as error:
            raise self._fail(error) from None
        finally:
            self._feeder.set_result(None)
            self._feeder = None
        if not data:
            raise self._truncated()
        self._idle_bytes += len(data)
        self._records.feed(data)

    def _truncated(self) -> DoorwardError:
        if not self._records.ready:
            return TLSFailed("the peer ended the connection during the handshake", side=self._records.side)
        error = TLSTruncated("the connection ended, and TLS had not", side=self._records.side)
        return self._fail(error)

    async def _put(self, data: memoryview) -> int:
        """Encrypt one chunk when there is room, and offer it to the carrier. A cancelled call took nothing."""
        while self._flusher is not None and self._backlog >= UNSENT_BYTES_MAX:
            await asyncio.wait([self._flusher])
        while True:
            self._expect_sendable()
            try:
                count = self._records.encrypt(data[:CHUNK_BYTES])
            except TLSFailed as error:
                raise self._fail(error) from None
            if count:
                break
            await self._feed()
            self._decrypt(1)
        self.sent += count
        self._offer()
        return count

    def _say_end(self, *, start: bool = True) -> bool:
        """Close_notify, once. False as in `Records.end`."""
        if not self._shut:
            try:
                if not self._records.end():
                    return False
            except TLSFailed as error:
                raise self._fail(error) from None
            self._shut = True
            self._offer(start=start)
        return True

    def _expect_sendable(self, *, after_shutdown: bool = False) -> None:
        error = self._failure or self._send_failure
        if error is not None:
            raise error
        if self._shut and not after_shutdown:
            raise Terminating("send after shutdown", side=Side.OURS)

    @property
    def _backlog(self) -> int:
        """Bytes encrypted and not yet taken by the carrier."""
        return len(self._unsent) + self._records.outgoing

    def _offer(self, *, start: bool = True) -> None:
        """Have the carrier take at once what it can; the rest is sent by a task of ours, if it may `start`."""
        if self._flusher is not None or not (self._backlog or (self._shut and not self._finished)):
            return
        flushing = self._flush()
        try:
            flushing.send(None)  # as far as it goes without waiting
        except StopIteration:
            return
        flushing.close()  # a cancelled `send_some` has sent nothing
        if start:
            # Not through the loop's factory: a filter that happens to be at work here does not own it.
            self._flusher = asyncio.Task(self._flush(), loop=asyncio.get_running_loop())
            self._flusher.add_done_callback(self._flushed)

    async def _flush(self) -> None:
        """Until the carrier has taken everything. A failure is kept for whoever sends next."""
        try:
            while self._backlog:
                if not self._unsent:
                    self._unsent = memoryview(self._records.take_outgoing())
                count = await self._carrier.send_some(self._unsent)
                self._unsent = self._unsent[count:]
            if self._shut and not self._finished:
                await self._carrier.shutdown()
                self._finished = True
        except DoorwardError as error:
            # Without the way that it came: it leads through this leg, which would then outlive its connection.
            self._send_failure = self._send_failure or error.with_traceback(None)
            self._unsent = memoryview(b"")
            self._records.take_outgoing()

    def _flushed(self, flusher: asyncio.Task[None]) -> None:
        self._flusher = None
        if flusher.cancelled():
            self._fail(LinkError("sending was cancelled", side=Side.OURS))
        else:
            self._offer()  # what came between its last look and this

    async def _drain(self) -> None:
        """Until the carrier has taken everything, or failed."""
        self._offer()
        while self._flusher is not None:
            await asyncio.wait([self._flusher])
