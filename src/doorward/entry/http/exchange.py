"""One request and its answer, streamed both ways at once; bodies are never collected.

The answer may come before the request has ended, and interim answers before the answer. Both heads are written
anew; bodies keep their bytes and get their framing from us.
"""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING

from doorward.api.errors import DoorwardError, PeerReset, Side, TimedOut
from doorward.engine.outcome import End as ConnectionEnd
from doorward.engine.outcome import Refusal
from doorward.entry.http.answers import answer
from doorward.net.quiet import QuietWatch
from doorward.wire.http import (
    Data,
    End,
    HttpError,
    Request,
    Response,
    ResponseReader,
    body,
    body_end,
    request_head,
    response_framing,
    response_head,
)

if TYPE_CHECKING:
    from doorward.entry.http.outer import Outer
    from doorward.entry.http.server import HttpServer

NO_BODY = "none"


class Outcome(enum.Enum):
    """What became of an exchange."""

    COMPLETE = enum.auto()  # the client's connection may carry another request
    LAST = enum.auto()  # complete, but nothing may follow
    SWITCHED = enum.auto()  # 101: it is HTTP no more
    STALE = enum.auto()  # a kept connection turned out dead before anything was answered: dial again
    BROKEN = enum.auto()  # over; `last_words` may still be said


class Exchange:
    """Carries one request out and its answer back."""

    def __init__(self, server: HttpServer, request: Request, outer: Outer, *, kept: bool) -> None:
        """`kept`: the outer connection has carried a request before, and may have died meanwhile."""
        self._kept = kept
        self._server = server
        self._client = server.client.leg
        self._request = request
        self._outer = outer
        self.response_reader = ResponseReader(request, server.client.engine.ruling.limits.header_bytes_max)
        self.last_words = b""
        self.outer_reusable = False
        self._uploaded = request.framing.kind == NO_BODY
        self._answering = False
        self._framing_ends_itself = True  # the answer's; False when only closing ends it
        self._switched = False

    async def run(self) -> Outcome:
        """The whole exchange. Raises HttpError and DoorwardError kinds for the client's own failures only."""
        quiet = self._watch_quiet()
        self._client.report_reset(self._outer.socket.abort)
        try:
            await self._exchange()
        except HttpError as error:
            return self._broken_http(error)
        except DoorwardError as error:
            return self._broken(error)
        finally:
            quiet.stop()
            self._client.report_reset(None)
        if self._switched:
            return Outcome.SWITCHED
        self.outer_reusable = self.response_reader.reusable and self._uploaded
        if self._request.keep_alive and self._uploaded and self._framing_ends_itself:
            return Outcome.COMPLETE
        return Outcome.LAST

    async def _exchange(self) -> None:
        """Both directions; the answer's end is the end, even if the request goes on."""
        await self._outer.socket.send(request_head(self._request))
        if self._uploaded:
            self._take_end()
            await self._download()
            return
        upload = asyncio.get_running_loop().create_task(self._upload())
        download = asyncio.get_running_loop().create_task(self._download())
        try:
            done, _ = await asyncio.wait([upload, download], return_when=asyncio.FIRST_COMPLETED)
            if (
                upload in done
                and (error := upload.exception()) is not None
                and not self._is_early_answer(error)
            ):
                raise error
            await download
        finally:
            for task in (upload, download):
                task.cancel()
            await asyncio.wait([upload, download])
            for task in (upload, download):
                if not task.cancelled():
                    task.exception()

    def _is_early_answer(self, error: BaseException) -> bool:
        """A server that will not take the rest of a body may reset that direction and still have answered."""
        return isinstance(error, DoorwardError) and error.side is not Side.INTERNAL

    def _take_end(self) -> None:
        """A request without a body has its end in the same read."""
        if self._server.events and isinstance(self._server.events[0], End):
            self._server.events.popleft()

    async def _upload(self) -> None:
        """The request's body, as it comes."""
        events, framing, sink = self._server.events, self._request.framing, self._outer.socket
        while True:
            while events:
                event = events.popleft()
                if isinstance(event, End):
                    if ending := body_end(framing, event.trailers):
                        await sink.send(ending)
                    self._uploaded = True
                    return
                assert isinstance(event, Data)
                await sink.send(body(framing, event.data))
            data = await self._client.recv()
            if not data:
                self._server.reader.eof()
            events += self._server.reader.receive(data)

    async def _download(self) -> None:
        """The answer, as it comes."""
        reader, source = self.response_reader, self._outer.socket
        framing = self._request.framing
        while not reader.ended and not self._switched:
            data = await source.recv()
            for event in reader.receive(data) if data else reader.eof():
                if isinstance(event, Response):
                    framing = response_framing(event, self._request)
                    await self._client.send(self._head(event))
                elif isinstance(event, Data):
                    await self._client.send(body(framing, event.data))
                elif ending := body_end(framing, event.trailers):
                    await self._client.send(ending)

    def _head(self, response: Response) -> bytes:
        if not response.is_interim:
            self._answering = True
            self._switched = response.status == 101
            self._framing_ends_itself = response_framing(response, self._request).kind != "close"
        keep_alive = self._request.keep_alive and (response.is_interim or self._framing_ends_itself)
        return response_head(response, self._request, keep_alive=keep_alive)

    def _broken_http(self, error: HttpError) -> Outcome:
        """The server's answer is not acceptable, or the client's body is not."""
        if error.status < 500:
            self._end(error.reason, Side.INTERNAL)
            if self._answering:  # a second answer would be read as a part of the first
                self._client.close_now(abortive=True)
            raise error
        if error.reason == "http_no_response" and self._replayable:
            return Outcome.STALE
        self._end(error.reason, Side.EXTERNAL)
        self.last_words = error.reply
        return Outcome.BROKEN

    def _broken(self, error: DoorwardError) -> Outcome:
        """A leg failed, or a filter ended the connection."""
        if error.side is Side.INTERNAL:
            self._outer.fail(error)
            raise error
        if isinstance(error, PeerReset) and self._replayable:
            return Outcome.STALE
        self._outer.fail(error)
        if not self._answering:
            refused = self._outer.connection.refusal
            if refused is None:
                refused = Refusal("fail", error.reason, error.hint, self._outer.connection.decision.rule)
            target = self._outer.connection.target
            self.last_words = answer(refused, target, self._request, keep_alive=False)
        return Outcome.BROKEN

    def _end(self, how: str, by: Side) -> None:
        self._server.client.engine.ended(self._outer.connection, ConnectionEnd(how, by))

    @property
    def _replayable(self) -> bool:
        """Whether to send the request again: nothing answered yet, no body, a safe method (RFC 9110 9.2.2)."""
        return (
            self._kept
            and not self._answering
            and self._request.framing.kind == NO_BODY
            and self._request.method in ("GET", "HEAD", "OPTIONS")
        )

    def _watch_quiet(self) -> QuietWatch:
        engine, outer, client = self._server.client.engine, self._outer.socket, self._client

        def end() -> None:
            if client.congested:
                client.abort(TimedOut("the client did not read for too long", side=Side.INTERNAL))
            else:
                outer.abort(TimedOut("nothing moved for too long", side=Side.EXTERNAL))

        return QuietWatch(
            engine.poller.loop,
            engine.ruling.limits.idle_timeout_s,
            lambda: outer.sent + outer.received + client.sent + client.received,
            end,
        )
